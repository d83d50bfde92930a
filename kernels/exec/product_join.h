// gradient_join.h as the epilogue of a product: the same dz, whose sums are made of many rows of the same channels.
#pragma once

#include "exec/gradient_join.h"

namespace convolt {

// Of the gates mask and recomputed.
template <class T, Gate kGate, bool kSecond>
struct ProductJoin {
  static_assert(kGate == Gate::mask || kGate == Gate::recomputed);
  static constexpr int kSums = kSecond ? 3 : 2;
  Join<T, kGate, kSecond> join;

  // The gate's bits are as far away as the rest.
  template <int W>
  struct Operands {
    typename Join<T, kGate, kSecond>::template Operands<W> of;
    uint8_t bits;
  };
  template <int W>
  HD Operands<W> operands(int64_t row, int c, bool exists) const {
    static_assert(W == 8);
    uint8_t bits = 0;
    if constexpr (kGate == Gate::mask)
      if (exists) bits = static_cast<const uint8_t*>(join.gate)[(row * join.channels + c) / 8];
    return {join.template operands<W>(row, c, exists), bits};
  }

  template <int W>
  struct Common {
    Floats<W> mean, mean2, scale, bias;
  };
  template <int W>
  HD Common<W> common(int c) const {
    Common<W> of{};
    of.mean = load<W>(join.coef + c);
    if constexpr (kSecond) of.mean2 = load<W>(join.coef2 + c);
    if constexpr (kGate == Gate::recomputed) {
      of.scale = load<W>(join.coef + 2 * join.channels + c);
      of.bias = load<W>(join.coef + 3 * join.channels + c);
    }
    return of;
  }

  // g arrives at them. The factor that a channel's sums share is left to finish().
  template <int W>
  HD void add(int64_t row, int c, const Operands<W>& o, const Common<W>& of, Floats<W> g,
              Floats<W> (&sums)[kSums]) const {
    const Floats<W> v = floats(o.of.x.lanes());
    if (join.dy2) {
      const Floats<W> other = floats(o.of.dy2.lanes());
      for_lanes<W>([&](int j) { g[j] += other[j]; });
    }
    g = rounded<T>(g);
    if constexpr (kGate == Gate::mask) {
      const unsigned bits = o.bits;
      for_lanes<W>([&](int j) { g[j] = (bits >> j & 1U) != 0 ? g[j] : 0.F; });
    } else {
      Floats<W> z;
      for_lanes<W>([&](int j) { z[j] = v[j] * of.scale[j] + of.bias[j]; });
      Fixed<Activation::relu>{}.backward(z, g);
    }
    store(join.dz + (row * join.channels + c), g);
    for_lanes<W>([&](int j) {
      sums[0][j] += g[j] * (v[j] - of.mean[j]);
      sums[1][j] += g[j];
    });
    if constexpr (kSecond) {
      const Floats<W> v2 = floats(o.of.x2.lanes());
      for_lanes<W>([&](int j) { sums[2][j] += g[j] * (v2[j] - of.mean2[j]); });
    }
  }
  template <int W>
  HD void finish(int c, Floats<W> (&sums)[kSums]) const {
    const Floats<W> invstd = load<W>(join.coef + join.channels + c);
    for_lanes<W>([&](int j) { sums[0][j] *= invstd[j]; });
    if constexpr (kSecond) {
      const Floats<W> invstd2 = load<W>(join.coef2 + join.channels + c);
      for_lanes<W>([&](int j) { sums[2][j] *= invstd2[j]; });
    }
  }
};

}  // namespace convolt
