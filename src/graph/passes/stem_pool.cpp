// Batch norm, ReLU and max pool in one sweep: the normalised picture and its gradient are never stored.
#include "graph/lower.h"
#include "graph/passes/fusion.h"

namespace convolt {

void fuse_bn_pool(Program& p) {
  PassReport report(p, "pool", "batch norms and ReLUs into max pools");
  for (size_t i = 0; i < p.step.size(); ++i) {
    if (p.step[i].def != &ops::max_pool) continue;
    const Uses uses(p);
    Op& pool = p.step[i];
    Op* const bn = uses.writer(pool.in[0]);
    if (bn == nullptr || bn->def != &ops::bn_apply) continue;
    const bool alone = uses.sole_reader(pool.in[0], ops::max_pool) != nullptr;
    if (!alone || bn->in[2] != kNoValue || std::get<BnAttrs>(bn->attrs).act.kind != Activation::relu) {
      report.refused(alone ? "not through relu alone" : "the normalised picture is read elsewhere", bn->layer);
      continue;
    }
    // Where the gradient comes back: nowhere, or through these three.
    const auto& of_index = uses.readers(pool.out[1]);
    Op* const gather = of_index.empty() ? nullptr : of_index[0];
    const BnBackward back = gather != nullptr ? bn_backward_of(uses, gather->out[0]) : BnBackward{};
    if (gather == nullptr || back.reduce == nullptr || std::get<BnAttrs>(bn->attrs).frozen) {
      report.refused("its gradient goes elsewhere", bn->layer);
      continue;
    }
    const ValueId x = bn->in[0], coef = bn->in[1];
    pool.def = &ops::bn_max_pool;
    pool.in = {x, coef};
    pool.note = "of relu(batch norm)";
    back.reduce->def = &ops::bn_max_pool_backward_reduce;
    ValueId dy = gather->in[0], dy2 = kNoValue;
    Op* const sum = uses.writer(dy);
    if (sum != nullptr && sum->def == &ops::add && sum->in[0] != sum->in[1] && uses.readers(dy).size() == 1) {
      dy = sum->in[0];
      dy2 = sum->in[1];
      back.reduce->note = "joins two gradients";
      *sum = {};
    }
    back.reduce->in = {dy, gather->in[1], x, coef, kNoValue, kNoValue, dy2};
    back.apply->def = &ops::bn_max_pool_backward_apply;
    back.apply->in = {dy, gather->in[1], x, coef, back.reduce->out[0], back.reduce->out[1], dy2};
    back.reduce->attrs = back.apply->attrs = pool.attrs;
    *gather = {};
    *bn = {};
    report.applied();
  }
  remove_emptied(p);
}

}  // namespace convolt
