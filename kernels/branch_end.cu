#include "branch_end.h"

#include "exec/keep_rows.h"
#include "exec/reduce.h"

namespace convolt {
namespace {

struct Factors {
  const float* gamma;
  RowKeeper keeper;
  Divisor by_pixels;
  Factors(const BranchScale& s, const Tensor& x)
      : gamma(s.gamma), keeper(s.input, s.layer, s.p), by_pixels(rows_of(x) / x.shape[0]) {}
  template <int W>
  HD void keep(int64_t row, Floats<W>& v) const {
    keeper.apply(by_pixels.quotient(row), v);
  }
  template <int W>
  HD void scale(int c, Floats<W>& v) const {
    if (!gamma) return;
    const Floats<W> g = load<W>(gamma + c);
    for_lanes<W>([&](int j) { v[j] *= g[j]; });
  }
};

template <class T>
struct End {
  const T *x, *residual;
  Result<T> y;
  Factors factors;
  int channels;
  template <int W>
  HD void run(int64_t row, int c) const {
    const int64_t i = row * channels + c;
    Floats<W> v = load_ahead<W>(x + i);
    const Floats<W> r = load_ahead<W>(residual + i);
    factors.scale(c, v);
    factors.keep(row, v);
    for_lanes<W>([&](int j) { v[j] += r[j]; });
    store(y + i, v);
  }
};

template <class T, bool kScaled>
struct Backward {
  static constexpr int kBytes = (kScaled ? 2 : 1) * sizeof(T);
  const T *dy, *x;
  Result<T> dx;
  Factors factors;
  int channels;
  template <int W>
  HD auto kept(int c) const {
    if constexpr (kScaled)
      return load<W>(factors.gamma + c);
    else
      return Nothing{};
  }
  template <int W>
  struct Operands {
    Ahead<T, W> dy;
    [[no_unique_address]] std::conditional_t<kScaled, Ahead<T, W>, Nothing> x;
  };
  template <int W>
  HD Operands<W> operands(int64_t row, int c, bool exists) const {
    const int64_t i = row * channels + c;
    Operands<W> o;
    o.dy = Ahead<T, W>::of(dy + i, exists);
    if constexpr (kScaled) o.x = Ahead<T, W>::of(x + i, exists);
    return o;
  }
  template <int W, class S>
  HD void add(int64_t row, int c, const Operands<W>& o, const S& scale, Floats<W> (&sums)[2]) const {
    Floats<W> g = o.dy.of_existing();
    factors.keep(row, g);
    if constexpr (kScaled) {
      const Floats<W> v = o.x.of_existing();
      for_lanes<W>([&](int j) {
        sums[0][j] += g[j] * v[j];
        g[j] *= scale[j];
      });
    }
    store(dx + (row * channels + c), g);
    g = rounded<T>(g);
    for_lanes<W>([&](int j) { sums[1][j] += g[j]; });
  }
};

// Each sum where it is wanted.
struct StoreWanted {
  float *dgamma, *dbias;
  HD void operator()(int c, const double (&sums)[2]) const {
    if (dgamma) dgamma[c] = static_cast<float>(sums[0]);
    if (dbias) dbias[c] = static_cast<float>(sums[1]);
  }
};

}  // namespace

void branch_end(Stream s, const Tensor& x, const Tensor& residual, const BranchScale& scale, const Tensor& y) {
  dispatch_float(x.dtype, "branch_end", [&](auto t) {
    using T = decltype(t);
    for_each_channel_packet<T>(s, rows_of(x), channels_of(x),
                               End<T>{x.as<const T>(), residual.as<const T>(),
                                      result_of<T>(s, y, {x.data, residual.data}), Factors(scale, x), channels_of(x)});
  });
}

int64_t branch_end_scratch(int64_t rows, int64_t channels) {
  return chunks_of(rows) * 2 * channels * static_cast<int64_t>(sizeof(float));
}

void branch_end_backward(Stream s, const BranchEndBackwardArgs& a) {
  const int channels = channels_of(a.dy);
  const int64_t rows = rows_of(a.dy);
  dispatch_float(a.dy.dtype, "branch_end_backward", [&](auto t) {
    using T = decltype(t);
    const auto reduce = [&]<bool kScaled>() {
      reduce_channels_then<2>(
          s, rows, channels, a.scratch,
          Backward<T, kScaled>{a.dy.as<const T>(), a.x.as<const T>(), result_of<T>(s, a.dx, {a.dy.data, a.x.data}),
                               Factors(a.scale, a.dy), channels},
          StoreWanted{a.dgamma, a.dbias});
    };
    a.scale.gamma != nullptr ? reduce.template operator()<true>() : reduce.template operator()<false>();
  });
}

}  // namespace convolt
