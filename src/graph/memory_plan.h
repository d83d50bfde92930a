// Lifetimes of a program's slab values and their places in one slab.
#pragma once

#include <vector>

#include "graph/program.h"

namespace convolt {

struct MemoryPlan {
  static constexpr int64_t kAlign = 256;
  // Between tensors under AddressSanitizer, poisoned.
#if defined(__SANITIZE_ADDRESS__)
  static constexpr int64_t kRedZone = 256;
#else
  static constexpr int64_t kRedZone = 0;
#endif

  struct Place {
    int64_t offset = -1;  // -1: not in the slab
    int first = 0,
        last = -1;   // step ops in which the memory is in use; persistent: all of them and the time between steps
    int group = -1;  // values with equal groups share memory, one after the other
  };
  std::vector<Place> places;        // per value
  int64_t bytes = 0;                // of the slab
  std::vector<int64_t> live_bytes;  // per step op
  int in_place = 0;                 // values that took an input's memory
};

// Best fit by size; gradients first and side by side, in the order of the parameters, then other persistent values.
MemoryPlan plan_memory(const Program& program, bool in_place);

// Throws Error when two values overlap in memory while both are in use: the proof of a plan, run by tests and by debug
// builds.
void verify(const Program& program, const MemoryPlan& plan);

}  // namespace convolt
