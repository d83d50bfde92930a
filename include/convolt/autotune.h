// How convolutions and linear layers get their kernels where a library offers several.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace convolt {

// off: the first that the library names. quick, full: when a shape is first met on a device, its kernels are timed
// there (the median of 3 or of 10 runs) and held against plain sums, and the quickest right one is taken. What was
// measured is kept in $XDG_CACHE_HOME/convolt/ (~/.cache/convolt/), so that the next start times nothing.
enum class Autotune : uint8_t { off, quick, full };
// "off", "quick", "full".
std::string_view name_of(Autotune mode);

// By what each shape of a plan is computed: its description ("fprop n128 32x32x16 -> 32, 3x3 s1 p1, f32, weights packed
// each step") and the name of the kernel.
using KernelChoices = std::map<std::string, std::string>;

// How a plan chooses and launches its kernels.
struct KernelOptions {
  // None given: off on the CPU, where the order of the candidates is measured already and the bits of a training would
  // depend on timings; quick on CUDA.
  std::optional<Autotune> autotune;
  std::optional<int64_t> workspace_limit;  // bytes that a kernel may use beside its operands; none given: any number
  bool deterministic = false;              // only kernels that give the same bits each time
  // What an earlier plan was computed by: taken again, whatever `autotune` says, where it is still offered.
  KernelChoices recorded;
  // Steps from the second on are launched as one CUDA graph; off, kernel by kernel, to look for what goes wrong.
  bool cuda_graph = true;
  // Told of kernels that are wrong or no longer there and of a cache that cannot be used; may be empty.
  std::function<void(const std::string&)> warning;
};

}  // namespace convolt
