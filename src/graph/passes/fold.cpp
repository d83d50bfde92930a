// Inference batch norm into the convolution before it: w * scale, bias * scale + shift, computed in `prepare`.
#include <algorithm>

#include "graph/lower.h"
#include "graph/op.h"

namespace convolt {
namespace {

int readers(const std::vector<Op>& ops, ValueId v) {
  int n = 0;
  for (const Op& op : ops) n += static_cast<int>(std::count(op.in.begin(), op.in.end(), v));
  return n;
}

Op* writer(std::vector<Op>& ops, ValueId v) {
  for (Op& op : ops)
    if (std::find(op.out.begin(), op.out.end(), v) != op.out.end()) return &op;
  return nullptr;
}

// The f32 master of a weight operand, which may be the 16-bit copy.
ValueId master_of(Program& p, ValueId w) {
  if (p[w].home != Home::copy) return w;
  for (size_t i = 0; i < p.values.size(); ++i)
    if (p.values[i].home == Home::param && p.values[i].param == p[w].param) return static_cast<ValueId>(i);
  return kNoValue;
}

}  // namespace

void fold_batch_norm(Program& p) {
  int folded = 0;
  for (size_t i = 0; i < p.step.size(); ++i) {
    Op bn = p.step[i];
    if (bn.def != &ops::bn_apply || bn.in[2] != kNoValue || std::get<BnAttrs>(bn.attrs).act.kind != Activation::none)
      continue;
    Op* conv = writer(p.step, bn.in[0]);
    ValueId bias = kNoValue;
    if (conv != nullptr && conv->def == &ops::add_bias && readers(p.step, bn.in[0]) == 1) {
      bias = conv->in[1];
      conv = writer(p.step, conv->in[0]);
    }
    const Op* coef = writer(p.prepare, bn.in[1]);
    if (conv == nullptr || conv->def != &ops::conv_fprop || coef == nullptr || readers(p.step, bn.in[0]) != 1 ||
        readers(p.step, conv->out[0]) != 1)
      continue;
    const ValueId w = master_of(p, conv->in[1]);
    const auto out =
        emit(p, p.prepare, {.def = &ops::bn_fold, .in = {w, bias, bn.in[1]}, .attrs = {}, .layer = bn.layer},
             conv->layer + ".folded");
    for (const ValueId v : out) p[v].persistent = true;
    ValueId low = out[0];
    const DType dtype = std::get<ConvAttrs>(conv->attrs).desc.dtype;
    if (dtype != DType::f32) {
      low = p.add({.name = conv->layer + ".folded", .dtype = dtype, .shape = p[w].shape, .persistent = true});
      p.prepare.push_back({.def = &ops::cast_weights, .in = {out[0]}, .out = {low}, .attrs = {}, .layer = conv->layer});
    }
    conv->in[1] = low;
    conv->note = "batch norm folded in";
    // The batch norm becomes the addition of the folded bias; fuse() may push that into the convolution.
    p.step[i] = {.def = &ops::add_bias, .in = {conv->out[0], out[1]}, .out = bn.out, .attrs = {}, .layer = bn.layer};
    ++folded;
  }
  if (folded > 0) p.pass_log.push_back("fold: " + std::to_string(folded) + " batch norms into convolutions");
}

}  // namespace convolt
