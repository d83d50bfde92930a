// gradient_join.h as the epilogue of a product: the same dz, whose sums are made of many rows of the same channels.
#pragma once

#include "exec/gradient_join.h"

namespace convolt {

// Of the gates mask and recomputed.
template <class T, Gate kGate, bool kSecond>
struct ProductJoin {
  static_assert(kGate == Gate::mask || kGate == Gate::recomputed);
  static constexpr int kSums = kSecond ? 3 : 2, kAhead = kSecond ? 3 : kGate == Gate::mask ? 4 : 6;
  Join<T, kGate, kSecond> join;

  using Of = Join<T, kGate, kSecond>;
  // The gate's bits are as far away as the rest.
  template <int W>
  struct Operands {
    typename Of::template Operands<W> of;
    [[no_unique_address]] typename Of::template GateOf<W> gate;
  };
  template <int W>
  HD Operands<W> operands(int64_t row, int c, bool exists) const {
    return {join.template operands<W>(row, c, exists), join.template gate_of<W>(row * join.channels + c, exists)};
  }

  template <int W>
  struct Common {
    Floats<W> mean, mean2;
    [[no_unique_address]] typename Of::template AffineOf<W> affine;
  };
  template <int W>
  HD Common<W> common(int c) const {
    Common<W> of{};
    of.mean = load<W>(join.coef + c);
    if constexpr (kSecond) of.mean2 = load<W>(join.coef2 + c);
    of.affine = join.template affine<W>(c);
    return of;
  }

  // The factor that a channel's sums share is left to finish().
  template <int W>
  HD void add(int64_t row, int c, const Operands<W>& o, const Common<W>& of, const Floats<W>& arriving,
              Floats<W> (&sums)[kSums]) const {
    const Floats<W> v = floats(o.of.x.lanes());
    const Floats<W> g = join.template joined<W>(row, c, o.of, o.gate, of.affine, arriving, v);
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
