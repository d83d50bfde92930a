// Randomness is a pure function of (seed, epoch, sample, operation): Philox4x32-10, a counter-based generator.
// J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Plain constexpr functions, so that hosts
// and kernels (nvcc --expt-relaxed-constexpr) share one definition. The numbers are a file format: they never change.
#pragma once

#include <cstdint>

namespace convolt {

struct Philox4 {
  uint32_t v[4];
};

constexpr Philox4 philox(uint64_t key, uint64_t counter_low, uint64_t counter_high) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  Philox4 c{{static_cast<uint32_t>(counter_low), static_cast<uint32_t>(counter_low >> 32),
             static_cast<uint32_t>(counter_high), static_cast<uint32_t>(counter_high >> 32)}};
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53U} * c.v[0], b = uint64_t{0xCD9E8D57U} * c.v[2];
    c = Philox4{{static_cast<uint32_t>(b >> 32) ^ c.v[1] ^ k0, static_cast<uint32_t>(b),
                 static_cast<uint32_t>(a >> 32) ^ c.v[3] ^ k1, static_cast<uint32_t>(a)}};
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  return c;
}

// Uniform in [0, 1), 24 bits.
constexpr float uniform(uint32_t bits) { return static_cast<float>(bits >> 8) * 0x1p-24F; }

// What the numbers are for; part of the counter, so that two uses never share bits. Append only.
enum class RandomUse : uint32_t {
  shuffle = 1,
  replacement = 2,
  augment = 3,
  erase_noise = 4,
  initialise = 5,
  dropout = 6,
  synth = 7,
  part = 8,  // of a data set
  balance = 9,
  weighted = 10,
  mixing = 11
};

// Four numbers for (seed; use, epoch, sample, index).
constexpr Philox4 random4(uint64_t seed, RandomUse use, uint32_t epoch, uint64_t sample, uint32_t index) {
  return philox(seed, (uint64_t{epoch} << 32) | index, (uint64_t{static_cast<uint32_t>(use)} << 56) ^ sample);
}

}  // namespace convolt
