// Which sample is where in an epoch: pure functions of (seed, epoch, position), so that any batch can be made again.
#pragma once

#include <cstdint>

#include "core/philox.h"

namespace convolt {

// A pseudo-random permutation of 0..size-1 without a table: a Feistel network over the next even number of bits whose
// round function is Philox, walked until it lands inside (J. Black and P. Rogaway, "Ciphers with arbitrary finite
// domains", CT-RSA 2002). The order is part of the format of a training run: it never changes.
class Permutation {
public:
  Permutation(int64_t size, uint64_t seed, uint32_t epoch)
      : size_(static_cast<uint64_t>(size)), seed_(seed), epoch_(epoch) {
    while (half_bits_ < 31 && (uint64_t{1} << (2 * half_bits_)) < size_) ++half_bits_;
  }

  int64_t operator()(int64_t position) const {
    auto value = static_cast<uint64_t>(position);
    do value = encrypt(value);
    while (value >= size_);  // ends: the walk is on a cycle that holds `position`
    return static_cast<int64_t>(value);
  }

private:
  static constexpr uint32_t kRounds = 8;

  uint64_t encrypt(uint64_t value) const {
    const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
    uint64_t left = value >> half_bits_, right = value & mask;
    for (uint32_t round = 0; round < kRounds; ++round) {
      const uint64_t mixed = left ^ (random4(seed_, RandomUse::shuffle, epoch_, right, round).v[0] & mask);
      left = right;
      right = mixed;
    }
    return left << half_bits_ | right;
  }

  uint64_t size_, seed_;
  uint32_t epoch_;
  uint32_t half_bits_ = 1;
};

// The sample that takes the place of one that cannot be read, in 0..size-1.
inline int64_t replacement_sample(uint64_t seed, uint32_t epoch, int64_t position, int attempt, int64_t size) {
  const Philox4 r =
      random4(seed, RandomUse::replacement, epoch, static_cast<uint64_t>(position), static_cast<uint32_t>(attempt));
  return static_cast<int64_t>((uint64_t{r.v[0]} << 32 | r.v[1]) % static_cast<uint64_t>(size));
}

}  // namespace convolt
