// The time of a training step: forward, backward and update of a batch that already lies on the device.
#pragma once

#include "bench/record.h"
#include "convolt/convolt.h"

namespace convolt::bench {

struct StepOptions {
  int batch = 128, size = 0;  // size: side of the pictures, 0 for the model's
  DType dtype = DType::f32;
  bool tf32 = false;
  int steps = 5;  // in a row for one timing
  KernelOptions kernels;
  std::optional<int64_t> memory_budget;  // as PlanOptions'
  OptimizerOptions optimizer{.weight_decay = 1e-4F};
};

// Each of the options' plans, timed in turn. "step": milliseconds of one of `steps` in a row. "host": what the
// submission of a step takes on the calling thread. Bytes and FLOP are the plan's own figures, memory that of plan,
// parameters and optimizer. Those of all but the last are whole, with nothing recomputed, or left out where there is no
// memory for that beside it.
std::vector<Row> time_steps(Context& context, const ModelInfo& model, const std::vector<StepOptions>& options,
                            const Sampling& sampling);

}  // namespace convolt::bench
