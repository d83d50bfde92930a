// resample.h. Every element of both pictures counts once, however often it is read.
#include "resample.h"

#include "bench/kernel_rows.h"

namespace convolt::bench {
namespace {

Work make_shift(Operands& o) {
  const Tensor x = o.read(o.pictures(56, 64)), y = o.written({x.shape[0], 58, 58, 64});
  return [=](Stream s) { shift_picture(s, x, y, -1, -1, 0.F); };
}

Work enlarge(Operands& o, ResampleFilter filter) {
  const Tensor y = o.written(o.pictures(56, 64)), x = o.read({y.shape[0], 28, 28, 64});
  return [=](Stream s) { resample(s, x, y, filter); };
}
Work enlarge_backward(Operands& o, ResampleFilter filter) {
  const Tensor dy = o.read(o.pictures(56, 64)), dx = o.written({dy.shape[0], 28, 28, 64});
  return [=](Stream s) { resample_backward(s, dy, dx, filter); };
}
Work make_nearest(Operands& o) { return enlarge(o, ResampleFilter::nearest); }
Work make_bilinear(Operands& o) { return enlarge(o, ResampleFilter::bilinear); }
Work make_nearest_backward(Operands& o) { return enlarge_backward(o, ResampleFilter::nearest); }
Work make_bilinear_backward(Operands& o) { return enlarge_backward(o, ResampleFilter::bilinear); }

}  // namespace

std::vector<KernelRow> resample_rows() {
  return {{"shift_picture pad 1", make_shift},
          {"resample nearest 28 to 56", make_nearest},
          {"resample bilinear 28 to 56", make_bilinear},
          {"resample_backward nearest 28 to 56", make_nearest_backward},
          {"resample_backward bilinear 28 to 56", make_bilinear_backward}};
}

}  // namespace convolt::bench
