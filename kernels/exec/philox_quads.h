// Philox4x32-10 (core/philox.h) for eight neighbouring counters at once, on the CPU.
#pragma once

#include "exec/hd.h"

#if !defined(__CUDA_ARCH__)
#include <immintrin.h>

namespace convolt {

// The keys of the ten rounds.
struct PhiloxKeys {
  __m256i k0[10], k1[10];
  HD explicit PhiloxKeys(uint64_t key) {
    auto low = static_cast<uint32_t>(key), high = static_cast<uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round, low += 0x9E3779B9U, high += 0xBB67AE85U) {
      k0[round] = _mm256_set1_epi64x(low);
      k1[round] = _mm256_set1_epi64x(high);
    }
  }
};

// The words of four counters, each in the lower half of 64 bits; what is in the upper halves does not matter.
struct PhiloxQuads {
  __m256i c0, c1, c2, c3;

  HD void round(__m256i k0, __m256i k1) {
    const __m256i a = _mm256_mul_epu32(c0, _mm256_set1_epi64x(0xD2511F53));
    const __m256i b = _mm256_mul_epu32(c2, _mm256_set1_epi64x(0xCD9E8D57));
    c0 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(b, 32), c1), k0);
    c1 = b;
    c2 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(a, 32), c3), k1);
    c3 = a;
  }

  // Counter after counter.
  HD void write(uint32_t* to) const {
    const __m256i first = _mm256_blend_epi32(c0, _mm256_slli_epi64(c1, 32), 0xAA);
    const __m256i second = _mm256_blend_epi32(c2, _mm256_slli_epi64(c3, 32), 0xAA);
    const __m256i even = _mm256_unpacklo_epi64(first, second), odd = _mm256_unpackhi_epi64(first, second);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permute2x128_si256(even, odd, 0x20));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 8), _mm256_permute2x128_si256(even, odd, 0x31));
  }
};

// bits[4 i + j] = philox(key, counter_low + i, counter_high).v[j] for i < 8; the lower half of counter_low + 7 must not
// overflow.
HD void philox_of_eight(const PhiloxKeys& keys, uint64_t counter_low, uint64_t counter_high, uint32_t (&bits)[32]) {
  const auto low = [](uint64_t x) { return static_cast<uint32_t>(x); };
  const auto high = [](uint64_t x) { return static_cast<uint32_t>(x >> 32); };
  const __m256i first = _mm256_add_epi64(_mm256_set_epi64x(3, 2, 1, 0), _mm256_set1_epi64x(low(counter_low)));
  const __m256i c1 = _mm256_set1_epi64x(high(counter_low)), c2 = _mm256_set1_epi64x(low(counter_high));
  const __m256i c3 = _mm256_set1_epi64x(high(counter_high));
  PhiloxQuads a{first, c1, c2, c3}, b{_mm256_add_epi64(first, _mm256_set1_epi64x(4)), c1, c2, c3};
  for (int round = 0; round < 10; ++round) {
    a.round(keys.k0[round], keys.k1[round]);
    b.round(keys.k0[round], keys.k1[round]);
  }
  a.write(bits);
  b.write(bits + 16);
}

}  // namespace convolt
#endif
