// The join of gradients at the end of a block (block_end.h), of one that arrives in registers.
#pragma once

#include "block_end.h"
#include "exec/act.h"
#include "exec/lanes.h"
#include "exec/reduce.h"

namespace convolt {

// v * scale + bias of coef.
template <int W>
HD void normalise(Floats<W>& v, const float* coef, int channels, int c) {
  const Floats<W> a = load<W>(coef + 2 * channels + c), b = load<W>(coef + 3 * channels + c);
  for_lanes<W>([&](int j) { v[j] = v[j] * a[j] + b[j]; });
}

// dz and its sums; with x2, one more for a second batch norm of the same dz.
template <class T, Gate kGate, bool kSecond>
struct Join {
  static constexpr int kSums = kSecond ? 3 : 2;
  const T *dy2, *x, *x2;
  const float *coef, *coef2;
  const void* gate;
  T* dz;
  int channels;

  explicit Join(const GradientJoinArgs& a)
      : dy2(a.dy2.as<const T>()),
        x(a.x.as<const T>()),
        x2(a.x2.as<const T>()),
        coef(a.coef),
        coef2(a.coef2),
        gate(a.gate_data),
        dz(a.dz.as<T>()),
        channels(static_cast<int>(a.x.shape[-1])) {}

  template <int W>
  HD Floats<W> gated(int64_t i, int c, Floats<W> g, const Floats<W>& v) const {
    if constexpr (kGate == Gate::mask) {
      if constexpr (W == 8) {
        const unsigned bits = static_cast<const uint8_t*>(gate)[i / 8];
        for_lanes<W>([&](int j) { g[j] = (bits >> j & 1U) != 0 ? g[j] : 0.F; });
      }
    } else if constexpr (kGate == Gate::output) {
      const Floats<W> y = load<W>(static_cast<const T*>(gate) + i);
      Fixed<Activation::relu>{}.backward(y, g);
    } else if constexpr (kGate == Gate::recomputed) {
      Floats<W> z = v;
      normalise(z, coef, channels, c);
      Fixed<Activation::relu>{}.backward(z, g);
    }
    return g;
  }

  // What is read of W channels from c of a row: ahead of the results before it, which might be the same memory for all
  // that a compiler knows.
  template <int W>
  struct Operands {
    Ahead<T, W> x, dy2, x2;
  };
  template <int W>
  HD Operands<W> operands(int64_t row, int c, bool exists = true) const {
    const int64_t i = row * channels + c;
    return {Ahead<T, W>::of(x + i, exists), Ahead<T, W>::of(dy2 + i, exists && dy2 != nullptr),
            Ahead<T, W>::of(x2 + i, exists && kSecond)};
  }

  // g arrives at them.
  template <int W>
  HD void add(int64_t row, int c, const Operands<W>& o, Floats<W> g, Floats<W> (&sums)[kSums]) const {
    const int64_t i = row * channels + c;
    const Floats<W> v = floats(o.x.lanes());
    if (dy2) {
      const Floats<W> other = floats(o.dy2.lanes());
      for_lanes<W>([&](int j) { g[j] += other[j]; });
    }
    g = gated(i, c, rounded<T>(g), v);
    store(dz + i, g);
    const Floats<W> mean = load<W>(coef + c), invstd = load<W>(coef + channels + c);
    for_lanes<W>([&](int j) {
      sums[0][j] += g[j] * ((v[j] - mean[j]) * invstd[j]);
      sums[1][j] += g[j];
    });
    if constexpr (kSecond) {
      const Floats<W> v2 = floats(o.x2.lanes()), mean2 = load<W>(coef2 + c), invstd2 = load<W>(coef2 + channels + c);
      for_lanes<W>([&](int j) { sums[2][j] += g[j] * ((v2[j] - mean2[j]) * invstd2[j]); });
    }
  }
};

// A finish for two batch norms of one dz.
struct StorePair {
  float *dgamma, *dbeta, *dgamma2, *dbeta2;
  explicit StorePair(const GradientJoinArgs& a)
      : dgamma(a.dgamma), dbeta(a.dbeta), dgamma2(a.dgamma2), dbeta2(a.dbeta2) {}
  HD void operator()(int c, const double (&sums)[3]) const {
    dgamma[c] = static_cast<float>(sums[0]);
    dbeta[c] = dbeta2[c] = static_cast<float>(sums[1]);
    dgamma2[c] = static_cast<float>(sums[2]);
  }
};

}  // namespace convolt
