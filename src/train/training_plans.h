// The plans of a training: one for each size that its pictures have, with the teacher's beside it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "convolt/trainer.h"

namespace convolt {

class TrainingPlans {
public:
  // Compiles all of them, the largest first, in whose memory the others lie. `compiled` is called after each with what
  // it computes shapes by; the options may then name more recorded kernels for the next. Throws what Plan throws, and
  // UsageError for a network that does not take some size or a teacher that does not fit. Graph, Params, options and
  // optimizer must outlive it.
  TrainingPlans(const Graph& graph, Params& params, const TrainOptions& options, Optimizer& optimizer,
                const std::function<void(const KernelChoices&)>& compiled);

  // From here on the plans of that epoch, which go on where those before have got to.
  void show(int64_t epoch);
  Plan& now() { return now_->student; }
  // What the plan's step reads, with the teacher's step queued before it.
  StepInput input_of_step(StepInput input);

private:
  struct OfSize {
    Plan student;
    std::optional<Plan> teacher;
    OfSize(const Graph& graph, Params& params, const PlanOptions& o) : student(graph, params, o) {}
  };
  void hire_teacher(OfSize& size, const AugmentOptions& pictures);

  const TrainOptions& options_;
  std::vector<std::unique_ptr<OfSize>> sizes_;  // the largest first
  OfSize* now_ = nullptr;
};

}  // namespace convolt
