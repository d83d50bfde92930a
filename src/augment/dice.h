// The numbers drawn for one sample.
#pragma once

#include <algorithm>
#include <cmath>

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
