// Ops that sweep through the same memory one after the other, in one sweep: the scales, the stochastic depth and the
// addition at the end of a branch, and gradients with the sums that are wanted of them.
#include <algorithm>

#include "graph/lower.h"
#include "graph/passes/fusion.h"

namespace convolt {
namespace {

// The first op of this kind that reads v before all else, null if there is none.
Op* reader(const Uses& uses, ValueId v, const OpDef& def) {
  for (Op* op : uses.readers(v))
    if (op->def == &def && op->in[0] == v) return op;
  return nullptr;
}
ValueId output_of(const Op* op) { return op != nullptr ? op->out[0] : kNoValue; }
void empty(Op* op) {
  if (op != nullptr) *op = {};
}

// The op that writes v for one reader alone, if it is of this kind.
Op* feeder(const Uses& uses, ValueId v, const OpDef& def) {
  Op* const op = uses.writer(v);
  return op != nullptr && op->def == &def && uses.readers(v).size() == 1 ? op : nullptr;
}

// add(stochastic_depth(scale_channels(x, gamma)), residual), of which the first two may be missing, but not both.
bool end_branch(const Uses& uses, Op& sum, size_t side) {
  ValueId x = sum.in[side];
  Op* const drop = feeder(uses, x, ops::stochastic_depth);
  if (drop != nullptr) x = drop->in[0];
  Op* const scale = feeder(uses, x, ops::scale_channels);
  if (scale != nullptr) x = scale->in[0];
  if (drop == nullptr && scale == nullptr) return false;
  sum.def = &ops::branch_end;
  sum.in = {x, sum.in[1 - side], scale != nullptr ? scale->in[1] : kNoValue};
  sum.attrs = drop != nullptr ? std::get<DropoutAttrs>(drop->attrs) : DropoutAttrs{};
  sum.note = "scaled and added";
  empty(drop);
  empty(scale);
  return true;
}

void fuse_ends(Program& p) {
  PassReport report(p, "sweeps", "ends of branches");
  for (size_t i = 0; i < p.step.size(); ++i) {
    if (p.step[i].def != &ops::add || p.step[i].in[0] == p.step[i].in[1]) continue;
    const Uses uses(p);
    if (end_branch(uses, p.step[i], 0) || end_branch(uses, p.step[i], 1)) report.applied();
  }
  remove_emptied(p);
}

// scale_channels_backward and scale_channels of one gradient, behind stochastic depth and before the sum for a bias.
bool turn_back_scale(const Uses& uses, Op& dscale) {
  const ValueId dy = dscale.in[0];
  Op* scale = nullptr;
  for (Op* op : uses.readers(dy))
    if (op->def == &ops::scale_channels && op->layer == dscale.layer) scale = op;
  if (scale == nullptr) return false;
  Op* const writer = uses.writer(dy);
  Op* const drop =
      writer != nullptr && writer->def == &ops::stochastic_depth && uses.readers(dy).size() == 2 ? writer : nullptr;
  Op* const sum = reader(uses, scale->out[0], ops::channel_sum);
  dscale = {.def = &ops::branch_end_backward,
            .in = {drop != nullptr ? drop->in[0] : dy, dscale.in[1], scale->in[1]},
            .out = {scale->out[0], dscale.out[0], output_of(sum)},
            .attrs = drop != nullptr ? std::get<DropoutAttrs>(drop->attrs) : DropoutAttrs{},
            .layer = dscale.layer};
  empty(drop);
  empty(scale);
  empty(sum);
  return true;
}

// Stochastic depth alone gains by the sum for a bias.
bool turn_back_drop(const Uses& uses, Op& drop) {
  Op* const sum = reader(uses, drop.out[0], ops::channel_sum);
  if (sum == nullptr) return false;
  drop.def = &ops::branch_end_backward;
  drop.in = {drop.in[0], kNoValue, kNoValue};
  drop.out = {drop.out[0], kNoValue, sum->out[0]};
  empty(sum);
  return true;
}

void fuse_ends_backward(Program& p) {
  PassReport report(p, "sweeps", "gradients of ends of branches with their sums");
  for (size_t i = 0; i < p.step.size(); ++i) {
    const OpDef* const def = p.step[i].def;
    if (def != &ops::scale_channels_backward && def != &ops::stochastic_depth) continue;
    const Uses uses(p);
    if (def == &ops::stochastic_depth ? turn_back_drop(uses, p.step[i]) : turn_back_scale(uses, p.step[i]))
      report.applied();
  }
  remove_emptied(p);
}

void fuse_activations(Program& p) {
  PassReport report(p, "sweeps", "gradients of activations with the sums for biases");
  for (size_t i = 0; i < p.step.size(); ++i) {
    if (p.step[i].def != &ops::activation_backward) continue;
    const Uses uses(p);
    Op& back = p.step[i];
    Op* const sum = reader(uses, back.out[0], ops::channel_sum);
    if (sum == nullptr) continue;
    back.def = &ops::activation_backward_sum;
    back.out.push_back(sum->out[0]);
    *sum = {};
    report.applied();
  }
  remove_emptied(p);
}

void fuse_layer_norms(Program& p) {
  PassReport report(p, "sweeps", "gradients of layer norms with their sums");
  for (size_t i = 0; i < p.step.size(); ++i) {
    if (p.step[i].def != &ops::norm_backward_params) continue;
    const Uses uses(p);
    Op& params = p.step[i];
    Op* back = nullptr;
    for (Op* op : uses.readers(params.in[2]))
      if (op->def == &ops::norm_backward) back = op;
    if (back == nullptr) continue;
    if (!sweeps_layer_norm(p[params.in[1]].shape, std::get<NormAttrs>(params.attrs).sets)) {
      report.refused("not by pixel, or no kernel for its channels", params.layer);
      continue;
    }
    Op* const sum = reader(uses, back->out[0], ops::channel_sum);
    params.def = &ops::layer_norm_backward;
    params.in = back->in;
    params.out = {back->out[0], params.out[0], params.out[1], output_of(sum)};
    *back = {};
    empty(sum);
    report.applied();
  }
  remove_emptied(p);
}

}  // namespace

void fuse_sweeps(Program& p) {
  fuse_layer_norms(p);
  fuse_activations(p);
  fuse_ends_backward(p);
  fuse_ends(p);
}

}  // namespace convolt
