// Exponential, hyperbolic tangent and the normal distribution without branches or tables, so that loops around them
// vectorise on the CPU. A GPU has exponentials and reciprocals in hardware, with a unit in the last place or two of
// error: the formulas are the same, the bits are not. The polynomials are weighted least-squares fits on Chebyshev
// nodes. NaN stays NaN. Errors against double are tested: at most 1e-6 relative wherever the result is a normal number.
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

// e^x: 0 below -104, infinity above 88.8. On the CPU x = n ln 2 + r with |r| <= ln 2 / 2; e^r by its polynomial of
// degree 6.
HD float fast_exp(float x) {
#if defined(__CUDA_ARCH__)
  return expf(x);
#else
  constexpr float kShift = 12582912.F;  // 1.5 * 2^23: what is added to it is rounded to an integer, in the low bits
  const float bounded = within(x, -104.F, 89.F);
  const float shifted = fmaf(bounded, 1.44269504F, kShift), n = shifted - kShift;
  const float r = fmaf(n, 1.90465421e-9F, fmaf(n, -0.693147182F, bounded));
  float p = fmaf(r, 0.00138143182F, 0.00836885162F);
  p = fmaf(p, r, 0.0416684002F);
  p = fmaf(p, r, 0.166665196F);
  p = fmaf(p, r, 0.49999994F);
  p = fmaf(p * r, r, r) + 1.F;
  // In two factors, since 2^n itself may lie outside the normal numbers. A NaN's n is any number: it stays NaN.
  const uint32_t k = float_to_bits(shifted) - float_to_bits(kShift);
  const uint32_t half = (k + 512U) / 2U - 256U;
  const float first = bits_to_float((half + 127U) << 23), second = bits_to_float((k - half + 127U) << 23);
  return p * first * second;
#endif
}

// 1 / (1 + e^-x).
HD float fast_sigmoid(float x) {
  const float e = fast_exp(-fabsf(x));
  return quotient(choose(x < 0, e, 1.F), 1.F + e);
}

// By an odd polynomial of degree 9 up to 0.625, by e^-2|x| beyond.
HD float fast_tanh(float x) {
  const float a = fabsf(x), q = x * x, e = fast_exp(-2.F * a);
  float p = fmaf(q, fmaf(q, -0.00570497848F, 0.0206390787F), -0.0537397116F);
  p = fmaf(p, q, 0.133314416F);
  p = fmaf(p, q, -0.333332807F);
  const float small = fmaf(p * q, x, x), large = 1.F - quotient(2.F * e, 1.F + e);
  return choose(a < 0.625F, small, choose(x < 0, -large, large));
}

struct Normal {
  float below;    // the distribution: the probability of less than x
  float density;  // e^(-x^2/2) / sqrt(2 pi)
};

// Of the standard normal distribution, for |x| <= 15, beyond which both are 0 or 1 in float. The smaller tail is
// e^(-x^2/2) R(|x|), with R, which falls slowly, a polynomial of degree 8 in (|x| - 3) / (|x| + 3) over |x| + 3: so a
// tail of 1e-30 is as accurate as one of 0.4, which 1 + erf is not.
HD Normal fast_normal(float x) {
  const float t = fabsf(x), inverse = quotient(1.F, t + 3.F), u = (t - 3.F) * inverse;
  float p = fmaf(u, -0.000259313791F, -0.000892533804F);
  p = fmaf(p, u, 0.00107324356F);
  p = fmaf(p, u, 0.00691617187F);
  p = fmaf(p, u, -0.0104801469F);
  p = fmaf(p, u, -0.0472544655F);
  p = fmaf(p, u, 0.230019435F);
  p = fmaf(p, u, -0.509332359F);
  p = fmaf(p, u, 0.729083657F);
  const float square = t * t, rest = fmaf(t, t, -square);  // what rounding took from the square
  const float e = fast_exp(-0.5F * square), exact = fmaf(e, -0.5F * rest, e);
  const float tail = exact * p * inverse;
  return {choose(x < 0, tail, 1.F - tail), exact * 0.398942280F};
}

}  // namespace convolt
