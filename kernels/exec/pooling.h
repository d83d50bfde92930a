// The geometry of pooling windows over NHWC pictures, and max pooling over whatever a source makes of a picture.
#pragma once

#include "exec/elementary.h"
#include "exec/windows.h"
#include "pool.h"

namespace convolt {

// The picture's side (in), the pooled side (out), and the window between them.
struct Pooling {
  Grid in, out;
  int channels;
  PoolWindow window;
  Divisor by_stride_h, by_stride_w;
};
// Throws ShapeError naming `op` where the two shapes and the window do not belong together.
Pooling pooling_of(const char* op, const Tensor& picture, const Tensor& pooled, const PoolWindow& window);

struct Range {
  int first, last;  // [first, last)
};
// The part of the window at `out` that lies inside the picture, as offsets from the window's start.
HD Range inside(int out, int kernel, int stride, int pad, int extent) {
  const int start = out * stride - pad;
  return {start < 0 ? -start : 0, start + kernel < extent ? kernel : extent - start};
}
// The windows that cover `in`.
HD Range covering(int in, int kernel, const Divisor& by_stride, int pad, int windows) {
  const int behind = in + pad - kernel;  // the last window start that no longer reaches
  const int last = static_cast<int>(by_stride.quotient(in + pad)) + 1;
  return {behind < 0 ? 0 : static_cast<int>(by_stride.quotient(behind)) + 1, last < windows ? last : windows};
}

HD Inside inside_of(const Pooling& p, int64_t row) {
  const PoolWindow& k = p.window;
  const Pixel o = p.out.pixel(row);
  const Range rh = inside(o.h, k.kernel_h, k.stride_h, k.pad.top, p.in.h);
  const Range rw = inside(o.w, k.kernel_w, k.stride_w, k.pad.left, p.in.w);
  const int h = o.h * k.stride_h - k.pad.top + rh.first, w = o.w * k.stride_w - k.pad.left + rw.first;
  return {row * p.channels,
          ((o.n * p.in.h + h) * p.in.w + w) * p.channels,
          rh.last - rh.first,
          rh.first,
          rw.last - rw.first,
          rw.first,
          1.F};
}

// The windows that cover a pixel: oh, ow is the first of them.
struct Covering {
  int64_t in, out;            // first elements of the pixel, and of the first window's pooled pixel
  int rows, oh, columns, ow;  // how many windows, and the first of them; in this order as in Inside
  int position;               // of the pixel in the first window, row by row
};
HD Covering covering_of(const Pooling& p, int64_t row) {
  const PoolWindow& k = p.window;
  const Pixel i = p.in.pixel(row);
  const Range rh = covering(i.h, k.kernel_h, p.by_stride_h, k.pad.top, p.out.h);
  const Range rw = covering(i.w, k.kernel_w, p.by_stride_w, k.pad.left, p.out.w);
  const int r = i.h + k.pad.top - rh.first * k.stride_h, s = i.w + k.pad.left - rw.first * k.stride_w;
  return {row * p.channels,   ((i.n * p.out.h + rh.first) * p.out.w + rw.first) * p.channels,
          rh.last - rh.first, rh.first,
          rw.last - rw.first, rw.first,
          r * k.kernel_w + s};
}

// f of the extents of a covering. Where strides are shorter than windows pixels lie in one or two, either way.
template <class F>
HD auto with_extents(const Covering& over, F f) {
#if !defined(__CUDA_ARCH__)
  if (over.rows == 1 && over.columns == 1) return f(Known<1, 1>{});
  if (over.rows == 1 && over.columns == 2) return f(Known<1, 2>{});
  if (over.rows == 2 && over.columns == 1) return f(Known<2, 1>{});
  if (over.rows == 2 && over.columns == 2) return f(Known<2, 2>{});
#endif
  return f(Unknown{over.rows, over.columns});
}

// The source's at<W>(i, c): W channels from c at element i of the picture; address(i): where they come from.
template <class T, class Source, bool kIndex>
struct MaxPool {
  Source source;
  Result<T> y;
  Result<uint8_t> index;
  Pooling p;

  template <int W>
  struct Sums {
    Floats<W> best, where;
  };
  HD int channels() const { return p.channels; }
  HD int64_t line_elements() const { return int64_t{p.in.w} * p.channels; }
  HD const void* address(int64_t i) const { return source.address(i); }
  HD Inside at(int64_t row) const { return inside_of(p, row); }
  HD float position(const Inside& part, int r, int s) const {
    return static_cast<float>((part.skipped_rows + r) * p.window.kernel_w + part.skipped_columns + s);
  }
  template <int W>
  HD void begin(const Inside& part, Sums<W>& sums) const {
    const float first = position(part, 0, 0);
    for_lanes<W>([&](int j) {
      sums.best[j] = -INFINITY;  // the first position stays where nothing is larger
      sums.where[j] = first;
    });
  }
  template <int W>
  HD void take(Sums<W>& sums, int64_t i, int c, float here) const {
    const Floats<W> v = source.template at<W>(i, c);
    for_lanes<W>([&](int j) {
      const float best = sums.best[j];
      const bool larger = !(v[j] <= best) & (best == best);  // the first NaN wins
      sums.best[j] = choose(larger, v[j], best);
      if constexpr (kIndex) sums.where[j] = choose(larger, here, sums.where[j]);
    });
  }
  template <int W>
  HD void end_line(Sums<W>&) const {}
  template <int W>
  HD void finish(const Inside& part, int c, const Sums<W>& sums) const {
    store(y + part.out + c, sums.best);
    if constexpr (kIndex) store(index + part.out + c, sums.where);
  }
};

// The gradient of one picture element: the sum over the windows that cover it, of those gradients that came from it.
// kTwo: the windows' gradients are sums of two.
template <class T, bool kTwo = false>
struct MaxPoolGather {
  const T *dy, *dy2;
  const uint8_t* index;
  Pooling p;
  template <int W>
  HD Floats<W> at(const Covering& over, int c) const {
    return with_extents(over, [&](auto extents) { return sum<W>(over, c, extents); });
  }
  template <int W, class Extents>
  HD Floats<W> sum(const Covering& over, int c, Extents extents) const {
    const auto down = static_cast<float>(p.window.stride_h * p.window.kernel_w);
    const auto right = static_cast<float>(p.window.stride_w);
    auto sum = zeros<W>();
    int64_t line = over.out + c;
    auto first = static_cast<float>(over.position);
    for (int i = 0; i < extents.rows; ++i, line += int64_t{p.out.w} * p.channels, first -= down) {
      int64_t o = line;
      float position = first;  // in the window at o
#if defined(__CUDA_ARCH__)
#pragma unroll 1  // few windows cover a pixel, and more of them at once would spill
#endif
      for (int j = 0; j < extents.columns; ++j, o += p.channels, position -= right) {
        Floats<W> g = load_ahead<W>(dy + o);
        const Floats<W> where = load<W>(index + o);
        if constexpr (kTwo) {
          const Floats<W> other = load<W>(dy2 + o);
          for_lanes<W>([&](int l) { g[l] += other[l]; });
          g = rounded<T>(g);  // as if the sum had been stored
        }
        for_lanes<W>([&](int l) { sum[l] += choose(where[l] == position, g[l], 0.F); });
      }
    }
    return sum;
  }
};

}  // namespace convolt
