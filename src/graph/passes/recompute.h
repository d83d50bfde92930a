// Less memory for more time: forward ops that run again before the backward ops that read what they make, which then
// need not be kept in between.
#pragma once

#include <cstdint>

#include "conv/device_rates.h"
#include "graph/memory_plan.h"

namespace convolt {

struct RecomputeOptions {
  int64_t limit = 0;  // bytes of the slab
  bool in_place = true;
  DeviceRates rates;  // which ops cost the least time: only their ratios count
  DType dtype = DType::f32;
  bool tf32 = false;
};

// What recomputing came to. The slab is above the limit where not even all that helps brings it there.
struct Recomputed {
  Program program;
  MemoryPlan memory;
  int ops = 0;
  double seconds = 0;  // by the rates
};

// Of the ops that make what is alive where the slab is fullest, that with the least time for each byte it frees comes
// first, until the slab keeps to the limit or nothing helps any more; then whatever is not needed after all is dropped,
// the slowest first. Ops without effects, and the same bits as without.
Recomputed recompute(const Program& program, const MemoryPlan& memory, const RecomputeOptions& options);

}  // namespace convolt
