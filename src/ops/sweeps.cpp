// What passes make of ops that sweep through the same memory one after the other: ends of branches, and gradients whose
// sums are wanted.
#include "activation.h"
#include "batch_norm.h"
#include "branch_end.h"
#include "channels.h"
#include "graph/op.h"
#include "norm.h"
#include "ops/shared.h"

namespace convolt {
namespace {

// A gradient as the first operand and sums by channel, by the outputs that there are.
std::vector<TensorType> with_sums(const Op& op, const Program& p, size_t sums) {
  std::vector<TensorType> out = as_first(op, p);
  out.insert(out.end(), sums, {DType::f32, {out[0].shape[-1]}});
  return out;
}
int two(const Op&) { return 2; }

BranchScale scale_of(const Op& op, const Binding& b, size_t gamma) {
  const auto& drop = std::get<DropoutAttrs>(op.attrs);
  return {.gamma = b.in(op, gamma).as<const float>(), .p = drop.p, .layer = drop.layer, .input = b.input};
}

Launch bind_branch_backward(const Op& op, const Binding& b) {
  const BranchEndBackwardArgs args{.dy = b.in(op, 0),
                                   .x = b.in(op, 1),
                                   .scale = scale_of(op, b, 2),
                                   .dx = b.out(op, 0),
                                   .scratch = static_cast<float*>(b.scratch(op)),
                                   .dgamma = b.out(op, 1).as<float>(),
                                   .dbias = b.out(op, 2).as<float>()};
  return [args](Stream s) { branch_end_backward(s, args); };
}

}  // namespace

namespace ops {

// (x, residual, gamma or none) -> y
const OpDef branch_end{.name = "branch_end",
                       .infer = as_first,
                       .bind = [](const Op& op, const Binding& b) -> Launch {
                         return [x = b.in(op, 0), residual = b.in(op, 1), scale = scale_of(op, b, 2),
                                 y = b.out(op, 0)](Stream s) { convolt::branch_end(s, x, residual, scale, y); };
                       },
                       .in_place = {{0, 0}, {1, 0}}};

// (dy, x or none, gamma or none) -> (dx, dgamma or none, dbias or none)
const OpDef branch_end_backward{.name = "branch_end_backward",
                                .infer = [](const Op& op, const Program& p) { return with_sums(op, p, 2); },
                                .bind = bind_branch_backward,
                                .scratch =
                                    [](const Op& op, const Program& p) {
                                      const Shape& dy = p[op.in[0]].shape;
                                      return branch_end_scratch(rows_of(dy), dy[-1]);
                                    },
                                .in_place = {{0, 0}, {1, 0}}};

// (dy, kept) -> (dx, dbias)
const OpDef activation_backward_sum{
    .name = "activation_backward_sum",
    .infer = [](const Op& op, const Program& p) { return with_sums(op, p, 1); },
    .bind = [](const Op& op, const Binding& b) -> Launch {
      return [dy = b.in(op, 0), kept = b.in(op, 1), dx = b.out(op, 0), a = std::get<ActAttrs>(op.attrs).act,
              scratch = static_cast<float*>(b.scratch(op)), dbias = b.out(op, 1).as<float>()](Stream s) {
        convolt::activation_backward_sum(s, dy, kept, dx, a, scratch, dbias);
      };
    },
    .scratch =
        [](const Op& op, const Program& p) {
          const Shape& dy = p[op.in[0]].shape;
          return scale_channels_scratch(rows_of(dy), dy[-1]);
        },
    .in_place = {{0, 0}, {1, 0}}};

// (dy, x, stats, gamma) -> (dx, dgamma, dbeta, dbias or none)
const OpDef layer_norm_backward{
    .name = "layer_norm_backward",
    .infer = [](const Op& op, const Program& p) { return with_sums(op, p, 3); },
    .bind = [](const Op& op, const Binding& b) -> Launch {
      const LayerNormBackwardArgs args{.dy = b.in(op, 0),
                                       .x = b.in(op, 1),
                                       .stats = b.in(op, 2).as<const float>(),
                                       .gamma = b.in(op, 3).as<const float>(),
                                       .dx = b.out(op, 0),
                                       .scratch = static_cast<float*>(b.scratch(op)),
                                       .dgamma = b.out(op, 1).as<float>(),
                                       .dbeta = b.out(op, 2).as<float>(),
                                       .dsum = b.out(op, 3).as<float>()};
      return [args](Stream s) { convolt::layer_norm_backward(s, args); };
    },
    .scratch = [](const Op& op, const Program& p) { return layer_norm_backward_scratch(p[op.in[0]].shape); },
    .launches = two,
    .in_place = {{0, 0}, {1, 0}}};

}  // namespace ops
}  // namespace convolt
