// The geometry of pooling windows over NHWC pictures, and max pooling over whatever a source makes of a picture.
#pragma once

#include "exec/grid.h"
#include "exec/types.h"
#include "pool.h"

namespace convolt {

// The picture's side (in), the pooled side (out), and the window between them.
struct Pooling {
  Grid in, out;
  int channels;
  PoolWindow window;
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
HD Range covering(int in, int kernel, int stride, int pad, int windows) {
  const int behind = in + pad - kernel;  // the last window start that no longer reaches
  const int last = (in + pad) / stride + 1;
  return {behind < 0 ? 0 : behind / stride + 1, last < windows ? last : windows};
}

// source.at<W>(i, c): W channels from c at element i of the picture.
template <class T, class Source, bool kIndex>
struct MaxPool {
  Source source;
  T* y;
  uint8_t* index;
  Pooling p;
  template <int W>
  HD void run(int64_t row, int c) const {
    const PoolWindow& k = p.window;
    const Pixel o = p.out.pixel(row);
    const Range rh = inside(o.h, k.kernel_h, k.stride_h, k.pad.top, p.in.h);
    const Range rw = inside(o.w, k.kernel_w, k.stride_w, k.pad.left, p.in.w);
    const int h0 = o.h * k.stride_h - k.pad.top, w0 = o.w * k.stride_w - k.pad.left;
    Floats<W> best, where;
    for_lanes<W>([&](int j) {
      best[j] = -INFINITY;  // the first position stays where nothing is larger
      where[j] = static_cast<float>(rh.first * k.kernel_w + rw.first);
    });
    for (int r = rh.first; r < rh.last; ++r)
      for (int s = rw.first; s < rw.last; ++s) {
        const Floats<W> v = source.template at<W>(((o.n * p.in.h + h0 + r) * p.in.w + w0 + s) * p.channels + c, c);
        const auto position = static_cast<float>(r * k.kernel_w + s);
        for_lanes<W>([&](int j) {
          const bool take = (v[j] > best[j]) | ((v[j] != v[j]) & (best[j] == best[j]));  // the first NaN wins
          best[j] = take ? v[j] : best[j];
          if constexpr (kIndex) where[j] = take ? position : where[j];
        });
      }
    store(y + row * p.channels + c, best);
    if constexpr (kIndex) store(index + row * p.channels + c, where);
  }
};

// The gradient of one picture element: the sum over the windows that cover it, of those gradients that came from it.
template <class T>
struct MaxPoolGather {
  const T* dy;
  const uint8_t* index;
  Pooling p;
  template <int W>
  HD Floats<W> at(int64_t row, int c) const {
    const PoolWindow& k = p.window;
    const Pixel i = p.in.pixel(row);
    const Range rh = covering(i.h, k.kernel_h, k.stride_h, k.pad.top, p.out.h);
    const Range rw = covering(i.w, k.kernel_w, k.stride_w, k.pad.left, p.out.w);
    Floats<W> sum = {};
    for (int oh = rh.first; oh < rh.last; ++oh)
      for (int ow = rw.first; ow < rw.last; ++ow) {
        const int64_t o = ((i.n * p.out.h + oh) * p.out.w + ow) * p.channels + c;
        const int r = i.h + k.pad.top - oh * k.stride_h, s = i.w + k.pad.left - ow * k.stride_w;
        const auto position = static_cast<float>(r * k.kernel_w + s);
        const Floats<W> g = load<W>(dy + o), where = load<W>(index + o);
        for_lanes<W>([&](int j) { sum[j] += where[j] == position ? g[j] : 0.F; });
      }
    return sum;
  }
};

}  // namespace convolt
