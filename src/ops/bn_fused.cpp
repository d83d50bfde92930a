// What passes make of batch norms and their neighbours: the ends of residual blocks, and a stem's max pool.
#include "batch_norm.h"
#include "block_end.h"
#include "bn_pool.h"
#include "graph/op.h"
#include "ops/shared.h"

namespace convolt {
namespace {

TensorType type_of(const ValueInfo& v) { return {v.dtype, v.shape}; }
TensorType per_channel(const Shape& s) { return {DType::f32, {s[-1]}}; }

int64_t partial_sums(const Shape& x) { return bn_backward_scratch(rows_of(x), static_cast<int>(x[-1])); }

// (dy, dy2 or none, x, coef, gate or none, x2 or none, coef2) -> (dz, dgamma, dbeta [, dgamma2, dbeta2])
std::vector<TensorType> infer_join(const Op& op, const Program& p) {
  const ValueInfo& x = p[op.in[2]];
  std::vector<TensorType> out{type_of(x), per_channel(x.shape), per_channel(x.shape)};
  if (op.in[5] != kNoValue) out.insert(out.end(), 2, per_channel(x.shape));
  return out;
}
Launch bind_join(const Op& op, const Binding& b) {
  const GradientJoinArgs args{.dy = b.in(op, 0),
                              .dy2 = b.in(op, 1),
                              .spread = bn(op).spread,
                              .x = b.in(op, 2),
                              .coef = b.in(op, 3).as<const float>(),
                              .gate = bn(op).gate,
                              .gate_data = b.in(op, 4).data,
                              .x2 = b.in(op, 5),
                              .coef2 = b.in(op, 6).as<const float>(),
                              .dz = b.out(op, 0),
                              .scratch = static_cast<float*>(b.scratch(op)),
                              .dgamma = b.out(op, 1).as<float>(),
                              .dbeta = b.out(op, 2).as<float>(),
                              .dgamma2 = b.out(op, 3).as<float>(),
                              .dbeta2 = b.out(op, 4).as<float>()};
  return [args](Stream s) { gradient_join(s, args); };
}

// (dz, x, coef, dgamma, dbeta, x2, coef2, dgamma2, dbeta2) -> (dx, dx2)
Launch bind_pair(const Op& op, const Binding& b) {
  PairBackwardArgs args{.dz = b.in(op, 0), .branch = {}};
  for (const size_t k : {size_t{0}, size_t{1}})
    args.branch[k] = {.x = b.in(op, 1 + 4 * k),
                      .coef = b.in(op, 2 + 4 * k).as<const float>(),
                      .dgamma = b.in(op, 3 + 4 * k).as<const float>(),
                      .dbeta = b.in(op, 4 + 4 * k).as<const float>(),
                      .dx = b.out(op, k)};
  return [args](Stream s) { batch_norm_pair_backward(s, args); };
}

// (dy, index, x, coef [, dgamma, dbeta])
// Inputs (dy, index, x, coef, dgamma, dbeta, dy2); the last three kNoValue where they are not wanted.
BnMaxPoolBackwardArgs pool_args(const Op& op, const Binding& b) {
  return {.dy = b.in(op, 0),
          .dy2 = b.in(op, 6),
          .index = b.in(op, 1),
          .x = b.in(op, 2),
          .coef = b.in(op, 3).as<const float>(),
          .window = window(op),
          .scratch = static_cast<float*>(b.scratch(op))};
}

}  // namespace

namespace ops {

const OpDef bn_backward_join{.name = "bn_backward_join",
                             .infer = infer_join,
                             .bind = bind_join,
                             .scratch =
                                 [](const Op& op, const Program& p) {
                                   const Shape& x = p[op.in[2]].shape;
                                   return gradient_join_scratch(rows_of(x), static_cast<int>(x[-1]),
                                                                op.in[5] != kNoValue);
                                 },
                             .in_place = {{0, 0}, {1, 0}}};

const OpDef bn_backward_pair{.name = "bn_backward_pair",
                             .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
                               return {type_of(p[op.in[1]]), type_of(p[op.in[5]])};
                             },
                             .bind = bind_pair,
                             .in_place = {{0, 0}}};

// (x, coef) -> (y, index)
const OpDef bn_max_pool{.name = "bn_max_pool",
                        .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
                          const ValueInfo& x = p[op.in[0]];
                          const Shape y = window(op).pooled(x.shape);
                          return {{x.dtype, y}, {DType::u8, y}};
                        },
                        .bind = [](const Op& op, const Binding& b) -> Launch {
                          return [x = b.in(op, 0), coef = b.in(op, 1).as<const float>(), y = b.out(op, 0),
                                  index = b.out(op, 1),
                                  w = window(op)](Stream s) { convolt::bn_max_pool(s, x, coef, y, index, w); };
                        }};

const OpDef bn_max_pool_backward_reduce{
    .name = "bn_max_pool_backward_reduce",
    .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
      return {per_channel(p[op.in[2]].shape), per_channel(p[op.in[2]].shape)};
    },
    .bind = [](const Op& op, const Binding& b) -> Launch {
      BnMaxPoolBackwardArgs args = pool_args(op, b);
      args.dgamma = b.out(op, 0).as<float>();
      args.dbeta = b.out(op, 1).as<float>();
      return [args](Stream s) { convolt::bn_max_pool_backward_reduce(s, args); };
    },
    .scratch = [](const Op& op, const Program& p) { return partial_sums(p[op.in[2]].shape); }};

const OpDef bn_max_pool_backward_apply{
    .name = "bn_max_pool_backward_apply",
    .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> { return {type_of(p[op.in[2]])}; },
    .bind = [](const Op& op, const Binding& b) -> Launch {
      BnMaxPoolBackwardArgs args = pool_args(op, b);
      args.dgamma = b.in(op, 4).as<float>();
      args.dbeta = b.in(op, 5).as<float>();
      args.dx = b.out(op, 0);
      return [args](Stream s) { convolt::bn_max_pool_backward_apply(s, args); };
    },
    // x is read only where dx is written.
    .in_place = {{2, 0}}};

}  // namespace ops
}  // namespace convolt
