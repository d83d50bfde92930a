#include "train/training_plans.h"

#include <fmt/format.h>

#include <algorithm>

#include "augment/policy.h"
#include "train/derived_options.h"

namespace convolt {
namespace {

void check_size(const Graph& graph, const AugmentOptions& pictures) {
  try {
    graph.shapes_for(pictures.height, pictures.width);
  } catch (const ShapeError& e) {
    throw UsageError(
        fmt::format("pictures that grow (--min-res) need a network that takes pictures of any size, and "
                    "this one does not take {} x {}: {}",
                    pictures.width, pictures.height, e.what()));
  }
}

}  // namespace

TrainingPlans::TrainingPlans(const Graph& graph, Params& params, const TrainOptions& options, Optimizer& optimizer,
                             const std::function<void(const KernelChoices&)>& compiled)
    : options_(options) {
  check(options.sizes, options.augment);
  const std::vector<AugmentOptions> sizes = sizes_of(options.augment, options.sizes);
  if (sizes.size() > 1) std::ranges::for_each(sizes, [&](const AugmentOptions& o) { check_size(graph, o); });
  for (const AugmentOptions& pictures : sizes) {
    PlanOptions o = training_plan(options, pictures, optimizer);
    if (!sizes_.empty()) o.in_slab_of = &sizes_.front()->student;
    sizes_.push_back(std::make_unique<OfSize>(graph, params, o));
    compiled(sizes_.back()->student.kernels());
    if (options.loss.distill_alpha <= 0) continue;
    hire_teacher(*sizes_.back(), pictures);
    compiled(sizes_.back()->teacher->kernels());
  }
  now_ = sizes_.front().get();
}

void TrainingPlans::hire_teacher(OfSize& size, const AugmentOptions& pictures) {
  if (options_.teacher == nullptr || options_.teacher_params == nullptr)
    throw UsageError("distillation needs a teacher: its graph and its weights");
  PlanOptions o = teacher_plan(options_, pictures);
  if (sizes_.front()->teacher) o.in_slab_of = &*sizes_.front()->teacher;
  Plan& teacher = size.teacher.emplace(*options_.teacher, *options_.teacher_params, o);
  if (teacher.classes() != size.student.classes())
    throw UsageError(fmt::format("the teacher knows {} classes, the student {}; distillation needs the same",
                                 teacher.classes(), size.student.classes()));
}

void TrainingPlans::show(int64_t epoch) {
  const int side = at_epoch(options_.augment, options_.sizes, epoch).width;
  const auto next = std::ranges::find_if(sizes_, [&](const auto& size) { return size->student.width() == side; });
  if (next->get() == now_) return;
  (*next)->student.take_over(now_->student);
  if (now_->teacher) (*next)->teacher->take_over(*now_->teacher);
  now_ = next->get();
}

StepInput TrainingPlans::input_of_step(StepInput input) {
  if (!now_->teacher) return input;
  now_->teacher->run(input);
  input.teacher = now_->teacher->device_logits();
  return input;
}

}  // namespace convolt
