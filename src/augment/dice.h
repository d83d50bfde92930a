// The numbers drawn for one sample.
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>

#include "augment/policy.h"
#include "core/philox.h"

namespace convolt {

inline double between(uint32_t bits, double low, double high) {
  return low + (high - low) * static_cast<double>(uniform(bits));
}
// Uniform in 0..count-1.
inline int below(uint32_t bits, int count) {
  return static_cast<int>((uint64_t{bits} * static_cast<uint64_t>(std::max(count, 1))) >> 32);
}
// From the standard normal distribution: G. E. P. Box and M. E. Muller, "A note on the generation of random normal
// deviates", 1958. `above_0` is uniform in (0, 1], `turns` in [0, 1).
inline double box_muller(double above_0, double turns) {
  return std::sqrt(-2 * std::log(above_0)) * std::cos(2 * std::numbers::pi * turns);
}
inline double normal(uint32_t length, uint32_t turns) {
  return box_muller(1 - static_cast<double>(uniform(length)), static_cast<double>(uniform(turns)));
}
// Python's round(): halves go to the even neighbour, the default rounding mode.
inline int round_half_even(double value) { return static_cast<int>(std::nearbyint(value)); }

struct Dice {
  uint64_t seed;
  uint32_t epoch;
  uint64_t sample;

  Philox4 roll(Draw draw, int attempt = 0) const {
    const uint32_t index = static_cast<uint32_t>(draw) * kDrawAttempts + static_cast<uint32_t>(attempt);
    return random4(seed, RandomUse::augment, epoch, sample, index);
  }
  bool decide(Draw draw, float probability) const { return uniform(roll(draw).v[0]) < probability; }
  double between(Draw draw, double low, double high) const { return convolt::between(roll(draw).v[0], low, high); }
};

}  // namespace convolt
