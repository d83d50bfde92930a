#include "block_end.h"

#include "exec/bn_gradient.h"
#include "exec/gradient_join.h"

namespace convolt {
namespace {

// In place of an Affine for what has none.
template <int W>
struct Unchanged {
  static HD Unchanged of(const float*, int, int) { return {}; }
  HD void operator()(Floats<W>&) const {}
};

template <class T, class A, bool kScaled, bool kMask>
struct End {
  const T *x, *residual;
  const float *coef, *residual_coef;
  Result<T> y;
  uint8_t* mask;
  int channels;
  template <int W>
  using OfResidual = std::conditional_t<kScaled, Affine<W>, Unchanged<W>>;
  // Both normalised.
  template <int W>
  HD Floats<W> join(Floats<W> v, const Floats<W>& r) const {
    for_lanes<W>([&](int j) { v[j] += r[j]; });
    A{}.forward(v);
    return v;
  }
  template <int W>
  HD void mark(int64_t i, const Floats<W>& v) const {
    if constexpr (kMask && W == 8) {
      unsigned bits = 0;
      for (int j = 0; j < 8; ++j) bits |= (v[j] > 0 ? 1U : 0U) << j;
      mask[i / 8] = static_cast<uint8_t>(bits);
    }
  }
  template <int W>
  HD void run(int64_t row, int c) const {
    const int64_t i = row * channels + c;
    Floats<W> v = load_ahead<W>(x + i), r = load_ahead<W>(residual + i);
    Affine<W>::of(coef, channels, c)(v);
    OfResidual<W>::of(residual_coef, channels, c)(r);
    v = join(v, r);
    store(y + i, v);
    mark(i, v);
  }
};

// The mean of whole pictures, of what would have been stored.
template <class T, class E>
struct EndMean {
  static constexpr int kBytes = 2 * sizeof(T);
  E of;
  float scale;

  template <int W>
  struct Kept {
    Affine<W> of_x;
    [[no_unique_address]] typename E::template OfResidual<W> of_residual;
  };
  template <int W>
  HD Kept<W> kept(int c) const {
    return {Affine<W>::of(of.coef, of.channels, c), E::template OfResidual<W>::of(of.residual_coef, of.channels, c)};
  }
  template <int W>
  struct Operands {
    Ahead<T, W> x, residual;
  };
  template <int W>
  HD Operands<W> operands(int64_t row, int c, bool exists) const {
    const int64_t i = row * of.channels + c;
    return {Ahead<T, W>::of(of.x + i, exists), Ahead<T, W>::of(of.residual + i, exists)};
  }
  template <int W>
  HD void add(int64_t row, int c, const Operands<W>& o, const Kept<W>& k, Floats<W> (&sums)[1]) const {
    Floats<W> v = o.x.of_existing(), r = o.residual.of_existing();
    k.of_x(v);
    k.of_residual(r);
    v = of.join(v, r);
    of.mark(row * of.channels + c, v);
    v = rounded<T>(v);
    for_lanes<W>([&](int j) { sums[0][j] += v[j] * scale; });
  }
};

template <class T, class A, bool kScaled, bool kMask>
void run_end(Stream s, const BlockEndArgs& a) {
  const int channels = channels_of(a.x);
  const End<T, A, kScaled, kMask> end{a.x.as<const T>(),
                                      a.residual.as<const T>(),
                                      a.coef,
                                      a.residual_coef,
                                      result_of<T>(s, a.y, {a.x.data, a.residual.data}),
                                      a.mask,
                                      channels};
  if (a.mean_over > 0) {
    const EndMean<T, End<T, A, kScaled, kMask>> mean{end, 1.F / static_cast<float>(a.mean_over)};
    if constexpr (kMask)
      return reduce_chunks_of<1, 8>(s, rows_of(a.x), channels, a.mean_over, a.y.as<T>(), mean);
    else
      return reduce_chunks<1>(s, rows_of(a.x), channels, a.mean_over, a.y.as<T>(), mean);
  }
  if constexpr (kMask)
    for_each_channel_packet_of<8>(s, rows_of(a.x), channels, end);
  else
    for_each_channel_packet<T>(s, rows_of(a.x), channels, end);
}

template <class T, class A, bool kMask>
void run_end(Stream s, const BlockEndArgs& a) {
  if (a.residual_coef != nullptr)
    run_end<T, A, true, kMask>(s, a);
  else
    run_end<T, A, false, kMask>(s, a);
}

// What arrives before it is joined.
template <class T, class J>
struct Arriving {
  static constexpr int kBytes = J::kBytes + sizeof(T);
  J join;
  const T* dy;
  bool spread;  // dy is one row for each picture
  Divisor by_pixels;
  float share;

  template <int W>
  struct Operands {
    Ahead<T, W> dy;
    typename J::template Operands<W> join;
    [[no_unique_address]] typename J::template GateOf<W> gate;
  };
  template <int W>
  HD auto kept(int c) const {
    return join.template kept<W>(c);
  }
  template <int W>
  HD Operands<W> operands(int64_t row, int c, bool exists) const {
    const int64_t of_dy = spread ? by_pixels.quotient(row) : row;
    return {Ahead<T, W>::of(dy + of_dy * join.channels + c, exists), join.template operands<W>(row, c, exists),
            join.template gate_of<W>(row * join.channels + c, exists)};
  }
  template <int W>
  HD void add(int64_t row, int c, const Operands<W>& o, const typename J::template Kept<W>& k,
              Floats<W> (&sums)[J::kSums]) const {
    Floats<W> g = o.dy.of_existing();
    if (spread) {
      for_lanes<W>([&](int j) { g[j] *= share; });
      g = rounded<T>(g);
    }
    join.template add<W>(row, c, o.join, o.gate, k, g, sums);
  }
};

template <class T, class J>
Arriving<T, J> arriving(const GradientJoinArgs& a, const J& join) {
  const int64_t pixels = a.spread > 0 ? a.spread : 1;
  return {join, a.dy.as<const T>(), a.spread > 0, Divisor(pixels), 1.F / static_cast<float>(pixels)};
}

template <class T, Gate kGate>
void run_join(Stream s, const GradientJoinArgs& a) {
  const int channels = channels_of(a.x);
  if constexpr (kGate != Gate::recomputed)
    if (a.x2.data != nullptr)
      return reduce_channels_then<3>(s, rows_of(a.x), channels, a.scratch, arriving<T>(a, Join<T, kGate, true>(s, a)),
                                     StorePair(a));
  reduce_channels_then<2>(s, rows_of(a.x), channels, a.scratch, arriving<T>(a, Join<T, kGate, false>(s, a)),
                          StoreSums<2>{{a.dgamma, a.dbeta}});
}

template <class T>
struct PairBackward {
  struct Branch {
    const T* x;
    const float *coef, *dgamma, *dbeta;
    Result<T> dx;
  };
  const T* dz;
  Branch first, second;
  float inverse_rows;
  int channels;

  template <int W>
  struct OfChannels {
    BnGradient<W> first, second;
  };
  template <int W>
  HD OfChannels<W> of_channels(int c) const {
    return {of<W>(first, c), of<W>(second, c)};
  }
  template <int W>
  struct Operands {
    Ahead<T, W> dz, first, second;
  };
  template <int W>
  HD Operands<W> operands(int64_t row, int c, bool exists) const {
    const int64_t i = row * channels + c;
    return {Ahead<T, W>::of(dz + i, exists), Ahead<T, W>::of(first.x + i, exists),
            Ahead<T, W>::of(second.x + i, exists)};
  }
  template <int W>
  HD void put(int64_t row, int c, const Operands<W>& o, const OfChannels<W>& k) const {
    const int64_t i = row * channels + c;
    const Floats<W> g = o.dz.of_existing();
    // Both before either is stored: a result may take the place of an operand.
    const Floats<W> a = k.first(g, o.first.of_existing()), b = k.second(g, o.second.of_existing());
    store(first.dx + i, a);
    store(second.dx + i, b);
  }

private:
  template <int W>
  HD BnGradient<W> of(const Branch& b, int c) const {
    return BnGradient<W>::of(b.coef, channels, b.dgamma, b.dbeta, inverse_rows, c);
  }
};

}  // namespace

void block_end(Stream s, const BlockEndArgs& a) {
  const bool relu = a.act.kind == Activation::relu;
  if (!relu && (a.act.kind != Activation::none || a.mask != nullptr))
    throw Error("block_end knows no activation or relu, and a mask of the latter alone");
  if (a.mask != nullptr && channels_of(a.x) % 8 != 0)
    throw ShapeError("block_end: a mask needs channels in eights, found " + std::to_string(channels_of(a.x)));
  dispatch_float(a.x.dtype, "block_end", [&](auto t) {
    using T = decltype(t);
    if (!relu)
      run_end<T, Fixed<Activation::none>, false>(s, a);
    else if (a.mask != nullptr)
      run_end<T, Fixed<Activation::relu>, true>(s, a);
    else
      run_end<T, Fixed<Activation::relu>, false>(s, a);
  });
}

int64_t gradient_join_scratch(int64_t rows, int channels, bool second) {
  return chunks_of(rows) * (second ? 3 : 2) * channels * static_cast<int64_t>(sizeof(float));
}

void gradient_join(Stream s, const GradientJoinArgs& a) {
  if (a.gate == Gate::mask && channels_of(a.x) % 8 != 0)
    throw ShapeError("gradient_join: a mask needs channels in eights, found " + std::to_string(channels_of(a.x)));
  if (a.gate == Gate::recomputed && (a.dy2.data != nullptr || a.x2.data != nullptr))
    throw Error("gradient_join: a recomputed gate is one of a single gradient and batch norm");
  dispatch_float(a.x.dtype, "gradient_join", [&](auto t) {
    using T = decltype(t);
    switch (a.gate) {
      case Gate::none:
        return run_join<T, Gate::none>(s, a);
      case Gate::mask:
        return run_join<T, Gate::mask>(s, a);
      case Gate::output:
        return run_join<T, Gate::output>(s, a);
      case Gate::recomputed:
        return run_join<T, Gate::recomputed>(s, a);
    }
  });
}

void batch_norm_pair_backward(Stream s, const PairBackwardArgs& args) {
  const float inverse_rows = 1.F / static_cast<float>(rows_of(args.dz));
  dispatch_float(args.dz.dtype, "batch_norm_pair_backward", [&](auto t) {
    using T = decltype(t);
    const auto branch = [&](const PairBackwardArgs::Branch& b) {
      const auto dx = result_of<T>(s, b.dx, {args.dz.data, args.branch[0].x.data, args.branch[1].x.data});
      return typename PairBackward<T>::Branch{b.x.as<const T>(), b.coef, b.dgamma, b.dbeta, dx};
    };
    for_each_channel_packet<T>(s, rows_of(args.dz), channels_of(args.dz),
                               PairBackward<T>{args.dz.as<const T>(), branch(args.branch[0]), branch(args.branch[1]),
                                               inverse_rows, channels_of(args.dz)});
  });
}

}  // namespace convolt
