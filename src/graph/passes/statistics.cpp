// Batch statistics into the epilogue of the convolution that makes the values.
#include "graph/lower.h"
#include "graph/passes/fusion.h"

namespace convolt {

void fuse_statistics(Program& p, const Fusions& fusions) {
  PassReport report(p, "statistics", "in the epilogues of convolutions");
  for (size_t i = 0; i < p.step.size(); ++i) {
    if (p.step[i].def != &ops::channel_stats) continue;
    const Uses uses(p);
    Op& stats = p.step[i];
    Op* const conv = uses.writer(stats.in[0]);
    Op* const finalize = uses.sole_reader(stats.out[0], ops::bn_finalize);
    if (conv == nullptr || conv->def != &ops::conv_fprop || finalize == nullptr) {
      report.refused("not behind a convolution", stats.layer);
      continue;
    }
    auto& desc = std::get<ConvAttrs>(conv->attrs).desc;
    ConvDesc fused = desc;
    fused.epilogue = ConvEpilogue::stats;
    if (desc.epilogue != ConvEpilogue::none || !fusions.offer(fused)) {
      report.refused(desc.epilogue != ConvEpilogue::none ? "the convolution has a bias" : "no kernel", conv->layer);
      continue;
    }
    desc = fused;
    const ValueId sums = p.add({.name = conv->layer + ".sums", .dtype = DType::f32, .shape = {2, desc.geometry.out_c}});
    conv->out.push_back(sums);
    conv->note += " + statistics";
    finalize->in[0] = sums;
    std::get<BnAttrs>(finalize->attrs).raw_sums = true;
    stats = {};
    report.applied();
  }
  remove_emptied(p);
}

}  // namespace convolt
