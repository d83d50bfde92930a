#include "depthwise.h"

#include "exec/grid.h"
#include "exec/walk.h"

namespace convolt {
namespace {

// Pictures that are read (in), pictures that are made (out), and the window between them.
template <class T>
struct Operands {
  Pictures<const T> in;
  Pictures<T> out;
  const float* taps;  // tap t of channel c at taps[t * tap_step + c]
  int tap_step;
  DepthwiseWindow window;
  DepthwiseFinish finish;

  // Finishes and stores the sums of one column, from `first` on, where `rows` has them.
  template <int W, int N>
  HD void put(T* first, int c, const Lanes<W> (&sums)[N], Span rows) const {
    Floats<W> v[N];
    unrolled<N>([&](int t) { v[t] = floats(sums[t]); });
    if (finish.bias) {
      const Floats<W> bias = load<W>(finish.bias + c);
      unrolled<N>([&](int t) { for_lanes<W>([&](int j) { v[t][j] += bias[j]; }); });
    }
    if (finish.act != DepthwiseFinish::Act::none) {
      const float high = finish.act == DepthwiseFinish::Act::relu6 ? 6.F : INFINITY;
      unrolled<N>([&](int t) {
        for_lanes<W>([&](int j) {
          const float positive = v[t][j] <= 0 ? 0.F : v[t][j];  // NaN stays NaN
          v[t][j] = positive >= high ? high : positive;
        });
      });
    }
    const int64_t line = int64_t{out.w} * out.channels;
    unrolled<N>([&](int t) {
      if (rows.has(t)) store(first + t * line, v[t]);
    });
  }
};

template <int K, int W, class T>
HD void load_taps(const Operands<T>& o, int c, Lanes<W> (&taps)[K][K]) {
  unrolled<K>(
      [&](int r) { unrolled<K>([&](int s) { taps[r][s] = load_lanes<W>(o.taps + (r * K + s) * o.tap_step + c); }); });
}

// out(h, w) = the sum of in(h * S - top + r, w * S - left + s) * tap(r, s). A thread walks along kHeight rows of out.
template <class T, int K, int S, int W>
struct Correlate {
  static constexpr int kHeight = S == 2 ? (K == 3 && W == 8 ? 1 : 2) : (W == 8 ? 2 : 4);
  static constexpr int kRows = (kHeight - 1) * S + K;
  static constexpr int kOpen = (K + S - 1) / S;  // columns of out that a column of in adds to
  using Pixels = Column<T, W, kRows>[S];
  using Sums = Lanes<W>[kOpen][kHeight];  // of columns q, q - 1, ...
  using Taps = Lanes<W>[K][K];
  Operands<T> o;
  Layout layout;

  HD void operator()(int64_t i) const {
    const Place at = layout.place(i);
    const int c = at.packet * W;
    if (c >= o.out.channels) return;
    Taps taps;
    load_taps<K, W>(o, c, taps);
    const int row = at.strip * kHeight, left = o.window.pad.left;
    Columns<T> in(o.in, at.n, c, row * S - o.window.pad.top, -left);
    T* out = o.out.at(at.n, row, 0, c);
    Sums sums = {};
    Pixels x;
    unrolled<S>([&](int e) { x[e].take(in); });
    for (int q = 0; q < o.out.w + kOpen - 1; ++q) {
      Pixels next;
      unrolled<S>([&](int e) { next[e].take(in); });
      if (q >= kOpen - 1 && q < o.out.w && q * S >= left && q * S + S - left <= o.in.w)
        add(in, x, taps, sums);
      else
        add_existing(in, x, taps, sums, q);
      if (q >= kOpen - 1) {
        o.put(out, c, sums[kOpen - 1], {0, o.out.h - row});
        out += o.out.channels;
      }
      unrolled<kHeight>([&](int t) {
        unrolled<kOpen - 1>([&](int j) { sums[kOpen - 1 - j][t] = sums[kOpen - 2 - j][t]; });
        sums[0][t] = Lanes<W>{};
      });
      unrolled<S>([&](int e) { x[e] = next[e]; });
    }
  }

private:
  HD void add(const Columns<T>& in, const Pixels& x, const Taps& taps, Sums& sums) const {
    unrolled<S>([&](int e) {
      unrolled<kRows>([&](int a) {
        if (!x[e].has(in, a)) return;
        const Lanes<W> v = x[e].row(in, a);
        unrolled<kOpen>([&](int j) {
          if (j * S + e < K) add_row(v, a, j * S + e, taps, sums[j]);
        });
      });
    });
  }
  // The same near both ends of a row, where columns of in or of out are missing.
  HD void add_existing(const Columns<T>& in, const Pixels& x, const Taps& taps, Sums& sums, int q) const {
    unrolled<S>([&](int e) {
      const int column = q * S - o.window.pad.left + e;
      if (column < 0 || column >= o.in.w) return;
      unrolled<kOpen>([&](int j) {
        if (j * S + e >= K || q - j < 0 || q - j >= o.out.w) return;
        unrolled<kRows>([&](int a) {
          if (x[e].has(in, a)) add_row(x[e].row(in, a), a, j * S + e, taps, sums[j]);
        });
      });
    });
  }
  HD void add_row(const Lanes<W>& v, int a, int s, const Taps& taps, Lanes<W> (&sums)[kHeight]) const {
    unrolled<kHeight>([&](int t) {
      if (const int r = a - t * S; r >= 0 && r < K) add_product(sums[t], v, taps[r][s]);
    });
  }
};

// The transposed: out(h, w) = the sum of in(i, j) * tap(h + top - i * S, w + left - j * S) over the taps there are. A
// thread walks along kHeight rows of in and S times as many of out.
template <class T, int K, int S, int W>
struct Spread {
  static constexpr int kHeight = W == 2 ? 2 : 1, kReach = (K - 1) / S, kRows = kHeight + kReach;
  using Taps = Lanes<W>[K][K];
  using Sums = Lanes<W>[K][kHeight * S];  // of the columns that a column of in adds to
  Operands<T> o;
  Layout layout;

  HD void operator()(int64_t i) const {
    const Place at = layout.place(i);
    const int c = at.packet * W;
    if (c >= o.out.channels) return;
    Taps taps;
    load_taps<K, W>(o, c, taps);
    // Strips begin on whole strides of the padded picture.
    const Padding& pad = o.window.pad;
    const int row = at.strip * kHeight * S - pad.top % S;
    Columns<T> in(o.in, at.n, c, at.strip * kHeight + pad.top / S - kReach, pad.left / S - kReach);
    int w = -kReach * S - pad.left % S;  // the first of the columns in sums
    T* out = o.out.at(at.n, row, w, c);
    Sums sums = {};
    Column<T, W, kRows> x;
    x.take(in);
    for (; w < o.out.w; w += S) {
      const int column = in.column - 1;
      Column<T, W, kRows> next;
      next.take(in);
      if (column >= 0 && column < o.in.w) add(in, x, taps, sums);
      unrolled<S>([&](int e) {
        if (w + e >= 0 && w + e < o.out.w) o.put(out, c, sums[e], {-row, o.out.h - row});
        out += o.out.channels;
      });
      unrolled<kHeight * S>([&](int d) {
        unrolled<K - S>([&](int s) { sums[s][d] = sums[s + S][d]; });
        unrolled<S>([&](int s) { sums[K - S + s][d] = Lanes<W>{}; });
      });
      x = next;
    }
  }

private:
  HD void add(const Columns<T>& in, const Column<T, W, kRows>& x, const Taps& taps, Sums& sums) const {
    unrolled<kRows>([&](int a) {
      if (!x.has(in, a)) return;
      const Lanes<W> v = x.row(in, a);
      unrolled<K>([&](int s) {
        unrolled<kHeight * S>([&](int d) {
          if (const int r = d - (a - kReach) * S; r >= 0 && r < K) add_product(sums[s][d], v, taps[r][s]);
        });
      });
    });
  }
};

// Either of them for any strides and channels, each pixel of out by itself.
template <class T, bool kSpread>
struct Pixelwise {
  Operands<T> o;
  Grid out;
  template <int W>
  HD void run(int64_t row, int c) const {
    const DepthwiseWindow& k = o.window;
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

// Channels that a thread walks with on a GPU: 16 bytes of them for 3x3 taps, but of 25 or 49 taps and their sums the
// registers hold no more than for two.
template <class T>
constexpr int device_lanes(int kernel) {
  return kernel == 3 ? 16 / sizeof(T) : 2;
}

// Strips of F::kHeight rows, of `rows`.
template <template <class, int, int, int> class F, int K, int S, class T>
void walk(Stream s, int64_t pictures, int rows, const Operands<T>& o) {
  constexpr int kDeviceLanes = device_lanes<T>(K);
  using Device = F<T, K, S, kDeviceLanes>;
  using Eight = F<T, K, S, 8>;
  const int channels = o.out.channels;
  const auto layout = [&](int lanes, int height, int slabs) {
    return Layout(channels / lanes, (rows + height - 1) / height, slabs);
  };
  if (s.cuda) {
    const auto slabs = static_cast<int>((channels * sizeof(T) + 127) / 128);  // of a line of cache
    const Layout l = layout(kDeviceLanes, Device::kHeight, slabs);
    return walk_on_cuda(s, l.threads(pictures), Device{o, l});
  }
  // The CPU takes a strip's channels all in turn, so that memory is read in long runs.
  const int64_t products = pictures * rows * o.out.line() * K * K;
  if (channels % 8 == 0) {
    const Layout l = layout(8, Eight::kHeight, 1);
    return walk_on_cpu(l.threads(pictures), products, Eight{o, l});
  }
  const Layout l = layout(kDeviceLanes, Device::kHeight, 1);
  walk_on_cpu(l.threads(pictures), products, Device{o, l});
}

template <template <class, int, int, int> class F, int S, class T>
void walk_any(Stream s, int64_t pictures, int rows, const Operands<T>& o) {
  if (o.window.kernel == 3) return walk<F, 3, S>(s, pictures, rows, o);
  if (o.window.kernel == 5) return walk<F, 5, S>(s, pictures, rows, o);
  walk<F, 7, S>(s, pictures, rows, o);
}

template <class T>
bool walks(const Operands<T>& o) {
  return o.window.stride_h == o.window.stride_w && o.out.channels % device_lanes<T>(o.window.kernel) == 0;
}

template <class T>
Operands<T> operands(const Tensor& in, const float* taps, const Tensor& out, const DepthwiseWindow& window,
                     const DepthwiseFinish& finish) {
  return {Pictures<const T>(in), Pictures<T>(out), taps, static_cast<int>(in.shape[3]), window, finish};
}

template <bool kSpread, class T>
void pixelwise(Stream s, int64_t pictures, const Operands<T>& o) {
  for_each_channel_packet(s, pictures * o.out.h * o.out.w, o.out.channels,
                          Pixelwise<T, kSpread>{o, Grid(o.out.h, o.out.w)});
}

}  // namespace

void depthwise_taps(Stream s, const Tensor& w, float* taps) {
  dispatch_float(w.dtype, "depthwise_taps", [&](auto t) {
    using T = decltype(t);
    const int channels = static_cast<int>(w.shape[0]), count = static_cast<int>(w.shape[1] * w.shape[2]);
    for_each(s, w.elements(), Transpose<T>{w.as<const T>(), taps, Divisor(channels), channels, count});
  });
}

void depthwise(Stream s, const Tensor& x, const float* taps, const Tensor& y, const DepthwiseWindow& window,
               const DepthwiseFinish& finish) {
  dispatch_float(x.dtype, "depthwise", [&](auto t) {
    const auto o = operands<decltype(t)>(x, taps, y, window, finish);
    if (!walks(o)) return pixelwise<false>(s, x.shape[0], o);
    if (window.stride_h == 1) return walk_any<Correlate, 1>(s, x.shape[0], o.out.h, o);
    walk_any<Correlate, 2>(s, x.shape[0], o.out.h, o);
  });
}

void depthwise_dgrad(Stream s, const Tensor& dy, const float* taps, const Tensor& dx, const DepthwiseWindow& window) {
  dispatch_float(dy.dtype, "depthwise_dgrad", [&](auto t) {
    auto o = operands<decltype(t)>(dy, taps, dx, window, {});
    if (!walks(o)) return pixelwise<true>(s, dy.shape[0], o);
    const Padding& pad = window.pad;
    if (window.stride_h == 2) return walk_any<Spread, 2>(s, dy.shape[0], (o.out.h + pad.top % 2 + 1) / 2, o);
    // Transposed, stride 1 is the same with the taps in reverse.
    const int last = window.kernel - 1;
    o.taps += (window.kernel * window.kernel - 1) * o.tap_step;
    o.tap_step = -o.tap_step;
    o.window.pad = {last - pad.top, last - pad.left, last - pad.bottom, last - pad.right};
    walk_any<Correlate, 1>(s, dy.shape[0], o.out.h, o);
  });
}

}  // namespace convolt
