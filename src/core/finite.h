// Numbers that are numbers.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>

namespace convolt {

// No NaN and no infinity.
inline bool all_finite(std::span<const float> values) {
  return std::ranges::all_of(values, [](float x) { return std::isfinite(x); });
}

}  // namespace convolt
