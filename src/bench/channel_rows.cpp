// channels.h. Factors for whole pictures or channels do not count.
#include "channels.h"

#include "bench/kernel_rows.h"

namespace convolt::bench {
namespace {

// As in a concatenation: the first half of the channels of y.
Work make_copy(Operands& o) {
  const Tensor x = o.read(o.pictures(56, 64)), y = o.uncounted(o.dtype(), {x.shape[0], 56, 56, 128});
  o.count(x.bytes());
  return [=](Stream s) { copy_channels(s, x, 0, y, 0, 64); };
}

Work make_shuffle(Operands& o) {
  const Tensor x = o.read(o.pictures(28, 128)), y = o.written(x.shape);
  return [=](Stream s) { channel_shuffle(s, x, y, 2); };
}

Work make_mul(Operands& o) {
  const Tensor a = o.read(o.pictures(56, 64)), b = o.read(a.shape), y = o.written(a.shape);
  return [=](Stream s) { mul(s, a, b, y); };
}

Work make_mul_broadcast(Operands& o) {
  const Tensor a = o.read(o.pictures(56, 64)), y = o.written(a.shape);
  const Tensor b = o.uncounted(o.dtype(), {a.shape[0], 64});
  return [=](Stream s) { mul(s, a, b, y); };
}

Work make_mul_backward_broadcast(Operands& o) {
  const Tensor dy = o.read(o.pictures(56, 64)), a = o.read(dy.shape);
  const Tensor db = o.uncounted(o.dtype(), {dy.shape[0], 64});
  return [=](Stream s) { mul_backward_broadcast(s, dy, a, db); };
}

Work make_scale(Operands& o) {
  const Tensor x = o.read(o.pictures(56, 96)), y = o.written(x.shape);
  const float* scale = o.table(96);
  return [=](Stream s) { scale_channels(s, x, scale, y); };
}

Work make_scale_backward(Operands& o) {
  const Tensor dy = o.read(o.pictures(56, 96)), x = o.read(dy.shape);
  float *const scratch = o.scratch(scale_channels_scratch(rows_of(x), 96)), *const dscale = o.scratch(96 * 4);
  return [=](Stream s) { scale_channels_backward(s, dy, x, scratch, dscale); };
}

}  // namespace

std::vector<KernelRow> channel_rows() {
  return {{"copy_channels 64 of 128", make_copy},
          {"channel_shuffle 2 groups", make_shuffle},
          {"mul", make_mul},
          {"mul broadcast", make_mul_broadcast},
          {"mul_backward_broadcast", make_mul_backward_broadcast},
          {"scale_channels", make_scale},
          {"scale_channels_backward", make_scale_backward}};
}

}  // namespace convolt::bench
