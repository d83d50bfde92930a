// One formula for one float, which is all a thread of a GPU computes, and for eight in a vector register of the CPU:
// g++ loads constants again for each packet, and makes branches of what should stay selections.
#pragma once

#include "exec/types.h"

namespace convolt {

// c ? a : b that stays a selection: g++ makes a branch of one whose sides cost much, and then vectorises nothing.
HD float choose(bool c, float a, float b) {
#if defined(__CUDA_ARCH__)
  return c ? a : b;
#else
  const uint32_t mask = 0U - static_cast<uint32_t>(c);
  return bits_to_float((float_to_bits(a) & mask) | (float_to_bits(b) & ~mask));
#endif
}
// x within bounds; NaN stays NaN.
HD float at_least(float x, float low) { return choose(x < low, low, x); }
HD float within(float x, float low, float high) {
  const float above = at_least(x, low);
  return choose(above > high, high, above);
}
// Comparisons, because fminf and fmaxf are calls on the CPU (for their treatment of NaN): b where the two do not
// compare.
template <class N>
HD N smaller(N a, N b) {
  return a < b ? a : b;
}
template <class N>
HD N larger(N a, N b) {
  return a > b ? a : b;
}
HD float rounded_down(float x) { return floorf(x); }
// a b + c, rounded once.
HD float fused(float a, float b, float c) { return fmaf(a, b, c); }
HD float absolute(float x) { return fabsf(x); }
// With the exponent that the lowest bits of x tell: 2^(bits - 127), 0 for 0 and infinity for 255.
HD float exponent_from_bits(float x) { return bits_to_float(float_to_bits(x) << 23); }

// 1 / x within 2 units in the last place: on a GPU the exact division is a call, around which registers spill.
HD float reciprocal(float x) {
#if defined(__CUDA_ARCH__)
  return __fdividef(1.F, x);
#else
  return 1.F / x;
#endif
}
// a / b for b within [1, 2^100].
HD float quotient(float a, float b) {
#if defined(__CUDA_ARCH__)
  float inverse;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(b));
  return a * inverse;
#else
  return a / b;
#endif
}

#if !defined(__CUDA_ARCH__)
struct Eight {
  __m256 v;
  HD Eight() : v(_mm256_setzero_ps()) {}
  HD Eight(__m256 x) : v(x) {}
  HD Eight(float f) : v(_mm256_set1_ps(f)) {}
  // Each: all bits set or none.
  struct Mask {
    __m256 v;
  };
  HD friend Eight operator+(Eight a, Eight b) { return _mm256_add_ps(a.v, b.v); }
  HD friend Eight operator-(Eight a, Eight b) { return _mm256_sub_ps(a.v, b.v); }
  HD friend Eight operator*(Eight a, Eight b) { return _mm256_mul_ps(a.v, b.v); }
  HD friend Eight operator/(Eight a, Eight b) { return _mm256_div_ps(a.v, b.v); }
  HD Eight& operator+=(Eight b) { return *this = *this + b; }
  HD friend Eight operator-(Eight a) { return _mm256_xor_ps(a.v, _mm256_set1_ps(-0.F)); }
  HD friend Mask operator==(Eight a, Eight b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)}; }
  HD friend Mask operator<(Eight a, Eight b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
  HD friend Mask operator<=(Eight a, Eight b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ)}; }
  HD friend Mask operator>(Eight a, Eight b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ)}; }
  HD friend Mask operator>=(Eight a, Eight b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GE_OQ)}; }
  HD friend Mask operator&(Mask a, Mask b) { return {_mm256_and_ps(a.v, b.v)}; }
};
HD Eight choose(Eight::Mask c, Eight a, Eight b) { return _mm256_blendv_ps(b.v, a.v, c.v); }
// The processor's maximum and minimum are the second of two that do not compare.
HD Eight at_least(Eight x, float low) { return _mm256_max_ps(_mm256_set1_ps(low), x.v); }
HD Eight within(Eight x, float low, float high) { return _mm256_min_ps(_mm256_set1_ps(high), at_least(x, low).v); }
HD Eight smaller(Eight a, Eight b) { return _mm256_min_ps(a.v, b.v); }
HD Eight larger(Eight a, Eight b) { return _mm256_max_ps(a.v, b.v); }
HD Eight rounded_down(Eight x) { return _mm256_floor_ps(x.v); }
HD Eight fused(Eight a, Eight b, Eight c) { return _mm256_fmadd_ps(a.v, b.v, c.v); }
HD Eight absolute(Eight x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.F), x.v); }
HD Eight exponent_from_bits(Eight x) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(x.v), 23)); }
HD Eight quotient(Eight a, Eight b) { return a / b; }
HD Eight reciprocal(Eight x) { return 1.F / x; }
#endif

// v[j] = f(v[j], more[j]...) for each lane of a packet. On the CPU always by eights: one code for whole packets and
// what is left of a row.
template <int W, class F, class... More>
HD void map_lanes(Floats<W>& v, F f, const More&... more) {
#if defined(__CUDA_ARCH__)
  for_lanes<W>([&](int j) { v[j] = f(v[j], more[j]...); });
#else
  static_assert(W <= 8);
  const auto eight = [](const Floats<W>& x) INLINED {
    if constexpr (W == 8) return Eight(_mm256_loadu_ps(x.v));
    float lanes[8] = {};
    std::memcpy(lanes, x.v, sizeof x.v);
    return Eight(_mm256_loadu_ps(lanes));
  };
  float lanes[8];
  _mm256_storeu_ps(lanes, f(eight(v), eight(more)...).v);
  std::memcpy(v.v, lanes, sizeof v.v);
#endif
}

}  // namespace convolt
