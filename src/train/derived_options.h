// What the options of a training, an evaluation or a prediction come to for their parts.
#pragma once

#include "convolt/trainer.h"

namespace convolt {

// A plan that looks at augmented pictures and trains nothing.
PlanOptions inference_plan(const AugmentOptions& pictures, int batch, DType dtype, bool tf32,
                           const KernelOptions& kernels);
// For the pictures of some epochs.
PlanOptions training_plan(const TrainOptions& o, const AugmentOptions& pictures, Optimizer& optimizer);
// The teacher looks at the very pictures of the step: augmentation and mixing are pure functions of what the batch
// brings.
PlanOptions teacher_plan(const TrainOptions& o, const AugmentOptions& pictures);
// first_step: an update, as everywhere in training; the loader counts micro-batches.
LoaderOptions training_loader(const TrainOptions& o, int64_t first_step);
EvalOptions validation_of(const TrainOptions& o);
// The schedule with what is counted in epochs in steps. Throws UsageError where warm-up and cool-down do not fit.
ScheduleOptions schedule_in_steps(const TrainOptions& o, int64_t steps_per_epoch, int64_t total_steps);
// The same of a training of so many epochs, for a group that ends early. Throws likewise.
ScheduleOptions shortened(ScheduleOptions schedule, double epochs, int64_t steps_per_epoch);

}  // namespace convolt
