// The join of gradients at the end of a block (block_end.h), of one that arrives in registers.
#pragma once

#include "block_end.h"
#include "exec/act.h"
#include "exec/grid.h"
#include "exec/lanes.h"
#include "exec/reduce.h"

namespace convolt {

// v * scale + bias of coef, for W channels from c.
template <int W>
struct Affine {
  Floats<W> scale, bias;
  static HD Affine of(const float* coef, int channels, int c) {
    return {load<W>(coef + 2 * channels + c), load<W>(coef + 3 * channels + c)};
  }
  HD void operator()(Floats<W>& v) const {
    for_lanes<W>([&](int j) { v[j] = v[j] * scale[j] + bias[j]; });
  }
};

inline bool is_thin(const GradientJoinArgs& a) {
  if (a.dy2.data == nullptr || a.dy2.elements() == a.x.elements()) return false;
  const Shape& x = a.x.shape;
  if (x.rank() == 4 && a.dy2.shape == thinned(x)) return true;
  throw ShapeError("a second gradient of " + x.to_string() + " or of every second pixel, found " +
                   a.dy2.shape.to_string());
}

// dz and its sums; with x2, one more for a second batch norm of the same dz.
template <class T, Gate kGate, bool kSecond>
struct Join {
  static constexpr int kSums = kSecond ? 3 : 2;
  static constexpr bool kJoins = kGate != Gate::recomputed;  // a second gradient
  // Of an element: x, dy2, x2 and what the gate reads.
  static constexpr int kBytes =
      (2 + (kSecond ? 1 : 0) + (kGate == Gate::output ? 1 : 0)) * sizeof(T) + (kGate == Gate::mask ? 1 : 0);
  const T *dy2, *x, *x2;
  const float *coef, *coef2;
  const void* gate;
  Result<T> dz;
  int channels;
  bool thin;  // dy2 has every second pixel of every second line
  Grid grid;  // then of x

  Join(Stream s, const GradientJoinArgs& a)
      : dy2(a.dy2.as<const T>()),
        x(a.x.as<const T>()),
        x2(a.x2.as<const T>()),
        coef(a.coef),
        coef2(a.coef2),
        gate(a.gate_data),
        dz(result_of<T>(s, a.dz, {a.dy.data, a.dy2.data, a.x.data, a.x2.data, a.gate_data})),
        channels(channels_of(a.x)),
        thin(is_thin(a)),
        grid(thin ? Grid(a.x) : Grid(1, 1)) {}

  // What the gate reads of a packet.
  template <int W>
  using GateOf = std::conditional_t<kGate == Gate::output, Ahead<T, W>,
                                    std::conditional_t<kGate == Gate::mask && W == 8, uint8_t, Nothing>>;
  template <int W>
  HD GateOf<W> gate_of(int64_t i, bool exists) const {
    if constexpr (kGate == Gate::output)
      return Ahead<T, W>::of(static_cast<const T*>(gate) + i, exists);
    else if constexpr (kGate == Gate::mask && W == 8)
      return exists ? static_cast<const uint8_t*>(gate)[i / 8] : uint8_t{0};
    else
      return {};
  }

  // What is read of channels.
  template <int W>
  struct Pair {
    Floats<W> a, b;
  };
  template <int W>
  using AffineOf = std::conditional_t<kGate == Gate::recomputed, Affine<W>, Nothing>;
  template <int W>
  HD AffineOf<W> affine(int c) const {
    if constexpr (kGate == Gate::recomputed)
      return Affine<W>::of(coef, channels, c);
    else
      return {};
  }
  template <int W>
  struct Kept {
    Pair<W> first;  // mean, 1 / deviation
    [[no_unique_address]] std::conditional_t<kSecond, Pair<W>, Nothing> second;
    [[no_unique_address]] AffineOf<W> of_gate;
  };
  template <int W>
  HD Kept<W> kept(int c) const {
    Kept<W> k;
    k.first = {load<W>(coef + c), load<W>(coef + channels + c)};
    if constexpr (kSecond) k.second = {load<W>(coef2 + c), load<W>(coef2 + channels + c)};
    k.of_gate = affine<W>(c);
    return k;
  }

  template <int W>
  HD Floats<W> gated(const GateOf<W>& of, const AffineOf<W>& affine, Floats<W> g, const Floats<W>& v) const {
    if constexpr (kGate == Gate::mask) {
      if constexpr (W == 8) {
        const unsigned bits = of;
        for_lanes<W>([&](int j) { g[j] = (bits >> j & 1U) != 0 ? g[j] : 0.F; });
      }
    } else if constexpr (kGate == Gate::output) {
      Fixed<Activation::relu>{}.backward(of.of_existing(), g);
    } else if constexpr (kGate == Gate::recomputed) {
      Floats<W> z = v;
      affine(z);
      Fixed<Activation::relu>{}.backward(z, g);
    }
    return g;
  }

  // What is read of W channels from c of a row: ahead of the results before it, which might be the same memory for all
  // that a compiler knows.
  template <int W>
  struct Operands {
    Ahead<T, W> x;
    [[no_unique_address]] std::conditional_t<kJoins, Ahead<T, W>, Nothing> dy2;
    [[no_unique_address]] std::conditional_t<kSecond, Ahead<T, W>, Nothing> x2;
  };
  template <int W>
  HD Operands<W> operands(int64_t row, int c, bool exists) const {
    const int64_t i = row * channels + c;
    Operands<W> o;
    o.x = Ahead<T, W>::of(x + i, exists);
    if constexpr (kJoins) {
      int64_t of_dy2 = i;
      bool exists2 = exists && dy2 != nullptr;
      if (thin) {
        const Pixel p = grid.pixel(row);
        exists2 = exists2 && p.h % 2 == 0 && p.w % 2 == 0;
        of_dy2 = ((p.n * ((grid.h + 1) / 2) + p.h / 2) * ((grid.w + 1) / 2) + p.w / 2) * channels + c;
      }
      o.dy2 = Ahead<T, W>::of(dy2 + of_dy2, exists2);
    }
    if constexpr (kSecond) o.x2 = Ahead<T, W>::of(x2 + i, exists);
    return o;
  }

  // dz, where g arrives at the operands; v is their x. It is stored too.
  template <int W>
  HD Floats<W> joined(int64_t row, int c, const Operands<W>& o, const GateOf<W>& of_gate, const AffineOf<W>& affine,
                      Floats<W> g, const Floats<W>& v) const {
    if constexpr (kJoins)
      if (dy2) {
        const Floats<W> other = floats(o.dy2.lanes());
        for_lanes<W>([&](int j) { g[j] += other[j]; });
      }
    g = gated<W>(of_gate, affine, rounded<T>(g), v);
    store(dz + (row * channels + c), g);
    return g;
  }
  template <int W>
  HD void add(int64_t row, int c, const Operands<W>& o, const GateOf<W>& of_gate, const Kept<W>& k,
              const Floats<W>& arriving, Floats<W> (&sums)[kSums]) const {
    const Floats<W> v = floats(o.x.lanes());
    const Floats<W> g = joined<W>(row, c, o, of_gate, k.of_gate, arriving, v);
    for_lanes<W>([&](int j) {
      sums[0][j] += g[j] * ((v[j] - k.first.a[j]) * k.first.b[j]);
      sums[1][j] += g[j];
    });
    if constexpr (kSecond) {
      const Floats<W> v2 = floats(o.x2.lanes());
      for_lanes<W>([&](int j) { sums[2][j] += g[j] * ((v2[j] - k.second.a[j]) * k.second.b[j]); });
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
