// What the CPU executors read and write. The kernels that this program links are compiled with the calls that
// ThreadSanitizer makes of every access to memory, and recorder.cpp answers those calls in its place.
#pragma once

#include <vector>

#include "convolt/tensor.h"

namespace convolt::test {

struct Traffic {
  int64_t bytes = 0;  // different ones read plus different ones written, summed over the launches
  int64_t launches = 0;
};

// Whose accesses count, in place of those before; tensors may overlap and be null. Not while kernels run.
void watch(const std::vector<Tensor>& tensors);
// The traffic since the last call. All kernels run on the calling thread.
Traffic take_traffic();

}  // namespace convolt::test
