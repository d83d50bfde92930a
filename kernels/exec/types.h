// Two-byte floats with our own structs, the same on host and device. Rounding is to nearest, ties to even (IEEE 754).
#pragma once

#include "exec/hd.h"

#if !defined(__CUDA_ARCH__)
#include <immintrin.h>
#endif

namespace convolt {

HD float bits_to_float(uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}
HD uint32_t float_to_bits(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  return bits;
}

struct bf16 {
  uint16_t bits;
  bf16() = default;
  HD explicit bf16(float f) {
#if defined(__CUDA_ARCH__)
    bits = __bfloat16_as_ushort(__float2bfloat16_rn(f));
#else
    const uint32_t u = float_to_bits(f);
    // NaN stays NaN (quiet); otherwise add half of the last kept place, and one more where that place is odd.
    bits = (u & 0x7fffffffU) > 0x7f800000U ? static_cast<uint16_t>((u >> 16) | 0x40U)
                                           : static_cast<uint16_t>((u + 0x7fffU + ((u >> 16) & 1U)) >> 16);
#endif
  }
  HD explicit operator float() const { return bits_to_float(static_cast<uint32_t>(bits) << 16); }
};

struct f16 {
  uint16_t bits;
  f16() = default;
  HD explicit f16(float f) {
#if defined(__CUDA_ARCH__)
    bits = __half_as_ushort(__float2half_rn(f));
#else
    bits = static_cast<uint16_t>(_cvtss_sh(f, _MM_FROUND_TO_NEAREST_INT));
#endif
  }
  HD explicit operator float() const {
#if defined(__CUDA_ARCH__)
    return __half2float(__ushort_as_half(bits));
#else
    return _cvtsh_ss(bits);
#endif
  }
};

// Calls f(T{}) with the element type of a floating dtype.
template <class F>
void dispatch_float(DType t, const char* op, F f) {
  switch (t) {
    case DType::f32:
      return f(float{});
    case DType::bf16:
      return f(bf16{});
    case DType::f16:
      return f(f16{});
    default:
      throw Error(std::string(op) + " takes f32, bf16 or f16, found " + std::string(name_of(t)));
  }
}

// W floats, and loads and stores of W elements of storage type T at a W-aligned place: 16-byte accesses wherever W
// fills them.
template <int W>
struct Floats {
  float v[W];
  HD float& operator[](int i) { return v[i]; }
  HD float operator[](int i) const { return v[i]; }
};

// f(j) for each lane j of a packet. On the GPU the lanes unroll into registers; on the CPU the loop must stay a loop
// until the vectoriser has seen it, since g++ unrolls short loops early and then vectorises only the simplest of them.
// nvcc hands the pragma on to g++, though it does not know it.
#if defined(__CUDACC__)
#pragma nv_diagnostic push
#pragma nv_diag_suppress 1675
#endif
template <int W, class F>
HD void for_lanes(F f) {
#if defined(__CUDA_ARCH__)
#pragma unroll
#else
#pragma GCC unroll 1
#endif
  for (int j = 0; j < W; ++j) f(j);
}
#if defined(__CUDACC__)
#pragma nv_diagnostic pop
#endif

template <class T, int W>
struct alignas(sizeof(T) * W >= 16 ? 16 : sizeof(T) * W) Packet {
  T v[W];
};

#if !defined(__CUDA_ARCH__)
// Eight elements at once on the CPU, in AVX2: left to itself g++ takes these packets apart. The same rounding as above.
HD __m256 load8(const float* p) { return _mm256_loadu_ps(p); }
HD __m256 load8(const f16* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
HD __m256 load8(const bf16* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
HD __m256 load8(const uint8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
// The low 16 bits of eight 32-bit numbers below 2^16.
HD __m128i low_halves(__m256i u) { return _mm_packus_epi32(_mm256_castsi256_si128(u), _mm256_extracti128_si256(u, 1)); }
HD __m128i halves_of(const f16*, __m256 x) { return _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT); }
HD __m128i halves_of(const bf16*, __m256 x) {
  const __m256i u = _mm256_castps_si256(x), high = _mm256_srli_epi32(u, 16);
  const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  return low_halves(_mm256_blendv_epi8(_mm256_srli_epi32(rounded, 16), quiet, is_nan));
}
HD __m128i bytes_of(__m256 x) {
  const __m128i halves = low_halves(_mm256_cvttps_epi32(x));
  return _mm_packus_epi16(halves, halves);
}
template <class T>
HD void store8(T* p, __m256 x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), halves_of(p, x));
}
HD void store8(float* p, __m256 x) { _mm256_storeu_ps(p, x); }
HD void store8(uint8_t* p, __m256 x) { _mm_storel_epi64(reinterpret_cast<__m128i*>(p), bytes_of(x)); }

// Past the caches, to a place that is aligned as the eight elements are large.
template <class T>
HD void stream8(T* p, __m256 x) {
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), halves_of(p, x));
}
HD void stream8(float* p, __m256 x) { _mm256_stream_ps(p, x); }
HD void stream8(uint8_t* p, __m256 x) {
  _mm_stream_si64(reinterpret_cast<long long*>(p), _mm_cvtsi128_si64(bytes_of(x)));
}
#endif

// On the CPU eight zeros are stored at once: after the halves, as g++ stores `= {}`, eight would have to wait to be
// loaded.
template <int W>
HD Floats<W> zeros() {
#if !defined(__CUDA_ARCH__)
  if constexpr (W == 8) {
    Floats<W> r;
    _mm256_storeu_ps(r.v, _mm256_setzero_ps());
    return r;
  }
#endif
  return {};
}

template <int W, class T>
HD Floats<W> load(const T* p) {
  Floats<W> r;
#if !defined(__CUDA_ARCH__)
  if constexpr (W == 8) {
    _mm256_storeu_ps(r.v, load8(p));
    return r;
  }
#endif
  const Packet<T, W> packet = *reinterpret_cast<const Packet<T, W>*>(p);
  for_lanes<W>([&](int j) { r.v[j] = static_cast<float>(packet.v[j]); });
  return r;
}

template <int W, class T>
HD void store(T* p, const Floats<W>& x) {
#if !defined(__CUDA_ARCH__)
  if constexpr (W == 8) return store8(p, _mm256_loadu_ps(x.v));
#endif
  Packet<T, W> packet;
  for_lanes<W>([&](int j) { packet.v[j] = static_cast<T>(x.v[j]); });
  *reinterpret_cast<Packet<T, W>*>(p) = packet;
}

// What is stored, as a float: later sums then see what later kernels read.
template <class T, int W>
HD Floats<W> rounded(const Floats<W>& v) {
  if constexpr (sizeof(T) == sizeof(float)) return v;
  Packet<T, W> kept;
  store(kept.v, v);
  return load<W>(kept.v);
}

// Where a kernel leaves its result (result_of() in launch.h).
template <class T>
struct Result {
  T* data;
  bool past_caches;  // CPU
  HD Result operator+(int64_t i) const { return {data + i, past_caches}; }
};

template <int W, class T>
HD void store(const Result<T>& to, const Floats<W>& x) {
#if !defined(__CUDA_ARCH__)
  if constexpr (W == 8)
    if (to.past_caches) return stream8(to.data, _mm256_loadu_ps(x.v));
#endif
  store(to.data, x);
}

}  // namespace convolt
