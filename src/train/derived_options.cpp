#include "train/derived_options.h"

namespace convolt {

PlanOptions training_plan(const TrainOptions& o, Optimizer& optimizer) {
  PlanOptions p;
  p.batch = o.batch;
  p.dtype = o.dtype;
  p.tf32 = o.tf32;
  p.training = true;
  p.height = o.augment.height;
  p.width = o.augment.width;
  p.loss = o.loss;
  p.optimizer = &optimizer;
  p.accumulate = o.accumulate;
  p.augment = o.augment;
  return p;
}

PlanOptions teacher_plan(const TrainOptions& o) {
  PlanOptions p;
  p.batch = o.batch;
  p.dtype = o.dtype;
  p.tf32 = o.tf32;
  p.height = o.augment.height;
  p.width = o.augment.width;
  p.augment = o.augment;
  p.expose_logits = true;
  return p;
}

LoaderOptions training_loader(const TrainOptions& o, int64_t first_step) {
  LoaderOptions l;
  l.batch = o.batch;
  l.threads = o.workers;
  l.training = true;
  l.bad_samples = o.bad_samples;
  l.seed = o.seed;
  l.max_side = o.max_side;
  l.augment = o.augment;
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
  e.max_side = o.max_side;
  e.bad_samples = o.bad_samples;
  e.preprocessing = o.preprocessing;
  return e;
}

}  // namespace convolt
