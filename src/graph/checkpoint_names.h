// The tensors of a checkpoint that are no parameters of the network, by their names.
#pragma once

#include <string_view>

namespace convolt {

constexpr std::string_view kAverage = "ema.", kMoments = "optim.";  // before the name of a parameter
constexpr std::string_view kTracked = "num_batches_tracked";        // of a batch norm

// Whether a parameter cannot have that name, since a checkpoint means something else by it.
inline bool is_reserved(std::string_view name) {
  return name == "__metadata__" || name.starts_with(kAverage) || name.starts_with(kMoments) || name.ends_with(kTracked);
}

}  // namespace convolt
