// Looks inside a plan and plants faults in it.
#pragma once

#include <string_view>

#include "convolt/error.h"
#include "convolt/plan.h"
#include "graph/plan_impl.h"

namespace convolt {

struct PlanAccess {
  static Program& program(Plan& plan) { return plan.impl_->program; }
  static const CompiledPlan& compiled(const Plan& plan) { return *plan.impl_; }
  static const MemoryPlan& memory(const Plan& plan) { return plan.impl_->memory; }
  static Tensor tensor(const Plan& plan, ValueId id) { return plan.impl_->tensor(id); }
  static std::vector<Launch>& launches(Plan& plan) { return plan.impl_->step_launches; }
  static size_t prepare_ops(const Plan& plan) { return plan.impl_->prepare_launches.size(); }
  // The place in the step of the first op of that name (and layer); throws where there is none.
  static size_t find(Plan& plan, std::string_view op, std::string_view layer = {}) {
    const std::vector<Op>& step = plan.impl_->program.step;
    for (size_t i = 0; i < step.size(); ++i)
      if (step[i].def->name == op && (layer.empty() || step[i].layer == layer)) return i;
    throw Error("the plan has no op '" + std::string(op) + "'");
  }
};

}  // namespace convolt
