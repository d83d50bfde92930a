// What pool.h has besides windows of one size: means of whole pictures and of equal parts of them, and slices.
#include "pool.h"

#include "exec/reduce.h"
#include "exec/windows.h"

namespace convolt {
namespace {

int extent(const Tensor& x, int i) { return static_cast<int>(x.shape[i]); }

// The mean of whole pictures as a reduction.
template <class T>
struct PixelMean : RowsOfOne<T> {
  float scale;
  template <int W>
  HD void add(int64_t, int, const Ahead<T, W>& o, Nothing, Floats<W> (&sums)[1]) const {
    const Floats<W> v = o.of_existing();
    for_lanes<W>([&](int j) { sums[0][j] += v[j] * scale; });
  }
};

template <class T>
struct GlobalAvgPoolBackward {
  const T* dy;
  Result<T> dx;
  Divisor by_pixels;
  float scale;
  int channels;
  struct Place {
    int64_t from, to;
  };
  HD Place at(int64_t row) const { return {by_pixels.quotient(row) * channels, row * channels}; }
  template <int W>
  HD void run(const Place& place, int c) const {
    Floats<W> g = load<W>(dy + place.from + c);
    for_lanes<W>([&](int j) { g[j] *= scale; });
    store(dx + place.to + c, g);
  }
};

struct Range {
  int first, last;  // [first, last)
};
// The part of `from` pixels that pixel i of `to` averages over, when both cover the same picture. With the extents
// exchanged: the averages that read a pixel, since that relation is symmetric. Extents below 46341, so that the
// products fit 32 bits, whose division is cheap.
HD Range shared(int i, int from, int to) { return {i * from / to, ((i + 1) * from + to - 1) / to}; }

struct AdaptiveWindows {
  Grid in, out;
  int channels_;
  HD int channels() const { return channels_; }
  HD int64_t line_elements() const { return int64_t{in.w} * channels_; }
  HD Inside at(int64_t row) const {
    const Pixel o = out.pixel(row);
    const Range rh = shared(o.h, in.h, out.h), rw = shared(o.w, in.w, out.w);
    const int rows = rh.last - rh.first, columns = rw.last - rw.first;
    return {row * channels_,
            ((o.n * in.h + rh.first) * in.w + rw.first) * channels_,
            rows,
            0,
            columns,
            0,
            1.F / static_cast<float>(rows * columns)};
  }
};

template <class T>
struct AdaptiveAvgPoolBackward {
  const T* dy;
  Result<T> dx;
  Grid in, out;
  int channels;
  struct Place {
    int64_t in, out;  // first elements of the pixel, and of the first average that reads it
    Range rows, columns;
    float scale;  // of that average
  };
  HD float scale_of(int oh, int ow) const {
    const Range lines = shared(oh, in.h, out.h), columns = shared(ow, in.w, out.w);
    return 1.F / static_cast<float>((lines.last - lines.first) * (columns.last - columns.first));
  }
  HD Place at(int64_t row) const {
    const Pixel i = in.pixel(row);
    const Range rh = shared(i.h, out.h, in.h), rw = shared(i.w, out.w, in.w);
    return {row * channels, ((i.n * out.h + rh.first) * out.w + rw.first) * channels, rh, rw,
            scale_of(rh.first, rw.first)};
  }
  template <int W>
  HD void run(const Place& place, int c) const {
#if !defined(__CUDA_ARCH__)
    if (place.rows.last - place.rows.first == 1 && place.columns.last - place.columns.first == 1) {
      Floats<W> g = load<W>(dy + place.out + c);                      // most pixels are read by one
      for_lanes<W>([&](int j) { g[j] = 0.F + g[j] * place.scale; });  // -0 becomes 0, as in the sums below
      return store(dx + place.in + c, g);
    }
#endif
    auto sum = zeros<W>();
    const T* line = dy + place.out + c;
    for (int oh = place.rows.first; oh < place.rows.last; ++oh, line += int64_t{out.w} * channels)
      for (int ow = place.columns.first; ow < place.columns.last; ++ow) {
        const bool first = oh == place.rows.first && ow == place.columns.first;
        const float scale = first ? place.scale : scale_of(oh, ow);
        const Floats<W> g = load<W>(line + (ow - place.columns.first) * channels);
        for_lanes<W>([&](int j) { sum[j] += g[j] * scale; });
      }
    store(dx + place.in + c, sum);
  }
};

// `to` takes from `from` the pixel (h * stride, w * stride) and the channel c - shift, 0 where there is none. Backward
// is the same with `spread`: the pixel (h / stride, w / stride), only where both divide.
template <class T, bool kSpread>
struct SlicePad {
  const T* from;
  Result<T> to;
  int from_h, from_w, from_c;
  Grid to_grid;
  int to_c, stride, shift;
  Divisor by_stride;
  struct Place {
    int64_t from, to;  // from: negative where there is no pixel
  };
  HD Place at(int64_t row) const {
    const Pixel t = to_grid.pixel(row);
    int h = t.h * stride, w = t.w * stride;
    bool on_grid = true;
    if constexpr (kSpread) {
      h = static_cast<int>(by_stride.quotient(t.h));
      w = static_cast<int>(by_stride.quotient(t.w));
      on_grid = h * stride == t.h && w * stride == t.w;
    }
    return {on_grid ? ((t.n * from_h + h) * from_w + w) * from_c : -1, row * to_c};
  }
  template <int W>
  HD void run(const Place& place, int c) const {
    const int source = c - shift;
    Floats<W> v = zeros<W>();
    if (place.from >= 0 && source >= 0 && source < from_c) v = load_ahead<W>(from + place.from + source);
    store(to + place.to + c, v);
  }
};

template <bool kSpread>
void slice_pad_either(Stream s, const char* op, const Tensor& from, const Tensor& to, int stride, int shift) {
  dispatch_float(from.dtype, op, [&](auto t) {
    using T = decltype(t);
    const Grid grid(extent(to, 1), extent(to, 2));
    const SlicePad<T, kSpread> f{from.as<const T>(),
                                 result_of<T>(s, to, {}),
                                 extent(from, 1),
                                 extent(from, 2),
                                 extent(from, 3),
                                 grid,
                                 extent(to, 3),
                                 stride,
                                 shift,
                                 Divisor(stride)};
    const int64_t rows = to.shape[0] * to.shape[1] * to.shape[2];
    for_each_channel_packet<T>(s, rows, f.to_c, f, f.from_c | shift);
  });
}

}  // namespace

void global_avg_pool(Stream s, const Tensor& x, const Tensor& y) {
  const int64_t pixels = x.shape[1] * x.shape[2];
  dispatch_float(x.dtype, "global_avg_pool", [&](auto t) {
    using T = decltype(t);
    reduce_chunks<1>(s, x.shape[0] * pixels, extent(x, 3), pixels, y.as<T>(),
                     PixelMean<T>{{x.as<const T>(), extent(x, 3)}, 1.F / static_cast<float>(pixels)});
  });
}

void global_avg_pool_backward(Stream s, const Tensor& dy, const Tensor& dx) {
  dispatch_float(dy.dtype, "global_avg_pool_backward", [&](auto t) {
    using T = decltype(t);
    const int64_t pixels = dx.shape[1] * dx.shape[2];
    const float scale = 1.F / static_cast<float>(pixels);
    for_each_channel_packet<T>(s, dx.shape[0] * pixels, extent(dx, 3),
                               GlobalAvgPoolBackward<T>{dy.as<const T>(), result_of<T>(s, dx, {dy.data}),
                                                        Divisor(pixels), scale, extent(dx, 3)});
  });
}

void adaptive_avg_pool(Stream s, const Tensor& x, const Tensor& y) {
  const AdaptiveWindows windows{Grid(x), Grid(y), extent(x, 3)};
  if (windows.out.h == 1 && windows.out.w == 1) return global_avg_pool(s, x, y);
  dispatch_float(x.dtype, "adaptive_avg_pool", [&](auto t) {
    using T = decltype(t);
    for_each_window<T>(s, y.elements() / extent(y, 3),
                       WindowMean<T, AdaptiveWindows>{x.as<const T>(), result_of<T>(s, y, {x.data}), windows});
  });
}

void adaptive_avg_pool_backward(Stream s, const Tensor& dy, const Tensor& dx) {
  const Grid in(extent(dx, 1), extent(dx, 2)), out(extent(dy, 1), extent(dy, 2));
  const int channels = extent(dx, 3);
  dispatch_float(dy.dtype, "adaptive_avg_pool_backward", [&](auto t) {
    using T = decltype(t);
    for_each_channel_packet<T>(
        s, dx.elements() / channels, channels,
        AdaptiveAvgPoolBackward<T>{dy.as<const T>(), result_of<T>(s, dx, {dy.data}), in, out, channels});
  });
}

void slice_pad(Stream s, const Tensor& x, const Tensor& y, int stride, int channels_before) {
  slice_pad_either<false>(s, "slice_pad", x, y, stride, channels_before);
}

void slice_pad_backward(Stream s, const Tensor& dy, const Tensor& dx, int stride, int channels_before) {
  slice_pad_either<true>(s, "slice_pad_backward", dy, dx, stride, -channels_before);
}

}  // namespace convolt
