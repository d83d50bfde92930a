#include "pointwise.h"

#include "exec/product.h"
#include "exec/product_join.h"

namespace convolt {
namespace {

constexpr int kNarrow = 64, kWide = 128;  // tiles; a matrix that fits into a narrow one has as many of either

template <class F>
void dispatch_half(DType t, F f) {
  switch (t) {
    case DType::bf16:
      return f(bf16{});
    case DType::f16:
      return f(f16{});
    default:
      throw Error("a pointwise convolution takes bf16 or f16, found " + std::string(name_of(t)));
  }
}

void check(const Tensor& a, const Tensor& w, int64_t depth, int64_t channels) {
  if (a.shape[-1] != depth || depth % 8 != 0 || channels % 8 != 0)
    throw ShapeError("a pointwise convolution by weights " + w.shape.to_string() + " of channels in eights, found " +
                     a.shape.to_string());
  if (a.elements() / depth > INT32_MAX - 128)
    throw ShapeError("a pointwise convolution of fewer than 2^31 pixels, found " + a.shape.to_string());
}

template <class T>
struct Statistics {
  static constexpr int kSums = 2;
  T* y;
  int channels;
  template <int W>
  struct Operands {};
  template <int W>
  HD Operands<W> operands(int64_t, int, bool) const {
    return {};
  }
  template <int W>
  struct Common {};
  template <int W>
  HD Common<W> common(int) const {
    return {};
  }
  template <int W>
  HD void add(int64_t row, int c, Operands<W>, Common<W>, const Floats<W>& v, Floats<W> (&sums)[kSums]) const {
    store(y + row * channels + c, v);
    for_lanes<W>([&](int j) {
      sums[0][j] += v[j];
      sums[1][j] += v[j] * v[j];
    });
  }
  template <int W>
  HD void finish(int, Floats<W> (&)[kSums]) const {}
};

template <class T, Gate kGate, bool kSecond, class G>
void run_dgrad(Stream s, const Tensor& dy, const Tensor& w, const GradientJoinArgs& end, const G& finish) {
  const ProductJoin<T, kGate, kSecond> join{Join<T, kGate, kSecond>(end)};
  const int channels = join.join.channels;
  // Few channels are what a block has within, not what it ends with.
  if constexpr (kGate == Gate::recomputed)
    if (channels <= kNarrow) return run_product<T, true, kNarrow>(s, dy, w, channels, join, end.scratch, finish);
  run_product<T, true, kWide>(s, dy, w, channels, join, end.scratch, finish);
}

}  // namespace

int64_t pointwise_scratch(int64_t rows, int64_t channels, int sums) {
  return ProductTiles(rows, channels, channels <= kNarrow ? kNarrow : kWide).chunks * sums * channels * 4;
}

void pointwise_stats(Stream s, const Tensor& x, const Tensor& w, const Tensor& y, float* scratch, float* sums) {
  const int64_t channels = y.shape[-1];
  check(x, w, w.shape[-1], channels);
  const StoreSums<2> finish{{sums, sums + channels}};
  dispatch_half(x.dtype, [&](auto t) {
    using T = decltype(t);
    const Statistics<T> statistics{y.as<T>(), static_cast<int>(channels)};
    if (channels <= kNarrow) return run_product<T, false, kNarrow>(s, x, w, channels, statistics, scratch, finish);
    run_product<T, false, kWide>(s, x, w, channels, statistics, scratch, finish);
  });
}

void pointwise_dgrad(Stream s, const Tensor& dy, const Tensor& w, const GradientJoinArgs& end) {
  check(dy, w, w.shape[0], w.shape[-1]);
  const bool masked = end.gate == Gate::mask, second = end.x2.data != nullptr;
  if ((!masked && (end.gate != Gate::recomputed || second || end.dy2.data != nullptr)) || end.spread != 0)
    throw Error("pointwise_dgrad knows a recomputed gate of one gradient, and masks");
  const StoreSums<2> sums{{end.dgamma, end.dbeta}};
  dispatch_half(dy.dtype, [&](auto t) {
    using T = decltype(t);
    if (!masked) return run_dgrad<T, Gate::recomputed, false>(s, dy, w, end, sums);
    if (second) return run_dgrad<T, Gate::mask, true>(s, dy, w, end, StorePair(end));
    run_dgrad<T, Gate::mask, false>(s, dy, w, end, sums);
  });
}

}  // namespace convolt
