// Exponential, hyperbolic tangent and the normal distribution without branches or tables, for floats and, on the CPU,
// for eight of them (F). A GPU has exponentials and reciprocals in hardware, with a unit in the last place or two of
// error: the formulas are the same, the bits are not. The polynomials are weighted least-squares fits on Chebyshev
// nodes. NaN stays NaN. Errors against double are tested: at most 1e-6 relative, or 1e-35.
#pragma once

#include "exec/eight.h"

namespace convolt {

#if !defined(__CUDA_ARCH__)
// x = n ln 2 + r with |r| <= ln 2 / 2; e^r by its polynomial of degree 6.
template <class F>
HD F exp_on_cpu(F x) {
  // 1.5 * 2^23, which rounds what is added to it to an integer n, in the low bits; and 127, so that these are the
  // exponent of 2^n: of 0 for -127, of infinity for 128.
  constexpr float kShift = 12582912.F + 127.F;
  const F bounded = within(x, -88.F, 89.F);
  const F shifted = fused(bounded, 1.44269504F, kShift), n = shifted - kShift;
  const F r = fused(n, 1.90465421e-9F, fused(n, -0.693147182F, bounded));
  F p = fused(r, 0.00138143182F, 0.00836885162F);
  p = fused(p, r, 0.0416684002F);
  p = fused(p, r, 0.166665196F);
  p = fused(p, r, 0.49999994F);
  p = fused(p * r, r, r) + 1.F;
  return p * exponent_from_bits(shifted);  // a NaN's n is any number: it stays NaN
}
HD Eight fast_exp(Eight x) { return exp_on_cpu(x); }
#endif
// e^x. On the CPU 0 below -87.7 and infinity above 88.3.
HD float fast_exp(float x) {
#if defined(__CUDA_ARCH__)
  return expf(x);
#else
  return exp_on_cpu(x);
#endif
}

// 1 / (1 + e^-x).
template <class F>
HD F fast_sigmoid(F x) {
  const F e = fast_exp(-absolute(x));
  return quotient(choose(x < 0.F, e, F(1.F)), 1.F + e);
}

// By an odd polynomial of degree 9 up to 0.625, by e^-2|x| beyond.
template <class F>
HD F fast_tanh(F x) {
  const F a = absolute(x), q = x * x, e = fast_exp(-2.F * a);
  F p = fused(q, fused(q, -0.00570497848F, 0.0206390787F), -0.0537397116F);
  p = fused(p, q, 0.133314416F);
  p = fused(p, q, -0.333332807F);
  const F small = fused(p * q, x, x), large = 1.F - quotient(2.F * e, 1.F + e);
  return choose(a < 0.625F, small, choose(x < 0.F, -large, large));
}

template <class F>
struct Normal {
  F below;    // the distribution: the probability of less than x
  F density;  // e^(-x^2/2) / sqrt(2 pi)
};

// Of the standard normal distribution, for |x| <= 15, beyond which both are 0 or 1 in float. The smaller tail is
// e^(-x^2/2) R(|x|), with R, which falls slowly, a polynomial of degree 8 in (|x| - 3) / (|x| + 3) over |x| + 3: so a
// tail of 1e-30 is as accurate as one of 0.4, which 1 + erf is not.
template <class F>
HD Normal<F> fast_normal(F x) {
  const F t = absolute(x), inverse = quotient(1.F, t + 3.F), u = (t - 3.F) * inverse;
  F p = fused(u, -0.000259313791F, -0.000892533804F);
  p = fused(p, u, 0.00107324356F);
  p = fused(p, u, 0.00691617187F);
  p = fused(p, u, -0.0104801469F);
  p = fused(p, u, -0.0472544655F);
  p = fused(p, u, 0.230019435F);
  p = fused(p, u, -0.509332359F);
  p = fused(p, u, 0.729083657F);
  const F square = t * t, rest = fused(t, t, -square);  // what rounding took from the square
  const F e = fast_exp(-0.5F * square), exact = fused(e, -0.5F * rest, e);
  const F tail = exact * p * inverse;
  return {choose(x < 0.F, tail, 1.F - tail), exact * 0.398942280F};
}

}  // namespace convolt
