// Gradients of biases and ReLUs in the epilogues of linear layers' gradients. Behind the sweeps: a sum that a sweep
// makes on its way costs nothing there, and is not rounded.
#include "graph/lower.h"
#include "graph/passes/fusion.h"

namespace convolt {
namespace {

LinearDesc& desc_of(Op& op) { return std::get<LinearAttrs>(op.attrs).desc; }
LinearDesc with(LinearDesc desc, ConvEpilogue epilogue) {
  desc.epilogue = epilogue;
  return desc;
}

// A ReLU's gradient and the sum of it, in one op or two.
struct Relu {
  Op *backward = nullptr, *sum = nullptr;
};
Relu relu_behind(const Uses& uses, const Op& dgrad) {
  const auto& readers = uses.readers(dgrad.out[0]);
  if (readers.size() != 1 || readers[0]->in[0] != dgrad.out[0]) return {};
  Op* const op = readers[0];
  const bool summed = op->def == &ops::activation_backward_sum;
  if ((!summed && op->def != &ops::activation_backward) || std::get<ActAttrs>(op->attrs).act.kind != Activation::relu)
    return {};
  if (summed) return {op, op};
  for (Op* reader : uses.readers(op->out[0]))
    if (reader->def == &ops::channel_sum) return {op, reader};
  return {};
}

// relu(linear + bias) below this linear layer: its mask is stored with its output, and the product that arrives there
// goes back through it. Says why not.
const char* turn_back_relu(Program& p, const Fusions& fusions, const Uses& uses, Op& dgrad) {
  const Relu relu = relu_behind(uses, dgrad);
  if (relu.backward == nullptr) return "not into one relu behind a bias";
  Op* const forward = uses.writer(relu.backward->in[1]);
  if (forward == nullptr || forward->def != &ops::linear_fprop || desc_of(*forward).epilogue != ConvEpilogue::bias_relu)
    return "no linear layer has that relu in its epilogue";
  const LinearDesc masked = with(desc_of(*forward), ConvEpilogue::bias_relu_mask),
                   fused = with(desc_of(dgrad), ConvEpilogue::drelu_bias_gradient);
  if (!fusions.offer(masked) || !fusions.offer(fused)) return "no kernel";
  // Where the bits lie in a mask is its writer's affair, so that who writes it must read it.
  if (fusions.has(masked) != fusions.has(fused)) return "no kernel of one of the two";
  const ValueId sum = relu.sum->out.back(), mask = p.add({.name = forward->layer + ".mask",
                                                          .dtype = DType::u8,
                                                          .shape = {masked.rows, mask_row_bytes(masked.out)}});
  p[sum].dtype = fused.dtype;
  desc_of(*forward) = masked;
  forward->out.push_back(mask);
  forward->note += " + mask";
  desc_of(dgrad) = fused;
  dgrad.in.push_back(mask);
  dgrad.note = "+ gradients of relu and bias";
  dgrad.out = {relu.backward->out[0], sum};
  *relu.sum = {};
  *relu.backward = {};
  return nullptr;
}

void turn_back_relus(Program& p, const Fusions& fusions) {
  PassReport report(p, "linear", "gradients of relu and bias in the epilogues of linear layers' gradients");
  for (size_t i = 0; i < p.step.size(); ++i) {
    if (p.step[i].def != &ops::linear_dgrad) continue;
    const Uses uses(p);
    if (const char* why = turn_back_relu(p, fusions, uses, p.step[i]); why != nullptr)
      report.refused(why, p.step[i].layer);
    else
      report.applied();
  }
  remove_emptied(p);
}

// The sum of a gradient that the weights' gradient reads too.
void sum_biases(Program& p, const Fusions& fusions) {
  PassReport report(p, "linear", "gradients of biases in the epilogues of weight gradients");
  for (size_t i = 0; i < p.step.size(); ++i) {
    if (p.step[i].def != &ops::channel_sum) continue;
    const Uses uses(p);
    Op& sum = p.step[i];
    Op* wgrad = nullptr;
    for (Op* reader : uses.readers(sum.in[0]))
      if (reader->def == &ops::linear_wgrad && reader->layer == sum.layer) wgrad = reader;
    if (wgrad == nullptr) continue;
    const LinearDesc fused = with(desc_of(*wgrad), ConvEpilogue::bias_gradient);
    if (!fusions.offer(fused)) {
      report.refused("no kernel", sum.layer);
      continue;
    }
    p[sum.out[0]].dtype = fused.dtype;
    desc_of(*wgrad) = fused;
    wgrad->out.push_back(sum.out[0]);
    wgrad->note = "+ gradient of the bias";
    sum = {};
    report.applied();
  }
  remove_emptied(p);
}

}  // namespace

void fuse_linear(Program& p, const Fusions& fusions) {
  turn_back_relus(p, fusions);
  sum_biases(p, fusions);
}

}  // namespace convolt
