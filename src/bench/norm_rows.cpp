// norm.h: layer normalisation of 96 channels, group normalisation of 64 channels in 32 groups.
#include "norm.h"

#include "bench/kernel_rows.h"

namespace convolt::bench {
namespace {

struct Normalised {
  Tensor x;
  NormSets sets;
};
Normalised layer_of(const Tensor& x) { return {x, {1, 1}}; }
Normalised groups_of(const Tensor& x) { return {x, {x.shape[1] * x.shape[2], 32}}; }

Work stats_of(Operands& o, const Normalised& n) {
  float* const stats = o.scratch(n.sets.sets_of(n.x.shape) * 8);
  return [=](Stream s) { norm_stats(s, n.x, n.sets, 1e-5F, stats); };
}
Work make_layer_stats(Operands& o) { return stats_of(o, layer_of(o.read(o.pictures(56, 96)))); }
Work make_group_stats(Operands& o) { return stats_of(o, groups_of(o.read(o.pictures(56, 64)))); }

Work apply_of(Operands& o, const Normalised& n) {
  const Tensor y = o.written(n.x.shape);
  const float *stats = o.table(2 * n.sets.sets_of(y.shape), 0.5F), *gamma = o.table(y.shape[-1]), *beta = gamma;
  return [=](Stream s) { norm_apply(s, n.x, n.sets, stats, gamma, beta, y); };
}
Work make_layer_apply(Operands& o) { return apply_of(o, layer_of(o.read(o.pictures(56, 96)))); }
Work make_group_apply(Operands& o) { return apply_of(o, groups_of(o.read(o.pictures(56, 64)))); }

Work backward_params_of(Operands& o, const Normalised& n) {
  const Tensor dy = o.read(n.x.shape);
  const int64_t c = dy.shape[-1];
  const float* stats = o.table(2 * n.sets.sets_of(dy.shape), 0.5F);
  float *const scratch = o.scratch(norm_backward_params_scratch(dy.shape)), *const out = o.scratch(2 * c * 4);
  return [=](Stream s) { norm_backward_params(s, dy, n.x, n.sets, stats, scratch, out, out + c); };
}
Work make_layer_backward_params(Operands& o) { return backward_params_of(o, layer_of(o.read(o.pictures(56, 96)))); }

// Two passes over dy and x.
Work backward_of(Operands& o, const Normalised& n) {
  const Tensor dy = o.read(n.x.shape), dx = o.written(dy.shape);
  o.count(2 * dy.bytes());
  const int64_t sets = n.sets.sets_of(dy.shape);
  const float *stats = o.table(2 * sets, 0.5F), *gamma = o.table(dy.shape[-1]);
  float* const means = o.scratch(sets * 8);
  return [=](Stream s) { norm_backward(s, dy, n.x, n.sets, stats, gamma, means, dx); };
}
Work make_layer_backward(Operands& o) { return backward_of(o, layer_of(o.read(o.pictures(56, 96)))); }
Work make_group_backward(Operands& o) { return backward_of(o, groups_of(o.read(o.pictures(56, 64)))); }

}  // namespace

std::vector<KernelRow> norm_rows() {
  return {{"norm_stats layer", make_layer_stats},
          {"norm_stats group", make_group_stats},
          {"norm_apply layer", make_layer_apply},
          {"norm_apply group", make_group_apply},
          {"norm_backward_params layer", make_layer_backward_params},
          {"norm_backward layer", make_layer_backward},
          {"norm_backward group", make_group_backward}};
}

}  // namespace convolt::bench
