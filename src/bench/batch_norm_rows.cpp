// batch_norm.h. What is small beside the activations (coefficients, statistics, gradients of scale and bias) does not
// count.
#include "batch_norm.h"

#include <algorithm>

#include "bench/kernel_rows.h"

namespace convolt::bench {
namespace {

int channels_of(const Tensor& x) { return static_cast<int>(x.shape[-1]); }

Work stats_of(Operands& o, const Tensor& x) {
  o.operations(4 * x.elements());
  float* const stats = o.scratch(channel_stats_extent(rows_of(x)) * channels_of(x) * 4);
  return [=](Stream s) { channel_stats(s, x, stats); };
}
Work make_stats(Operands& o) { return stats_of(o, o.read(o.pictures(56, 64))); }
Work make_wide_stats(Operands& o) { return stats_of(o, o.read(o.pictures(7, 2048))); }

Work apply_of(Operands& o, bool residual, Act act) {
  const Tensor x = o.read(o.pictures(56, 64)), r = residual ? o.read(x.shape) : Tensor{}, y = o.written(x.shape);
  const float* coef = o.table(4 * x.shape[-1]);
  o.operations((2 + (residual ? 1 : 0) + (act.kind != Activation::none ? 1 : 0)) * x.elements());
  return [=](Stream s) { bn_apply(s, x, coef, r, y, act); };
}
Work make_apply(Operands& o) { return apply_of(o, false, Activation::none); }
Work make_apply_relu(Operands& o) { return apply_of(o, false, Activation::relu); }
Work make_apply_add_relu(Operands& o) { return apply_of(o, true, Activation::relu); }

// stored: the activation's gradient is found from y, as after a residual.
Work backward_reduce_of(Operands& o, bool stored) {
  const Tensor dy = o.read(o.pictures(56, 64)), x = o.read(dy.shape), y = stored ? o.read(dy.shape) : Tensor{};
  const int c = channels_of(x);
  o.operations((stored ? 6 : 8) * x.elements());
  const float* coef = o.table(4 * c);
  float *const scratch = o.scratch(bn_backward_scratch(rows_of(x), c)), *const out = o.scratch(2 * c * 4);
  return [=](Stream s) { bn_backward_reduce(s, dy, x, y, coef, Activation::relu, scratch, out, out + c); };
}
Work make_backward_reduce(Operands& o) { return backward_reduce_of(o, false); }
Work make_backward_reduce_stored(Operands& o) { return backward_reduce_of(o, true); }

Work backward_apply_of(Operands& o, bool residual) {
  const Tensor dy = o.read(o.pictures(56, 64)), x = o.read(dy.shape), y = residual ? o.read(dy.shape) : Tensor{};
  const Tensor dx = o.written(dy.shape), dresidual = residual ? o.written(dy.shape) : Tensor{};
  const int c = channels_of(x);
  o.operations((residual ? 8 : 10) * x.elements());
  const float *coef = o.table(4 * c), *sums = o.table(2 * c);
  return [=](Stream s) { bn_backward_apply(s, dy, x, y, coef, Activation::relu, sums, sums + c, dx, dresidual); };
}
Work make_backward_apply(Operands& o) { return backward_apply_of(o, false); }
Work make_backward_apply_residual(Operands& o) { return backward_apply_of(o, true); }

Work make_channel_sum(Operands& o) {
  const Tensor x = o.read(o.pictures(56, 64));
  float* const scratch = o.scratch(bn_backward_scratch(rows_of(x), channels_of(x)));
  float* const out = o.scratch(channels_of(x) * 4);
  return [=](Stream s) { channel_sum(s, x, scratch, out); };
}

Work make_add_bias(Operands& o) {
  const Tensor x = o.read(o.pictures(56, 64)), y = o.written(x.shape);
  const float* bias = o.table(x.shape[-1]);
  return [=](Stream s) { add_bias(s, x, bias, y); };
}

Work make_fold(Operands& o) {
  const int64_t outputs = 512, inner = std::max<int64_t>(1, o.tensor_bytes() / (4 * outputs));
  const Tensor w = o.read_as(DType::f32, {outputs, inner}), folded = o.written_as(DType::f32, w.shape);
  const float* coef = o.table(4 * outputs);
  float* const bias = o.scratch(outputs * 4);
  return [=](Stream s) { bn_fold(s, w, nullptr, coef, folded, bias); };
}

}  // namespace

std::vector<KernelRow> batch_norm_rows() {
  return {{"channel_stats", make_stats},
          {"channel_stats wide", make_wide_stats},
          {"bn_apply", make_apply},
          {"bn_apply relu", make_apply_relu},
          {"bn_apply add relu", make_apply_add_relu},
          {"bn_backward_reduce relu", make_backward_reduce},
          {"bn_backward_reduce add relu", make_backward_reduce_stored},
          {"bn_backward_apply relu", make_backward_apply},
          {"bn_backward_apply add relu", make_backward_apply_residual},
          {"channel_sum", make_channel_sum},
          {"add_bias", make_add_bias},
          {"bn_fold", make_fold}};
}

}  // namespace convolt::bench
