// A pixel under a separable filter on the CPU, in AVX2: eight weights of an axis at once, four pixels of three channels
// at once. The kernels hold the same sums as plain loops, for the GPU and for the edges of a picture.
#pragma once

#include "exec/eight.h"

#if !defined(__CUDA_ARCH__)
#if defined(__CUDACC__)
#pragma nv_diagnostic push
#pragma nv_diag_suppress 1675  // GCC's pragmas, which nvcc hands on without knowing them
#endif
namespace convolt {

constexpr int kFilterTaps = 8;
typedef float Four __attribute__((vector_size(16)));
typedef int32_t EightInts __attribute__((vector_size(32)));

HD Eight first_eight() { return _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7); }
HD EightInts ints_of(Eight v) { return reinterpret_cast<EightInts>(_mm256_cvttps_epi32(v.v)); }
HD void put(float* p, Eight v) { _mm256_storeu_ps(p, v.v); }
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

HD bool all(Eight::Mask mask) { return _mm256_movemask_ps(mask.v) == 0xFF; }

// Four rows of numbers 0..3, and of 4..7, as the columns they were.
HD void transpose_halves(Eight (&v)[4]) {
  const __m256 a = _mm256_unpacklo_ps(v[0].v, v[1].v), b = _mm256_unpackhi_ps(v[0].v, v[1].v);
  const __m256 c = _mm256_unpacklo_ps(v[2].v, v[3].v), d = _mm256_unpackhi_ps(v[2].v, v[3].v);
  v[0] = _mm256_shuffle_ps(a, c, 0x44);
  v[1] = _mm256_shuffle_ps(a, c, 0xEE);
  v[2] = _mm256_shuffle_ps(b, d, 0x44);
  v[3] = _mm256_shuffle_ps(b, d, 0xEE);
}
// out[8][N] = the transpose of v[N], N being 4 or 8.
template <int N>
HD void put_transposed(const Eight* v, float* out) {
#pragma GCC unroll 2
  for (int i = 0; i < N; i += 4) {
    Eight pairs[4] = {v[i], v[i + 1], v[i + 2], v[i + 3]};
    transpose_halves(pairs);  // of j and j + 4
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      _mm_storeu_ps(out + j * N + i, _mm256_castps256_ps128(pairs[j].v));
      _mm_storeu_ps(out + (j + 4) * N + i, _mm256_extractf128_ps(pairs[j].v, 1));
    }
  }
}

constexpr int kCacheLine = 64;
// Of what is `offset` bytes from a pointer, be it memory of the program or not.
HD void prefetch(const uint8_t* from, int64_t offset) {
  _mm_prefetch(reinterpret_cast<const char*>(reinterpret_cast<uintptr_t>(from) + static_cast<uintptr_t>(offset)),
               _MM_HINT_T0);
}

HD float sum_of(__m256 v) {
  const __m128 halves = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 pairs = _mm_hadd_ps(halves, halves);
  return _mm_cvtss_f32(_mm_hadd_ps(pairs, pairs));
}

// N numbers from p, 4 or 8, and zeros.
template <int N, class T>
HD __m256 pixels(const T* p) {
  if constexpr (N == 4) return _mm256_zextps128_ps256(four(p));
  return eight(p);
}

// out[0..32) = (add ? out : 0) + the sum over `rows` rows of weights[k] * p[k * stride + 0..32).
HD void blend_strip(const uint8_t* p, int64_t stride, int rows, const float* weights, bool add, float* out) {
  Eight sum[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) sum[i] = add ? eight(out + 8 * i) : _mm256_setzero_ps();
  for (int k = 0; k < rows; ++k, p += stride) {
    const Eight weight = _mm256_broadcast_ss(weights + k);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) sum[i] = fused(weight, eight(p + 8 * i), sum[i]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) put(out + 8 * i, sum[i]);
}

// The sum of four pixels of three channels, `a` and `b` holding their first eight numbers and the rest, times four
// weights.
HD __m128 sum_pixels(__m256 a, __m128 b, const float* weights) {
  const __m256 both = _mm256_broadcast_ps(reinterpret_cast<const __m128*>(weights));
  a = _mm256_mul_ps(a, _mm256_permutevar_ps(both, _mm256_setr_epi32(0, 0, 0, 1, 1, 1, 2, 2)));
  b = _mm_mul_ps(b, _mm_permute_ps(_mm256_castps256_ps128(both), _MM_SHUFFLE(3, 3, 3, 2)));
  // They begin at numbers 0, 3, 6 and 9.
  const __m128i low = _mm_castps_si128(_mm256_castps256_ps128(a));
  const __m128i high = _mm_castps_si128(_mm256_extractf128_ps(a, 1)), last = _mm_castps_si128(b);
  const __m128 second = _mm_castsi128_ps(_mm_alignr_epi8(high, low, 12));
  const __m128 third = _mm_castsi128_ps(_mm_alignr_epi8(last, high, 8));
  const __m128 fourth = _mm_castsi128_ps(_mm_alignr_epi8(last, last, 4));
  return _mm_add_ps(_mm_add_ps(_mm256_castps256_ps128(a), second), _mm_add_ps(third, fourth));
}

// The sum of across[i] * down[j * step] * the pixel in column i < N and row j < rows, of bytes with S channels from p,
// rows being `stride` bytes apart. N is 4 or 8. Channel c is in lane c.
template <int S, int N>
HD __m128 filtered(const uint8_t* p, int64_t stride, const float* across, const float* down, int step, int rows) {
  if constexpr (S == 1) {
    __m256 sum = _mm256_setzero_ps();
    for (int j = 0; j < rows; ++j, p += stride, down += step)
      sum = _mm256_fmadd_ps(_mm256_broadcast_ss(down), pixels<N>(p), sum);
    return _mm_set_ss(sum_of(sum * pixels<N>(across)));
  } else {
    static_assert(S == 3);
    __m256 a[N / 4] = {};
    __m128 b[N / 4] = {};
    for (int j = 0; j < rows; ++j, p += stride, down += step) {
      const __m256 weight = _mm256_broadcast_ss(down);
#pragma GCC unroll 2
      for (int i = 0; i < N / 4; ++i) {
        a[i] = _mm256_fmadd_ps(weight, eight(p + 12 * i), a[i]);
        b[i] = _mm_fmadd_ps(_mm256_castps256_ps128(weight), four(p + 12 * i + 8), b[i]);
      }
    }
    __m128 total = sum_pixels(a[0], b[0], across);
    if constexpr (N == 8) total = total + sum_pixels(a[1], b[1], across + 4);
    return total;
  }
}

// The sum of weights[i][t] * the pixel in column i < N, of numbers with S channels from p. Channel c is in lane c; in
// the others is what follows the pixels, whatever that is.
template <int S, int N, int T>
HD __m128 filtered_row(const float* p, const float (*weights)[T], int t) {
  __m128 sum = _mm_mul_ps(_mm_broadcast_ss(weights[0] + t), four(p));
#pragma GCC unroll 8
  for (int i = 1; i < N; ++i) sum = _mm_fmadd_ps(_mm_broadcast_ss(weights[i] + t), four(p + i * S), sum);
  return sum;
}

}  // namespace convolt
#if defined(__CUDACC__)
#pragma nv_diagnostic pop
#endif
#endif
