// A pixel under a separable filter on the CPU, in AVX2: eight weights of an axis at once, four pixels of three channels
// at once. The kernels hold the same sums as plain loops, for the GPU and for the edges of a picture.
#pragma once

#include "exec/types.h"

#if !defined(__CUDA_ARCH__)
#if defined(__CUDACC__)
#pragma nv_diagnostic push
#pragma nv_diag_suppress 1675  // GCC's pragmas, which nvcc hands on without knowing them
#endif
namespace convolt {

constexpr int kFilterTaps = 8;
typedef float Eight __attribute__((vector_size(32)));
typedef float Four __attribute__((vector_size(16)));
typedef int32_t EightInts __attribute__((vector_size(32)));
constexpr Eight kIota{0, 1, 2, 3, 4, 5, 6, 7}, kFirst{1, 0, 0, 0, 0, 0, 0, 0};

HD void put(float* p, Eight v) { _mm256_storeu_ps(p, v); }
HD void put(int32_t* p, EightInts v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(v));
}

// Eight, or four, numbers from p.
HD __m256 eight(const uint8_t* p) { return load8(p); }
HD __m256 eight(const float* p) { return _mm256_loadu_ps(p); }
HD __m128 four(const float* p) { return _mm_loadu_ps(p); }
HD __m128 four(const uint8_t* p) {
  int32_t bytes;
  std::memcpy(&bytes, p, 4);
  return _mm_cvtepi32_ps(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(bytes)));
}

// Number j in all places: from a register, which v[j] would first write to memory.
HD Eight lane(Eight v, int j) { return _mm256_permutevar8x32_ps(v, _mm256_set1_epi32(j)); }

HD float sum_of(Eight v) {
  const __m128 halves = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 pairs = _mm_hadd_ps(halves, halves);
  return _mm_cvtss_f32(_mm_hadd_ps(pairs, pairs));
}

// out[0..32) = (add ? out : 0) + the sum over `rows` rows of weights[k] * p[k * stride + 0..32).
HD void blend_strip(const uint8_t* p, int64_t stride, int rows, const float* weights, bool add, float* out) {
  Eight sum[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) sum[i] = add ? eight(out + 8 * i) : Eight{};
  for (int k = 0; k < rows; ++k, p += stride)
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) sum[i] += weights[k] * eight(p + 8 * i);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) put(out + 8 * i, sum[i]);
}

// Pixels that the functions below touch in a row, for filters of so many columns, 8 at most.
HD int filter_reach(int columns) { return columns <= 4 ? 4 : 8; }

// The sum of four pixels of three channels, `a` and `b` holding their first eight numbers and the rest, times weights
// `first` to `first` + 3; `first` is 0 or 4.
HD __m128 sum_pixels(__m256 a, __m128 b, Eight weights, int first) {
  const __m256 w = first == 0 ? _mm256_permute2f128_ps(weights, weights, 0x00)
                              : _mm256_permute2f128_ps(weights, weights, 0x11);  // in both halves
  a = _mm256_mul_ps(a, _mm256_permutevar_ps(w, _mm256_setr_epi32(0, 0, 0, 1, 1, 1, 2, 2)));
  b = _mm_mul_ps(b, _mm_permute_ps(_mm256_castps256_ps128(w), _MM_SHUFFLE(3, 3, 3, 2)));
  // They begin at numbers 0, 3, 6 and 9.
  const __m128i low = _mm_castps_si128(_mm256_castps256_ps128(a));
  const __m128i high = _mm_castps_si128(_mm256_extractf128_ps(a, 1)), last = _mm_castps_si128(b);
  const __m128 second = _mm_castsi128_ps(_mm_alignr_epi8(high, low, 12));
  const __m128 third = _mm_castsi128_ps(_mm_alignr_epi8(last, high, 8));
  const __m128 fourth = _mm_castsi128_ps(_mm_alignr_epi8(last, last, 4));
  return _mm_add_ps(_mm_add_ps(_mm256_castps256_ps128(a), second), _mm_add_ps(third, fourth));
}

// The sum of across[i] * down[j] * the pixel in column i < filter_reach(columns) and row j < rows, of bytes with S
// channels from p, rows being `stride` bytes apart. Weights after the last one under the filter are 0. Channel c is in
// lane c.
template <int S>
HD __m128 filtered(const uint8_t* p, int64_t stride, Eight across, int columns, Eight down, int rows) {
  if constexpr (S == 1) {
    __m256 sum = _mm256_setzero_ps();
    for (int j = 0; j < rows; ++j, p += stride)
      sum = sum + lane(down, j) * (columns <= 4 ? _mm256_zextps128_ps256(four(p)) : eight(p));
    return _mm_set_ss(sum_of(sum * across));
  } else {
    static_assert(S == 3);
    __m128 total = _mm_setzero_ps();
    for (int i = 0; i < columns; i += 4) {
      const uint8_t* row = p + i * 3;
      __m256 a = _mm256_setzero_ps();
      __m128 b = _mm_setzero_ps();
#pragma GCC unroll 1
      for (int j = 0; j < rows; ++j, row += stride) {
        const Eight weight = lane(down, j);
        a = a + weight * eight(row);
        b = b + _mm256_castps256_ps128(weight) * four(row + 8);
      }
      total = total + sum_pixels(a, b, across, i);
    }
    return total;
  }
}

// The same for one row of weight 1.
template <int S>
HD __m128 filtered_row(const float* p, Eight across, int columns) {
  if constexpr (S == 1) {
    return _mm_set_ss(sum_of((columns <= 4 ? _mm256_zextps128_ps256(four(p)) : eight(p)) * across));
  } else {
    __m128 total = _mm_setzero_ps();
    for (int i = 0; i < columns; i += 4) total = total + sum_pixels(eight(p + i * 3), four(p + i * 3 + 8), across, i);
    return total;
  }
}

}  // namespace convolt
#if defined(__CUDACC__)
#pragma nv_diagnostic pop
#endif
#endif
