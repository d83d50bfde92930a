// What fused passes make of several ops: block_end.h, branch_end.h and bn_pool.h, in the shapes of ResNet-50's and
// ConvNeXt's first stages.
#include "batch_norm.h"
#include "bench/kernel_rows.h"
#include "block_end.h"
#include "bn_pool.h"
#include "branch_end.h"

namespace convolt::bench {
namespace {

Tensor block(Operands& o) { return o.read(o.pictures(56, 256)); }

Work end_of(Operands& o, bool two) {
  BlockEndArgs a;
  a.x = block(o);
  a.residual = o.read(a.x.shape);
  a.y = o.written(a.x.shape);
  a.coef = o.table(4 * a.x.shape[-1]);
  if (two) a.residual_coef = o.table(4 * a.x.shape[-1]);
  a.mask = o.written_as(DType::u8, {a.x.elements() / 8}).as<uint8_t>();
  a.act = Activation::relu;
  o.operations((two ? 6 : 4) * a.x.elements());
  return [=](Stream s) { block_end(s, a); };
}
Work make_end(Operands& o) { return end_of(o, false); }
Work make_end_of_two(Operands& o) { return end_of(o, true); }

Work join_of(Operands& o, Gate gate, bool two) {
  GradientJoinArgs a;
  a.dy = block(o);
  a.x = o.read(a.dy.shape);
  a.gate = gate;
  const int64_t channels = a.x.shape[-1];
  a.coef = o.table(4 * channels);
  if (gate == Gate::mask) {
    a.dy2 = o.read(a.dy.shape);
    a.gate_data = o.random_bytes(a.x.elements() / 8);
    o.count(a.x.elements() / 8);
  }
  if (two) {
    a.x2 = o.read(a.dy.shape);
    a.coef2 = o.table(4 * channels);
  }
  a.dz = o.written(a.dy.shape);
  a.scratch = o.scratch(gradient_join_scratch(rows_of(a.x), static_cast<int>(channels), two));
  float* const sums = o.scratch(4 * channels * 4);
  a.dgamma = sums;
  a.dbeta = sums + channels;
  a.dgamma2 = sums + 2 * channels;
  a.dbeta2 = sums + 3 * channels;
  o.operations((two ? 10 : 7) * a.x.elements());
  return [=](Stream s) { gradient_join(s, a); };
}
Work make_join(Operands& o) { return join_of(o, Gate::mask, false); }
Work make_join_of_two(Operands& o) { return join_of(o, Gate::mask, true); }
Work make_join_recomputed(Operands& o) { return join_of(o, Gate::recomputed, false); }

Work make_pair_backward(Operands& o) {
  PairBackwardArgs a;
  a.dz = block(o);
  const int64_t channels = a.dz.shape[-1];
  for (PairBackwardArgs::Branch& b : a.branch) {
    const float* const sums = o.table(2 * channels);
    b = {o.read(a.dz.shape), o.table(4 * channels), sums, sums + channels, o.written(a.dz.shape)};
  }
  o.operations(10 * a.dz.elements());
  return [=](Stream s) { batch_norm_pair_backward(s, a); };
}

Work make_branch_end(Operands& o) {
  const Tensor x = o.read(o.pictures(56, 96)), residual = o.read(x.shape), y = o.written(x.shape);
  const BranchScale scale{.gamma = o.table(x.shape[-1])};
  o.operations(2 * x.elements());
  return [=](Stream s) { branch_end(s, x, residual, scale, y); };
}
Work make_branch_end_backward(Operands& o) {
  BranchEndBackwardArgs a;
  a.dy = o.read(o.pictures(56, 96));
  a.x = o.read(a.dy.shape);
  const int64_t channels = a.x.shape[-1];
  a.scale.gamma = o.table(channels);
  a.dx = o.written(a.x.shape);
  a.scratch = o.scratch(branch_end_scratch(rows_of(a.x), channels));
  a.dgamma = o.scratch(2 * channels * 4);
  a.dbias = a.dgamma + channels;
  o.operations(4 * a.x.elements());
  return [=](Stream s) { branch_end_backward(s, a); };
}

const PoolWindow kStem{3, 3, 2, 2, 1};

Work make_bn_pool(Operands& o) {
  const Tensor x = o.read(o.pictures(112, 64)), y = o.written(kStem.pooled(x.shape)),
               index = o.written_as(DType::u8, y.shape);
  const float* coef = o.table(4 * x.shape[-1]);
  return [=](Stream s) { bn_max_pool(s, x, coef, y, index, kStem); };
}
// The index is that of the same picture.
BnMaxPoolBackwardArgs bn_pool_backward(Operands& o) {
  BnMaxPoolBackwardArgs a;
  a.x = o.read(o.pictures(112, 64));
  a.dy = o.read(kStem.pooled(a.x.shape));
  a.index = o.written_as(DType::u8, a.dy.shape);
  const int64_t channels = a.x.shape[-1];
  a.coef = o.table(4 * channels);
  a.window = kStem;
  a.scratch = o.scratch(bn_backward_scratch(rows_of(a.x), static_cast<int>(channels)));
  a.dgamma = o.scratch(2 * channels * 4);
  a.dbeta = a.dgamma + channels;
  const Tensor pooled = o.uncounted(o.dtype(), a.dy.shape);
  o.prepare([=](Stream s) { bn_max_pool(s, a.x, a.coef, pooled, a.index, kStem); });
  return a;
}
Work make_bn_pool_backward_reduce(Operands& o) {
  const BnMaxPoolBackwardArgs a = bn_pool_backward(o);
  return [=](Stream s) { bn_max_pool_backward_reduce(s, a); };
}
Work make_bn_pool_backward_apply(Operands& o) {
  BnMaxPoolBackwardArgs a = bn_pool_backward(o);
  a.dx = o.written(a.x.shape);
  o.prepare([=](Stream s) { bn_max_pool_backward_reduce(s, a); });
  return [=](Stream s) { bn_max_pool_backward_apply(s, a); };
}

}  // namespace

std::vector<KernelRow> block_rows() {
  return {{"block_end relu", make_end},
          {"block_end two branches relu", make_end_of_two},
          {"gradient_join", make_join},
          {"gradient_join two branches", make_join_of_two},
          {"gradient_join recomputed relu", make_join_recomputed},
          {"bn_pair_backward", make_pair_backward},
          {"branch_end", make_branch_end},
          {"branch_end_backward", make_branch_end_backward},
          {"bn_max_pool 3x3 s2", make_bn_pool},
          {"bn_max_pool_backward_reduce 3x3 s2", make_bn_pool_backward_reduce},
          {"bn_max_pool_backward_apply 3x3 s2", make_bn_pool_backward_apply}};
}

}  // namespace convolt::bench
