#include <algorithm>

#include "graph/op.h"

namespace convolt {

std::vector<ValueId> emit(Program& program, std::vector<Op>& list, Op op, const std::string& value_name) {
  if (op.out.empty())
    for (const TensorType& t : op.def->infer(op, program))
      op.out.push_back(program.add({.name = value_name, .dtype = t.dtype, .shape = t.shape}));
  list.push_back(std::move(op));
  return list.back().out;
}

GradientBuilder::GradientBuilder(Program& program, std::vector<Op>& list)
    : program_(program),
      list_(list),
      gradients_(program.values.size(), kNoValue),
      wanted_(program.values.size(), false) {}

std::vector<ValueId> GradientBuilder::emit(Op op, const std::string& value_name) {
  const std::string name = op.layer + "." + value_name;
  auto out = convolt::emit(program_, list_, std::move(op), name);
  gradients_.resize(program_.values.size(), kNoValue);
  wanted_.resize(program_.values.size(), false);
  return out;
}

void GradientBuilder::flow(ValueId value, ValueId gradient) {
  gradients_.resize(program_.values.size(), kNoValue);
  wanted_.resize(program_.values.size(), false);
  ValueId& known = gradients_[static_cast<size_t>(value)];
  if (known == kNoValue) {
    known = gradient;
    return;
  }
  const ValueId sum = emit({.def = &ops::add, .in = {known, gradient}, .layer = program_[value].name}, "dsum")[0];
  gradients_[static_cast<size_t>(value)] = sum;
}

void GradientBuilder::flow_to_param(ValueId param_value, ValueId gradient) {
  if (!wanted(param_value)) return;
  const int param = program_[param_value].param;
  if (program_.gradients.size() <= static_cast<size_t>(param))
    program_.gradients.resize(static_cast<size_t>(param) + 1, kNoValue);
  program_.gradients[static_cast<size_t>(param)] = gradient;
  program_[gradient].persistent = true;  // all gradients lie side by side, alive to the end of the step
  program_[gradient].param = param;
}

// A gradient is wanted of whatever depends on a parameter that is trained.
void GradientBuilder::mark_wanted(const std::vector<Op>& forward) {
  for (size_t i = 0; i < program_.values.size(); ++i) {
    const ValueInfo& v = program_.values[i];
    wanted_[i] = (v.home == Home::param || v.home == Home::copy) && program_.trained[static_cast<size_t>(v.param)];
  }
  for (const Op& op : forward) {
    const bool any = std::any_of(op.in.begin(), op.in.end(),
                                 [&](ValueId v) { return v != kNoValue && wanted_[static_cast<size_t>(v)]; });
    if (any)
      for (const ValueId v : op.out)
        if (v != kNoValue) wanted_[static_cast<size_t>(v)] = true;
  }
}

void GradientBuilder::run(const std::vector<Op>& forward, ValueId root, ValueId root_gradient) {
  mark_wanted(forward);
  flow(root, root_gradient);
  for (auto op = forward.rbegin(); op != forward.rend(); ++op) {
    const bool any = std::any_of(op->out.begin(), op->out.end(),
                                 [&](ValueId v) { return v != kNoValue && gradient_of(v) != kNoValue && wanted(v); });
    if (any && op->def->gradient != nullptr) op->def->gradient(*op, *this);
  }
}

}  // namespace convolt
