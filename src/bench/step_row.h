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
  Sampling sampling;
};

// "step": milliseconds of one of `steps` in a row. "host": what the submission of a step takes on the calling thread.
// Bytes and FLOP are the plan's own figures, memory that of plan, parameters and optimizer.
Row time_step(Context& context, const ModelInfo& model, const StepOptions& options);

}  // namespace convolt::bench
