// pool.h. Every element of picture and pooled picture counts once, however many windows it lies in.
#include "pool.h"

#include "bench/kernel_rows.h"

namespace convolt::bench {
namespace {

const PoolWindow kApart{2, 2, 2, 2, {}};       // windows side by side, as VGG's
const PoolWindow kOverlapping{3, 3, 2, 2, 1};  // as ResNet's

Tensor pictures(Operands& o) { return o.read(o.pictures(56, 64)); }

Work max_of(Operands& o, const PoolWindow& window, bool indexed) {
  const Tensor x = pictures(o), y = o.written(window.pooled(x.shape));
  const Tensor index = indexed ? o.written_as(DType::u8, y.shape) : Tensor{};
  o.operations(y.elements() * window.kernel_h * window.kernel_w);
  return [=](Stream s) { max_pool(s, x, y, index, window); };
}
Work make_max(Operands& o) { return max_of(o, kApart, true); }
Work make_max_overlapping(Operands& o) { return max_of(o, kOverlapping, true); }
Work make_max_evaluation(Operands& o) { return max_of(o, kOverlapping, false); }

Work max_backward_of(Operands& o, const PoolWindow& window) {
  const Tensor dx = o.written(o.pictures(56, 64)), dy = o.read(window.pooled(dx.shape));
  const Tensor index = o.written_as(DType::u8, dy.shape);
  const Tensor x = o.uncounted(o.dtype(), dx.shape), y = o.uncounted(o.dtype(), dy.shape);
  o.prepare([=](Stream s) { max_pool(s, x, y, index, window); });
  return [=](Stream s) { max_pool_backward(s, dy, index, dx, window); };
}
Work make_max_backward(Operands& o) { return max_backward_of(o, kApart); }
Work make_max_backward_overlapping(Operands& o) { return max_backward_of(o, kOverlapping); }

Work avg_of(Operands& o, const PoolWindow& window) {
  const Tensor x = pictures(o), y = o.written(window.pooled(x.shape));
  return [=](Stream s) { avg_pool(s, x, y, window); };
}
Work avg_backward_of(Operands& o, const PoolWindow& window) {
  const Tensor dx = o.written(o.pictures(56, 64)), dy = o.read(window.pooled(dx.shape));
  return [=](Stream s) { avg_pool_backward(s, dy, dx, window); };
}
Work make_avg(Operands& o) { return avg_of(o, kApart); }
Work make_avg_overlapping(Operands& o) { return avg_of(o, kOverlapping); }
Work make_avg_backward(Operands& o) { return avg_backward_of(o, kApart); }
Work make_avg_backward_overlapping(Operands& o) { return avg_backward_of(o, kOverlapping); }

Work make_global(Operands& o) {
  const Tensor x = o.read(o.pictures(7, 2048)), y = o.written({x.shape[0], x.shape[3]});
  o.operations(x.elements());
  return [=](Stream s) { global_avg_pool(s, x, y); };
}
Work make_global_backward(Operands& o) {
  const Tensor dx = o.written(o.pictures(7, 2048)), dy = o.read({dx.shape[0], dx.shape[3]});
  return [=](Stream s) { global_avg_pool_backward(s, dy, dx); };
}

Work make_adaptive(Operands& o) {
  const Tensor x = o.read(o.pictures(28, 128)), y = o.written({x.shape[0], 7, 7, x.shape[3]});
  return [=](Stream s) { adaptive_avg_pool(s, x, y); };
}
Work make_adaptive_backward(Operands& o) {
  const Tensor dx = o.written(o.pictures(28, 128)), dy = o.read({dx.shape[0], 7, 7, dx.shape[3]});
  return [=](Stream s) { adaptive_avg_pool_backward(s, dy, dx); };
}

// A quarter of the pixels is read; backward half of the channels.
Work make_slice_pad(Operands& o) {
  const Tensor x = o.uncounted(o.dtype(), o.pictures(32, 16)), y = o.written({x.shape[0], 16, 16, 32});
  o.count(x.bytes() / 4);
  return [=](Stream s) { slice_pad(s, x, y, 2, 8); };
}
Work make_slice_pad_backward(Operands& o) {
  const Tensor dx = o.written(o.pictures(32, 16)), dy = o.uncounted(o.dtype(), {dx.shape[0], 16, 16, 32});
  o.count(dy.bytes() / 2);
  return [=](Stream s) { slice_pad_backward(s, dy, dx, 2, 8); };
}

}  // namespace

std::vector<KernelRow> pool_rows() {
  return {{"max_pool 2x2", make_max},
          {"max_pool 3x3 s2", make_max_overlapping},
          {"max_pool 3x3 s2 evaluation", make_max_evaluation},
          {"max_pool_backward 2x2", make_max_backward},
          {"max_pool_backward 3x3 s2", make_max_backward_overlapping},
          {"avg_pool 2x2", make_avg},
          {"avg_pool 3x3 s2", make_avg_overlapping},
          {"avg_pool_backward 2x2", make_avg_backward},
          {"avg_pool_backward 3x3 s2", make_avg_backward_overlapping},
          {"global_avg_pool", make_global},
          {"global_avg_pool_backward", make_global_backward},
          {"adaptive_avg_pool 28 to 7", make_adaptive},
          {"adaptive_avg_pool_backward 28 to 7", make_adaptive_backward},
          {"slice_pad", make_slice_pad},
          {"slice_pad_backward", make_slice_pad_backward}};
}

}  // namespace convolt::bench
