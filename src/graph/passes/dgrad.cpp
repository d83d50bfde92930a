// The gradient of a ReLU and the sums of a batch norm's gradient into the epilogue of the convolution's gradient that
// arrives there.
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

}  // namespace convolt
