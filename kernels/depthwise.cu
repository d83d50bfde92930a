#include "depthwise.h"

#include "exec/convolve.h"
#include "exec/grid.h"

namespace convolt {
namespace {

// Either direction for any strides and channels, each pixel of out by itself.
template <class T, bool kSpread>
struct Pixelwise {
  Operands<T> o;
  Grid out;
  template <int W>
  HD void run(int64_t row, int c) const {
    const ConvWindow& k = o.window;
    const Pixel p = out.pixel(row);
    Lanes<W> sum[1] = {};
    for (int r = 0; r < k.kernel; ++r) {
      const int h = source(p.h, r, k.stride_h, k.pad.top, o.in.h);
      if (h < 0) continue;
#if defined(__CUDA_ARCH__)
#pragma unroll 1  // unrolled it would spill
#endif
      for (int s = 0; s < k.kernel; ++s)
        if (const int w = source(p.w, s, k.stride_w, k.pad.left, o.in.w); w >= 0)
          add_product(sum[0], load_lanes<W>(o.in.at(p.n, h, w, c)),
                      load_lanes<W>(o.taps + (r * k.kernel + s) * o.tap_step + c));
    }
    o.put(o.out.data + (row * o.out.channels + c), c, sum, {0, 1});
  }

private:
  // The row (column) of in that tap r takes to row `to` of out; negative where there is none.
  HD static int source(int to, int r, int stride, int pad, int extent) {
    const int from = kSpread ? to + pad - r : to * stride - pad + r;
    if constexpr (!kSpread) return from < extent ? from : -1;
    return from % stride == 0 && from / stride < extent ? from / stride : -1;
  }
};

template <class T>
struct Transpose {
  const T* w;
  float* taps;
  Divisor by_channels;
  int channels, count;
  HD void operator()(int64_t i) const {
    const int64_t t = by_channels.quotient(i);
    taps[i] = static_cast<float>(w[(i - t * channels) * count + t]);
  }
};

template <template <class, int, int, int, int, Reads> class F, int K, int S, class T>
void walk(Stream s, int64_t pictures, const Operands<T>& o) {
  if (s.cuda) return run_on_cuda<F, K, S, depthwise_lanes<T>(K), 1>(s, pictures, o);
  run_on_cpu<F, K, S, 8, 1>(pictures, o);
}
template <template <class, int, int, int, int, Reads> class F, int S, class T>
void walk(Stream s, int64_t pictures, const Operands<T>& o) {
  if (o.window.kernel == 3) return walk<F, 3, S>(s, pictures, o);
  if (o.window.kernel == 5) return walk<F, 5, S>(s, pictures, o);
  walk<F, 7, S>(s, pictures, o);
}

template <class T>
bool walks(Stream s, const Operands<T>& o) {
  const int lanes = s.cuda ? depthwise_lanes<T>(o.window.kernel) : 8;
  return o.window.stride_h == o.window.stride_w && o.out.channels % lanes == 0;
}

template <bool kSpread, class T>
void pixelwise(Stream s, int64_t pictures, const Operands<T>& o) {
  for_each_channel_packet<T>(s, pictures * o.out.h * o.out.w, o.out.channels,
                             Pixelwise<T, kSpread>{o, Grid(o.out.h, o.out.w)});
}

}  // namespace

void depthwise_taps(Stream s, const Tensor& w, float* taps) {
  dispatch_float(w.dtype, "depthwise_taps", [&](auto t) {
    using T = decltype(t);
    const int channels = static_cast<int>(w.shape[0]), count = static_cast<int>(w.elements() / channels);
    for_each(s, w.elements(), Transpose<T>{w.as<const T>(), taps, Divisor(channels), channels, count});
  });
}

void depthwise(Stream s, const Tensor& x, const float* taps, const Tensor& y, const ConvWindow& window,
               const ConvFinish& finish) {
  dispatch_float(x.dtype, "depthwise", [&](auto t) {
    const auto o = operands<decltype(t)>(x, taps, y, 1, window, finish);
    if (!walks(s, o)) return pixelwise<false>(s, x.shape[0], o);
    if (window.stride_h == 1) return walk<Correlate, 1>(s, x.shape[0], o);
    walk<Correlate, 2>(s, x.shape[0], o);
  });
}

void depthwise_dgrad(Stream s, const Tensor& dy, const float* taps, const Tensor& dx, const ConvWindow& window) {
  dispatch_float(dy.dtype, "depthwise_dgrad", [&](auto t) {
    const auto o = operands<decltype(t)>(dy, taps, dx, 1, window, {});
    if (!walks(s, o)) return pixelwise<true>(s, dy.shape[0], o);
    if (window.stride_h == 1) return walk<Correlate, 1>(s, dy.shape[0], reversed(o));
    walk<Spread, 2>(s, dy.shape[0], o);
  });
}

}  // namespace convolt
