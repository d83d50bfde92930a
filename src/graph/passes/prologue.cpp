// Scale, bias and ReLU of a batch norm on load of the convolutions behind it, forward and weight gradient: where all
// its readers can, the normalised tensor is never stored.
#include <algorithm>

#include "graph/lower.h"
#include "graph/passes/fusion.h"

namespace convolt {
namespace {

// Whether a convolution reads x as its picture and nothing else.
bool reads_picture(const Op& op, ValueId x) {
  if (op.def != &ops::conv_fprop && op.def != &ops::conv_wgrad) return false;
  return op.in[0] == x && std::count(op.in.begin(), op.in.end(), x) == 1;
}

ConvDesc with_prologue(const Op& op) {
  ConvDesc desc = std::get<ConvAttrs>(op.attrs).desc;
  desc.prologue = ConvPrologue::scale_bias_relu;
  return desc;
}

// Why not, empty if it can be done.
std::string obstacle(const Program& p, const Uses& uses, const Op& bn, const Fusions& fusions) {
  if (bn.in[2] != kNoValue) return "a residual is added";
  if (std::get<BnAttrs>(bn.attrs).act.kind != Activation::relu) return "its activation is not relu";
  const Op* const finalize = uses.writer(bn.in[1]);
  if (finalize == nullptr || (finalize->def != &ops::bn_finalize && finalize->def != &ops::bn_statistics))
    return "its statistics are constants";
  if (bn.out[0] == p.logits) return "the network's output";
  for (const Op* reader : uses.readers(bn.out[0])) {
    if (!reads_picture(*reader, bn.out[0])) return "read by " + std::string(reader->def->name);
    if (!fusions.offer(with_prologue(*reader))) return "no kernel for " + std::string(reader->def->name);
  }
  return {};
}

}  // namespace

void fuse_prologues(Program& p, const Fusions& fusions) {
  PassReport report(p, "prologue", "batch norms on load of the convolutions behind them");
  for (size_t i = 0; i < p.step.size(); ++i) {
    if (p.step[i].def != &ops::bn_apply) continue;
    const Uses uses(p);
    Op& bn = p.step[i];
    if (const std::string why = obstacle(p, uses, bn, fusions); !why.empty()) {
      report.refused(why, bn.layer);
      continue;
    }
    Op* const finalize = uses.writer(bn.in[1]);
    const ValueInfo x = p[bn.in[0]];  // a copy: values grow below
    const DType type = x.dtype == DType::f16 ? DType::f16 : DType::f32;
    std::get<BnAttrs>(finalize->attrs).low = type;
    const ValueId low = p.add({.name = bn.layer + ".low", .dtype = type, .shape = {2, x.shape[-1]}});
    finalize->out.push_back(low);
    for (Op* reader : uses.readers(bn.out[0])) {
      std::get<ConvAttrs>(reader->attrs).desc = with_prologue(*reader);
      reader->in[0] = bn.in[0];
      reader->in.resize(reader->def == &ops::conv_fprop ? 4 : 3, kNoValue);
      reader->in.back() = low;
      reader->note = "behind relu(batch norm)" + reader->note;
    }
    bn = {};
    report.applied();
  }
  remove_emptied(p);
}

}  // namespace convolt
