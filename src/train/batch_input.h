// From a loader's batch to what a step reads.
#pragma once

#include "convolt/loader.h"
#include "step_state.h"

namespace convolt {

inline StepInput input_of(const Batch& batch) {
  StepInput input;
  input.step = batch.step;
  input.epoch = batch.epoch;
  input.weight_sum = batch.weight_sum;
  input.records = batch.records;
  input.pixels = batch.pixels;
  input.labels = batch.labels;
  input.weights = batch.weights;
  return input;
}

}  // namespace convolt
