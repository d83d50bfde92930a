// The gradient of a ReLU and the sums of a batch norm's gradient into the epilogue of the convolution's gradient that
// arrives there; at the end of a block, where another gradient arrives too, their join.
#include "graph/lower.h"
#include "graph/passes/fusion.h"

namespace convolt {

void fuse_dgrad(Program& p, const Fusions& fusions) {
  PassReport report(p, "dgrad", "gradients of ReLU and batch norm in the epilogues of convolutions");
  for (size_t i = 0; i < p.step.size(); ++i) {
    if (p.step[i].def != &ops::conv_dgrad) continue;
    const Uses uses(p);
    Op& dgrad = p.step[i];
    const auto [reduce, apply] = bn_backward_of(uses, dgrad.out[0]);
    if (reduce == nullptr) {
      report.refused("not into one batch norm", dgrad.layer);
      continue;
    }
    const BnAttrs& bn = std::get<BnAttrs>(reduce->attrs);
    if (bn.act.kind != Activation::relu || bn.frozen || reduce->in[3] != kNoValue) {
      report.refused("not through relu alone", dgrad.layer);
      continue;
    }
    ConvDesc& desc = std::get<ConvAttrs>(dgrad.attrs).desc;
    ConvDesc fused = desc;
    fused.epilogue = ConvEpilogue::drelu_bn_reduce;
    if (!fusions.offer(fused)) {
      report.refused("no kernel", dgrad.layer);
      continue;
    }
    desc = fused;
    dgrad.in.insert(dgrad.in.end(), {reduce->in[1], reduce->in[2], bn.gamma, bn.beta});
    dgrad.out.insert(dgrad.out.end(), reduce->out.begin(), reduce->out.end());
    dgrad.note += " + gradient of relu + sums of " + reduce->layer;
    std::get<BnAttrs>(apply->attrs).act = Activation::none;
    *reduce = {};
    report.applied();
  }
  remove_emptied(p);
}

namespace {

// The convolution whose gradient, which nobody else reads, is that operand of a join, with all pixels of x; else null.
Op* arriving(const Uses& uses, const Op& join, size_t operand, const Shape& x) {
  Op* const writer = uses.writer(join.in[operand]);
  const bool alone = writer != nullptr && uses.readers(join.in[operand]).size() == 1;
  if (!alone || writer->def != &ops::conv_dgrad) return nullptr;
  const ConvDesc& desc = std::get<ConvAttrs>(writer->attrs).desc;
  return desc.epilogue == ConvEpilogue::none && desc.geometry.x_shape() == x ? writer : nullptr;
}

// The join's place, since only there the other gradient is known.
void move_into(Op& join, Op& dgrad, size_t operand) {
  const ValueId other = join.in[1 - operand];
  const std::string layer = join.layer;
  dgrad.in.insert(dgrad.in.end(),
                  {join.in[2], join.in[3], kNoValue, kNoValue, other, join.in[4], join.in[5], join.in[6]});
  dgrad.out = join.out;
  dgrad.note += " + join and sums of " + layer;
  join = std::move(dgrad);
  dgrad = {};
}

}  // namespace

void fuse_dgrad_joins(Program& p, const Fusions& fusions) {
  PassReport report(p, "dgrad", "joins of gradients in the epilogues of convolutions");
  for (size_t i = 0; i < p.step.size(); ++i) {
    if (p.step[i].def != &ops::bn_backward_join) continue;
    const Uses uses(p);
    Op& join = p.step[i];
    const BnAttrs& bn = std::get<BnAttrs>(join.attrs);
    if (bn.gate != Gate::mask || bn.spread > 0) {
      report.refused("not gated by bits, or of a mean", join.layer);
      continue;
    }
    bool fused = false;
    for (const size_t operand : {size_t{0}, size_t{1}}) {
      Op* const dgrad = fused ? nullptr : arriving(uses, join, operand, p[join.in[2]].shape);
      if (dgrad == nullptr) continue;
      ConvDesc desc = std::get<ConvAttrs>(dgrad->attrs).desc;
      desc.epilogue = ConvEpilogue::join;
      if (!fusions.offer(desc)) continue;
      std::get<ConvAttrs>(dgrad->attrs).desc = desc;
      move_into(join, *dgrad, operand);
      report.applied();
      fused = true;
    }
    if (!fused) report.refused("no kernel", join.layer);
  }
  remove_emptied(p);
}

}  // namespace convolt
