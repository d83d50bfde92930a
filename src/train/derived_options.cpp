#include "train/derived_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace convolt {

PlanOptions inference_plan(const AugmentOptions& pictures, int batch, DType dtype, bool tf32,
                           const KernelOptions& kernels) {
  PlanOptions p;
  p.batch = batch;
  p.dtype = dtype;
  p.tf32 = tf32;
  p.height = pictures.height;
  p.width = pictures.width;
  p.augment = pictures;
  p.kernels = kernels;
  return p;
}

PlanOptions training_plan(const TrainOptions& o, const AugmentOptions& pictures, Optimizer& optimizer) {
  PlanOptions p = inference_plan(pictures, o.batch, o.dtype, o.tf32, o.kernels);
  p.training = true;
  p.mixing = mixes(o.mixing);
  p.loss = o.loss;
  p.optimizer = &optimizer;
  p.accumulate = o.accumulate;
  p.memory_budget = o.memory_budget;
  return p;
}

PlanOptions teacher_plan(const TrainOptions& o, const AugmentOptions& pictures) {
  PlanOptions p = inference_plan(pictures, o.batch, o.dtype, o.tf32, o.kernels);
  p.mixing = mixes(o.mixing);
  p.expose_logits = true;
  return p;
}

LoaderOptions training_loader(const TrainOptions& o, int64_t first_step) {
  LoaderOptions l;
  l.batch = o.batch;
  l.threads = o.workers;
  l.training = true;
  l.sampler = o.sampler;
  l.repeats = o.repeats;
  l.bad_samples = o.bad_samples;
  l.max_bad = o.max_bad;
  l.seed = o.seed;
  l.decode = o.decode;
  l.decoder = o.decoder;
  l.memory = o.loader_memory;
  l.resident = o.resident;
  l.augment = o.augment;
  l.sizes = o.sizes;
  l.mixing = o.mixing;
  l.group = o.accumulate;
  l.first_step = first_step * o.accumulate;
  return l;
}

EvalOptions validation_of(const TrainOptions& o) {
  EvalOptions e;
  e.batch = o.batch;
  e.workers = o.workers;
  e.dtype = o.dtype;
  e.tf32 = o.tf32;
  e.decode = o.decode;
  e.decoder = o.decoder;
  e.loader_memory = o.loader_memory;
  e.resident = o.resident;
  e.bad_samples = o.bad_samples;
  e.views = o.views;
  e.preprocessing = o.preprocessing;
  e.kernels = o.kernels;
  return e;
}

namespace {

void check_parts(const ScheduleOptions& s, const std::string& what) {
  if (s.warmup_steps + s.cooldown_steps > s.total_steps)
    throw UsageError(fmt::format("the warm-up ({} steps) and the cool-down ({}) are longer than {} ({}); shorten them",
                                 s.warmup_steps, s.cooldown_steps, what, s.total_steps));
}

}  // namespace

ScheduleOptions schedule_in_steps(const TrainOptions& o, int64_t steps_per_epoch, int64_t total_steps) {
  const auto steps = [&](double epochs) { return std::llround(epochs * static_cast<double>(steps_per_epoch)); };
  ScheduleOptions s = o.schedule;
  s.total_steps = total_steps;
  s.warmup_steps = steps(o.warmup_epochs);
  s.cooldown_steps = steps(o.cooldown_epochs);
  s.step_size = std::max<int64_t>(1, steps(o.step_epochs));
  s.milestones.clear();
  for (const double epoch : o.milestone_epochs) s.milestones.push_back(steps(epoch));
  check_parts(s, "the training");
  return s;
}

ScheduleOptions shortened(ScheduleOptions schedule, double epochs, int64_t steps_per_epoch) {
  schedule.total_steps = std::max<int64_t>(1, std::llround(epochs * static_cast<double>(steps_per_epoch)));
  check_parts(schedule, fmt::format("that of a group of {} epochs", epochs));
  return schedule;
}

}  // namespace convolt
