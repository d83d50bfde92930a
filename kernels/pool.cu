#include "pool.h"

#include "exec/pooling.h"
#include "exec/reduce.h"

namespace convolt {
namespace {

// How many rows or columns of the window an average divides by: those inside the picture, or inside the padded picture.
HD int counted(int out, int kernel, int stride, int before, int extent, int after, bool include_pad) {
  const Range r = inside(out, kernel, stride, before, extent + (include_pad ? after : 0));
  return r.last - (include_pad ? 0 : r.first);
}
HD int counted_rows(const Pooling& p, int oh) {
  const PoolWindow& k = p.window;
  return counted(oh, k.kernel_h, k.stride_h, k.pad.top, p.in.h, k.pad.bottom, k.count_include_pad);
}
HD int counted_columns(const Pooling& p, int ow) {
  const PoolWindow& k = p.window;
  return counted(ow, k.kernel_w, k.stride_w, k.pad.left, p.in.w, k.pad.right, k.count_include_pad);
}
template <class T>
struct Elements {
  const T* x;
  template <int W>
  HD Floats<W> at(int64_t i, int /*c*/) const {
    return load<W>(x + i);
  }
};

template <class T>
struct MaxPoolBackward {
  MaxPoolGather<T> gather;
  T* dx;
  template <int W>
  HD void run(int64_t row, int c) const {
    store(dx + row * gather.p.channels + c, gather.template at<W>(row, c));
  }
};

// The same where windows lie side by side and cover the picture: each is read once, and writes all it covers.
template <class T>
struct MaxPoolBackwardApart {
  const T* dy;
  const uint8_t* index;
  T* dx;
  Pooling p;
  template <int W>
  HD void run(int64_t row, int c) const {
    const PoolWindow& k = p.window;
    const Pixel o = p.out.pixel(row);
    const int64_t from = row * p.channels + c, line = int64_t{p.in.w} * p.channels;
    const Floats<W> g = load<W>(dy + from), where = load<W>(index + from);
    T* const first = dx + (o.n * p.in.h + o.h * k.kernel_h) * line + int64_t{o.w} * k.kernel_w * p.channels + c;
    float position = 0;
    for (int r = 0; r < k.kernel_h; ++r)
      for (int s = 0; s < k.kernel_w; ++s, ++position) {
        Floats<W> v;
        for_lanes<W>([&](int j) { v[j] = where[j] == position ? g[j] : 0.F; });
        store(first + r * line + int64_t{s} * p.channels, v);
      }
  }
};
bool lie_apart(const Pooling& p) {
  const PoolWindow& k = p.window;
  return k.stride_h == k.kernel_h && k.stride_w == k.kernel_w && k.pad == Padding() && p.out.h * k.kernel_h == p.in.h &&
         p.out.w * k.kernel_w == p.in.w;
}

template <class T>
struct AvgPool {
  const T* x;
  T* y;
  Pooling p;
  template <int W>
  HD void run(int64_t row, int c) const {
    const PoolWindow& k = p.window;
    const Pixel o = p.out.pixel(row);
    const Range rh = inside(o.h, k.kernel_h, k.stride_h, k.pad.top, p.in.h);
    const Range rw = inside(o.w, k.kernel_w, k.stride_w, k.pad.left, p.in.w);
    const int h0 = o.h * k.stride_h - k.pad.top, w0 = o.w * k.stride_w - k.pad.left;
    Floats<W> sum = {};
    for (int r = rh.first; r < rh.last; ++r)
      for (int s = rw.first; s < rw.last; ++s) {
        const Floats<W> v = load<W>(x + ((o.n * p.in.h + h0 + r) * p.in.w + w0 + s) * p.channels + c);
        for_lanes<W>([&](int j) { sum[j] += v[j]; });
      }
    const float scale = 1.F / static_cast<float>(counted_rows(p, o.h) * counted_columns(p, o.w));
    for_lanes<W>([&](int j) { sum[j] *= scale; });
    store(y + row * p.channels + c, sum);
  }
};

template <class T>
struct AvgPoolBackward {
  const T* dy;
  T* dx;
  Pooling p;
  template <int W>
  HD void run(int64_t row, int c) const {
    const PoolWindow& k = p.window;
    const Pixel i = p.in.pixel(row);
    const Range rh = covering(i.h, k.kernel_h, k.stride_h, k.pad.top, p.out.h);
    const Range rw = covering(i.w, k.kernel_w, k.stride_w, k.pad.left, p.out.w);
    Floats<W> sum = {};
    for (int oh = rh.first; oh < rh.last; ++oh) {
      const int rows = counted_rows(p, oh);
      const T* line = dy + ((i.n * p.out.h + oh) * p.out.w) * p.channels + c;
      for (int ow = rw.first; ow < rw.last; ++ow) {
        const float scale = 1.F / static_cast<float>(rows * counted_columns(p, ow));
        const Floats<W> g = load<W>(line + int64_t{ow} * p.channels);
        for_lanes<W>([&](int j) { sum[j] += g[j] * scale; });
      }
    }
    store(dx + row * p.channels + c, sum);
  }
};

// Sums line by line, then the lines: a large picture costs little accuracy.
template <class T>
struct GlobalAvgPool {
  const T* x;
  T* y;
  int h, w, channels;
  template <int W>
  HD void run(int64_t n, int c) const {
    const float scale = 1.F / (static_cast<float>(h) * static_cast<float>(w));
    Floats<W> sum = {};
    for (int row = 0; row < h; ++row) {
      Floats<W> line = {};
      for (int column = 0; column < w; ++column) {
        const Floats<W> v = load<W>(x + ((n * h + row) * w + column) * channels + c);
        for_lanes<W>([&](int j) { line[j] += v[j]; });
      }
      for_lanes<W>([&](int j) { sum[j] += line[j]; });
    }
    for_lanes<W>([&](int j) { sum[j] *= scale; });
    store(y + n * channels + c, sum);
  }
};

template <class T>
struct GlobalAvgPoolBackward {
  const T* dy;
  T* dx;
  Divisor by_pixels;
  float scale;
  int channels;
  template <int W>
  HD void run(int64_t row, int c) const {
    Floats<W> g = load<W>(dy + by_pixels.quotient(row) * channels + c);
    for_lanes<W>([&](int j) { g[j] *= scale; });
    store(dx + row * channels + c, g);
  }
};

// The part of `from` pixels that pixel i of `to` averages over, when both cover the same picture. With the extents
// exchanged: the averages that read a pixel, since that relation is symmetric. Extents below 46341, so that the
// products fit 32 bits, whose division is cheap.
HD Range shared(int i, int from, int to) { return {i * from / to, ((i + 1) * from + to - 1) / to}; }

template <class T>
struct AdaptiveAvgPool {
  const T* x;
  T* y;
  Grid in, out;
  int channels;
  template <int W>
  HD void run(int64_t row, int c) const {
    const Pixel o = out.pixel(row);
    const Range rh = shared(o.h, in.h, out.h), rw = shared(o.w, in.w, out.w);
    Floats<W> sum = {};
    for (int h = rh.first; h < rh.last; ++h) {
      Floats<W> line = {};
      for (int w = rw.first; w < rw.last; ++w) {
        const Floats<W> v = load<W>(x + ((o.n * in.h + h) * in.w + w) * channels + c);
        for_lanes<W>([&](int j) { line[j] += v[j]; });
      }
      for_lanes<W>([&](int j) { sum[j] += line[j]; });
    }
    const float scale = 1.F / static_cast<float>((rh.last - rh.first) * (rw.last - rw.first));
    for_lanes<W>([&](int j) { sum[j] *= scale; });
    store(y + row * channels + c, sum);
  }
};

template <class T>
struct AdaptiveAvgPoolBackward {
  const T* dy;
  T* dx;
  Grid in, out;
  int channels;
  template <int W>
  HD void run(int64_t row, int c) const {
    const Pixel i = in.pixel(row);
    const Range rh = shared(i.h, out.h, in.h), rw = shared(i.w, out.w, in.w);
    Floats<W> sum = {};
    for (int oh = rh.first; oh < rh.last; ++oh) {
      const Range lines = shared(oh, in.h, out.h);
      for (int ow = rw.first; ow < rw.last; ++ow) {
        const Range columns = shared(ow, in.w, out.w);
        const float scale = 1.F / static_cast<float>((lines.last - lines.first) * (columns.last - columns.first));
        const Floats<W> g = load<W>(dy + ((i.n * out.h + oh) * out.w + ow) * channels + c);
        for_lanes<W>([&](int j) { sum[j] += g[j] * scale; });
      }
    }
    store(dx + row * channels + c, sum);
  }
};

// The mean of whole pictures as a reduction, where one thread for each mean would be too few.
template <class T>
struct PixelMean {
  const T* x;
  int channels;
  float scale;
  template <int W>
  HD void run(int64_t row, int c, Floats<W> (&sums)[1]) const {
    const Floats<W> v = load<W>(x + row * channels + c);
    for_lanes<W>([&](int j) { sums[0][j] += v[j] * scale; });
  }
};

// `to` takes from `from` the pixel (h * stride, w * stride) and the channel c - shift, 0 where there is none. Backward
// is the same with `spread`: the pixel (h / stride, w / stride), only where both divide.
template <class T, bool kSpread>
struct SlicePad {
  const T* from;
  T* to;
  int from_h, from_w, from_c;
  Grid to_grid;
  int to_c, stride, shift;
  template <int W>
  HD void run(int64_t row, int c) const {
    const Pixel t = to_grid.pixel(row);
    const int source = c - shift;
    Floats<W> v = {};
    const bool on_grid = !kSpread || (t.h % stride == 0 && t.w % stride == 0);
    if (on_grid && source >= 0 && source < from_c) {
      const int h = kSpread ? t.h / stride : t.h * stride, w = kSpread ? t.w / stride : t.w * stride;
      v = load<W>(from + ((t.n * from_h + h) * from_w + w) * from_c + source);
    }
    store(to + row * to_c + c, v);
  }
};

int extent(const Tensor& x, int i) { return static_cast<int>(x.shape[i]); }

template <bool kSpread>
void slice_pad_either(Stream s, const char* op, const Tensor& from, const Tensor& to, int stride, int shift) {
  dispatch_float(from.dtype, op, [&](auto t) {
    using T = decltype(t);
    const Grid grid(extent(to, 1), extent(to, 2));
    const SlicePad<T, kSpread> f{from.as<const T>(), to.as<T>(),      extent(from, 1),
                                 extent(from, 2),    extent(from, 3), grid,
                                 extent(to, 3),      stride,          shift};
    const int64_t rows = to.shape[0] * to.shape[1] * to.shape[2];
    if (f.from_c % 8 == 0 && f.to_c % 8 == 0 && shift % 8 == 0)
      for_each_channel_packet_of<8>(s, rows, f.to_c, f);
    else
      for_each_channel_packet_of<1>(s, rows, f.to_c, f);
  });
}

int64_t pooled_extent(int64_t extent, int before, int after, int kernel, int stride, bool ceil_mode) {
  const int64_t room = extent + before + after - kernel + (ceil_mode ? stride - 1 : 0);
  if (room < 0) return 0;
  const int64_t windows = room / stride + 1;
  return ceil_mode && (windows - 1) * stride >= extent + before ? windows - 1 : windows;
}

}  // namespace

Pooling pooling_of(const char* op, const Tensor& picture, const Tensor& pooled, const PoolWindow& k) {
  const Pooling p{
      {extent(picture, 1), extent(picture, 2)}, {extent(pooled, 1), extent(pooled, 2)}, extent(picture, 3), k};
  if (!k.pad_fits())
    throw ShapeError(std::string(op) + ": padding may be at most half of the window, found " + k.pad.to_string() +
                     " for a window of " + std::to_string(k.kernel_h) + "x" + std::to_string(k.kernel_w));
  const Shape expected = k.pooled(picture.shape);
  if (pooled.shape != expected)
    throw ShapeError(std::string(op) + " of " + picture.shape.to_string() + " expects the pooled shape " +
                     expected.to_string() + ", found " + pooled.shape.to_string());
  return p;
}

bool PoolWindow::pad_fits() const {
  return pad.top >= 0 && pad.left >= 0 && pad.bottom >= 0 && pad.right >= 0 &&
         std::max(pad.top, pad.bottom) <= kernel_h / 2 && std::max(pad.left, pad.right) <= kernel_w / 2;
}

Shape PoolWindow::pooled(const Shape& x) const {
  return {x[0], pooled_extent(x[1], pad.top, pad.bottom, kernel_h, stride_h, ceil_mode),
          pooled_extent(x[2], pad.left, pad.right, kernel_w, stride_w, ceil_mode), x[3]};
}

void max_pool(Stream s, const Tensor& x, const Tensor& y, const Tensor& index, const PoolWindow& window) {
  const Pooling p = pooling_of("max_pool", x, y, window);
  if (window.kernel_h * window.kernel_w > 255)
    throw ShapeError("max_pool takes windows of at most 255 elements, found " + std::to_string(window.kernel_h) + "x" +
                     std::to_string(window.kernel_w));
  const int64_t rows = y.elements() / p.channels;
  dispatch_float(x.dtype, "max_pool", [&](auto t) {
    using T = decltype(t);
    if (index.data)
      for_each_channel_packet(s, rows, p.channels,
                              MaxPool<T, Elements<T>, true>{{x.as<const T>()}, y.as<T>(), index.as<uint8_t>(), p});
    else
      for_each_channel_packet(s, rows, p.channels,
                              MaxPool<T, Elements<T>, false>{{x.as<const T>()}, y.as<T>(), nullptr, p});
  });
}

void max_pool_backward(Stream s, const Tensor& dy, const Tensor& index, const Tensor& dx, const PoolWindow& window) {
  const Pooling p = pooling_of("max_pool_backward", dx, dy, window);
  dispatch_float(dy.dtype, "max_pool_backward", [&](auto t) {
    using T = decltype(t);
    const auto* gradients = dy.as<const T>();
    const auto* positions = index.as<const uint8_t>();
    if (lie_apart(p))
      for_each_channel_packet(s, dy.elements() / p.channels, p.channels,
                              MaxPoolBackwardApart<T>{gradients, positions, dx.as<T>(), p});
    else
      for_each_channel_packet(s, dx.elements() / p.channels, p.channels,
                              MaxPoolBackward<T>{{gradients, positions, p}, dx.as<T>()});
  });
}

void avg_pool(Stream s, const Tensor& x, const Tensor& y, const PoolWindow& window) {
  const Pooling p = pooling_of("avg_pool", x, y, window);
  dispatch_float(x.dtype, "avg_pool", [&](auto t) {
    using T = decltype(t);
    for_each_channel_packet(s, y.elements() / p.channels, p.channels, AvgPool<T>{x.as<const T>(), y.as<T>(), p});
  });
}

void avg_pool_backward(Stream s, const Tensor& dy, const Tensor& dx, const PoolWindow& window) {
  const Pooling p = pooling_of("avg_pool_backward", dx, dy, window);
  dispatch_float(dy.dtype, "avg_pool_backward", [&](auto t) {
    using T = decltype(t);
    for_each_channel_packet(s, dx.elements() / p.channels, p.channels,
                            AvgPoolBackward<T>{dy.as<const T>(), dx.as<T>(), p});
  });
}

void global_avg_pool(Stream s, const Tensor& x, const Tensor& y) {
  dispatch_float(x.dtype, "global_avg_pool", [&](auto t) {
    using T = decltype(t);
    const GlobalAvgPool<T> f{x.as<const T>(), y.as<T>(), extent(x, 1), extent(x, 2), extent(x, 3)};
    for_each_channel_packet(s, x.shape[0], f.channels, f);
  });
}

void global_avg_pool_backward(Stream s, const Tensor& dy, const Tensor& dx) {
  dispatch_float(dy.dtype, "global_avg_pool_backward", [&](auto t) {
    using T = decltype(t);
    const int64_t pixels = dx.shape[1] * dx.shape[2];
    const float scale = 1.F / static_cast<float>(pixels);
    for_each_channel_packet(
        s, dx.shape[0] * pixels, extent(dx, 3),
        GlobalAvgPoolBackward<T>{dy.as<const T>(), dx.as<T>(), Divisor(pixels), scale, extent(dx, 3)});
  });
}

void adaptive_avg_pool(Stream s, const Tensor& x, const Tensor& y) {
  const Grid in(extent(x, 1), extent(x, 2)), out(extent(y, 1), extent(y, 2));
  const int channels = extent(x, 3);
  const int64_t pixels = int64_t{in.h} * in.w;
  dispatch_float(x.dtype, "adaptive_avg_pool", [&](auto t) {
    using T = decltype(t);
    if (out.h == 1 && out.w == 1)
      reduce_chunks<1>(s, x.shape[0] * pixels, channels, pixels, y.as<T>(),
                       PixelMean<T>{x.as<const T>(), channels, 1.F / static_cast<float>(pixels)});
    else
      for_each_channel_packet(s, y.elements() / channels, channels,
                              AdaptiveAvgPool<T>{x.as<const T>(), y.as<T>(), in, out, channels});
  });
}

void adaptive_avg_pool_backward(Stream s, const Tensor& dy, const Tensor& dx) {
  const Grid in(extent(dx, 1), extent(dx, 2)), out(extent(dy, 1), extent(dy, 2));
  const int channels = extent(dx, 3);
  dispatch_float(dy.dtype, "adaptive_avg_pool_backward", [&](auto t) {
    using T = decltype(t);
    for_each_channel_packet(s, dx.elements() / channels, channels,
                            AdaptiveAvgPoolBackward<T>{dy.as<const T>(), dx.as<T>(), in, out, channels});
  });
}

void slice_pad(Stream s, const Tensor& x, const Tensor& y, int stride, int channels_before) {
  slice_pad_either<false>(s, "slice_pad", x, y, stride, channels_before);
}

void slice_pad_backward(Stream s, const Tensor& dy, const Tensor& dx, int stride, int channels_before) {
  slice_pad_either<true>(s, "slice_pad_backward", dy, dx, stride, -channels_before);
}

}  // namespace convolt
