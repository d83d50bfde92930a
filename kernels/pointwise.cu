#include "pointwise.h"

#include "exec/grid.h"
#include "exec/product_join.h"
#include "exec/run_product.h"

namespace convolt {
namespace {

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
  if (a.elements() / depth > INT32_MAX - ProductTiles::height_of(64))
    throw ShapeError("a pointwise convolution of fewer than 2^31 pixels, found " + a.shape.to_string());
}

// Rows of relu(x * scale + bias).
struct NormalisedRows : PlainRows {
  static constexpr bool kChanges = true;
  const f16 *scale, *bias;
  HD void change(f16* packet, int channel) const {
    Floats<8> v = load<8>(packet);
    const Floats<8> a = load<8>(scale + channel), b = load<8>(bias + channel);
    for_lanes<8>([&](int j) { v[j] = fmaxf(v[j] * a[j] + b[j], 0.F); });
    store(packet, v);
  }
};

// Windows of pictures of `depth` channels: lines of `window` elements, from one line of the picture to the next.
struct WindowRows {
  static constexpr bool kChanges = false, kOverlap = true;
  Grid grid;  // of the results
  int64_t height, width;
  int depth, window, line_length;
  HD int64_t place(int64_t row) const {
    const Pixel pixel = grid.pixel(row);
    return ((pixel.n * height + pixel.h) * width + pixel.w) * depth;
  }
  HD int along(int k) const {
    const int line = k / window;
    return line * line_length + k - line * window;
  }
};

template <class T>
struct Statistics {
  static constexpr int kSums = 2, kAhead = 3;  // of none
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

// f(width of a tile), which is 64, 128 or, of more than 128 channels, 256.
template <int kMostChannels = INT32_MAX, class F>
void dispatch_width(int64_t depth, int64_t channels, F f) {
  const int width = ProductTiles::width_of(depth, channels);
  if (width == 64) return f(std::integral_constant<int, 64>());
  if constexpr (kMostChannels > 128)
    if (width == 256) return f(std::integral_constant<int, 256>());
  f(std::integral_constant<int, 128>());
}

template <class T, class L>
void run_stats(Stream s, const Tensor& x, const L& rows_of_x, const Tensor& w, const Tensor& y, float* scratch,
               float* sums) {
  const int64_t channels = y.shape[-1], depth = w.elements() / channels;
  const Statistics<T> statistics{y.as<T>(), static_cast<int>(channels)};
  const StoreSums<2> finish{{sums, sums + channels}};
  constexpr int kMost = L::kOverlap ? kMostOfWindow : INT32_MAX;
  dispatch_width<kMost>(depth, channels, [&](auto width) {
    run_product<T, false, width()>(s, x, rows_of_x, rows_of(y), depth, w, channels, statistics, scratch, finish);
  });
}

template <class T, Gate kGate, bool kSecond, class G>
void run_dgrad(Stream s, const Tensor& dy, const Tensor& w, const GradientJoinArgs& end, const G& finish) {
  const ProductJoin<T, kGate, kSecond> join{Join<T, kGate, kSecond>(s, end)};
  const int channels = join.join.channels;
  dispatch_width(dy.shape[-1], channels, [&](auto width) {
    const int64_t depth = dy.shape[-1];
    run_product<T, true, width()>(s, dy, PlainRows{depth}, rows_of(dy), depth, w, channels, join, end.scratch, finish);
  });
}

}  // namespace

bool pointwise_on_cpu() {
#if defined(__CUDACC__)
  return false;
#else
  return true;
#endif
}

int64_t pointwise_scratch(int64_t rows, int64_t depth, int64_t channels, int sums) {
  return ProductTiles(rows, depth, channels).chunks * sums * channels * 4;
}

void pointwise_stats(Stream s, const Tensor& x, const Tensor& w, const Tensor& y, const void* scale_bias,
                     float* scratch, float* sums) {
  const int64_t depth = w.shape[-1];
  check(x, w, depth, y.shape[-1]);
  const PlainRows plain{depth};
  if (scale_bias != nullptr) {
    if (x.dtype != DType::f16) throw Error("a prologue of f16, found " + std::string(name_of(x.dtype)));
    const auto* const scale = static_cast<const f16*>(scale_bias);
    return run_stats<f16>(s, x, NormalisedRows{plain, scale, scale + depth}, w, y, scratch, sums);
  }
  dispatch_half(x.dtype, [&](auto t) { run_stats<decltype(t)>(s, x, plain, w, y, scratch, sums); });
}

void window_stats(Stream s, const Tensor& x, const Tensor& w, const Tensor& y, float* scratch, float* sums) {
  check(x, w, w.shape[3], y.shape[3]);
  const Shape fits{x.shape[0], x.shape[1] - w.shape[1] + 1, x.shape[2] - w.shape[2] + 1, w.shape[0]};
  if (!(y.shape == fits))
    throw ShapeError("a convolution without padding of " + x.shape.to_string() + " by weights " + w.shape.to_string() +
                     ": expected results " + fits.to_string() + ", found " + y.shape.to_string());
  if (y.shape[3] > kMostOfWindow)
    throw ShapeError("windows of at most " + std::to_string(kMostOfWindow) + " results each, found " +
                     std::to_string(y.shape[3]));
  const auto depth = static_cast<int>(x.shape[3]);
  const WindowRows windows{Grid(y),
                           x.shape[1],
                           x.shape[2],
                           depth,
                           static_cast<int>(w.shape[2]) * depth,
                           static_cast<int>(x.shape[2]) * depth};
  dispatch_half(x.dtype, [&](auto t) { run_stats<decltype(t)>(s, x, windows, w, y, scratch, sums); });
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
