// Batch statistics into the epilogue of the convolution that makes the values; else sums and coefficients in one sweep.
#include "graph/lower.h"
#include "graph/passes/fusion.h"

namespace convolt {
namespace {

// Why not, empty if it can be done.
std::string obstacle(const Op* conv, const Op* finalize, const Fusions& fusions) {
  if (conv == nullptr || conv->def != &ops::conv_fprop || finalize == nullptr) return "not behind a convolution";
  ConvDesc desc = std::get<ConvAttrs>(conv->attrs).desc;
  if (desc.epilogue != ConvEpilogue::none) return "the convolution has a bias";
  desc.epilogue = ConvEpilogue::stats;
  if (!fusions.offer(desc)) return "no kernel";
  // The sums of ResNet-50's stem took 1.0 ms in cuDNN's epilogue on an H200, longer than twice its traffic would.
  if (desc.geometry.in_c < kFewChannels && fusions.pays && !fusions.pays(desc)) return "quicker apart";
  return "";
}

}  // namespace

void fuse_statistics(Program& p, const Fusions& fusions) {
  PassReport report(p, "statistics", "in the epilogues of convolutions");
  for (size_t i = 0; i < p.step.size(); ++i) {
    if (p.step[i].def != &ops::channel_stats) continue;
    const Uses uses(p);
    Op& stats = p.step[i];
    Op* const conv = uses.writer(stats.in[0]);
    Op* const finalize = uses.sole_reader(stats.out[0], ops::bn_finalize);
    if (const std::string why = obstacle(conv, finalize, fusions); !why.empty()) {
      report.refused(why, stats.layer);
      if (finalize == nullptr) continue;
      finalize->def = &ops::bn_statistics;
      finalize->in[0] = stats.in[0];
      stats = {};
      continue;
    }
    auto& desc = std::get<ConvAttrs>(conv->attrs).desc;
    desc.epilogue = ConvEpilogue::stats;
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
