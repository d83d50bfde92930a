// Convolutions of NHWC pictures with few channels a group, by threads that walk along strips of rows. A thread makes W
// channels of the result: with D = 1 each from the same one channel (depthwise), else all from the D channels of their
// group. Its k * k * D taps stay in registers, and the sums that still want pixels.
#pragma once

#include "conv_window.h"
#include "exec/walk.h"

namespace convolt {

// Channels that a thread walks with. Depthwise, on a GPU: 16 bytes of them for 3x3 taps, but of 25 or 49 taps and their
// sums the registers hold no more than for two. Grouped, wherever: of 144 taps, or of 72 beside pixels of 32 bytes,
// which need registers too.
template <class T>
constexpr int depthwise_lanes(int kernel) {
  return kernel == 3 ? kPacket<T> : 2;
}
template <class T, int D>
constexpr int kGroupedLanes = sizeof(T) * D > 16 ? 1 : 16 / D;

// What is read of a pixel: W lanes of it, or the D channels of a group, each of them a factor of all W lanes.
template <int W, int D>
constexpr int kChannelsRead = D == 1 ? W : D;
template <int D, int N>
HD auto factors(const Lanes<N>& x) {
  if constexpr (D == 1)
    return x;
  else
    return floats(x);
}
// sums[i] += a * (factor i), of D.
template <int W>
HD void add_products(Lanes<W> (&sums)[1], const Lanes<W>& a, const Lanes<W>& factor) {
  add_product(sums[0], a, factor);
}
template <int W, int D>
HD void add_products(Lanes<W> (&sums)[D], const Lanes<W>& a, const Floats<D>& factor) {
  unrolled<D>([&](int i) { add_product(sums[i], a, all_lanes<W>(factor[i])); });
}
// sum += the sum of tap i * (factor i), of D.
template <int W>
HD void add_sum(Lanes<W>& sum, const Lanes<W> (&taps)[1], const Lanes<W>& factor) {
  add_product(sum, taps[0], factor);
}
template <int W, int D>
HD void add_sum(Lanes<W>& sum, const Lanes<W> (&taps)[D], const Floats<D>& factor) {
  unrolled<D>([&](int i) { add_product(sum, taps[i], all_lanes<W>(factor[i])); });
}

// Pictures that are read (in), pictures that are made (out), and the window between them.
template <class T>
struct Operands {
  Pictures<const T> in;
  Pictures<T> out;
  const float* taps;  // tap t of channel c from channel i of its group at taps[t * tap_step + i * channels + c]
  int tap_step;
  ConvWindow window;
  ConvFinish finish;

  // Finishes and stores the sums of one column, from `first` on, where `rows` has them.
  template <int W, int N>
  HD void put(T* first, int c, const Lanes<W> (&sums)[N], Span rows) const {
    Floats<W> v[N];
    unrolled<N>([&](int t) { v[t] = floats(sums[t]); });
    if (finish.bias) {
      const Floats<W> bias = load<W>(finish.bias + c);
      unrolled<N>([&](int t) { for_lanes<W>([&](int j) { v[t][j] += bias[j]; }); });
    }
    if (finish.act != ConvFinish::Act::none) {
      const float high = finish.act == ConvFinish::Act::relu6 ? 6.F : INFINITY;
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
template <class T>
Operands<T> operands(const Tensor& in, const float* taps, const Tensor& out, int group, const ConvWindow& window,
                     const ConvFinish& finish) {
  return {Pictures<const T>(in), Pictures<T>(out), taps, static_cast<int>(in.shape[3]) * group, window, finish};
}
// The convolution of stride 1 that is the transposed of one: with the taps in reverse.
template <class T>
Operands<T> reversed(Operands<T> o) {
  const int last = o.window.kernel - 1;
  const Padding& pad = o.window.pad;
  o.taps += (o.window.kernel * o.window.kernel - 1) * o.tap_step;
  o.tap_step = -o.tap_step;
  o.window.pad = {last - pad.top, last - pad.left, last - pad.bottom, last - pad.right};
  return o;
}

template <int K, int W, int D, class T>
HD void load_taps(const Operands<T>& o, int c, Lanes<W> (&taps)[K][K][D]) {
  unrolled<K>([&](int r) {
    unrolled<K>([&](int s) {
      unrolled<D>(
          [&](int i) { taps[r][s][i] = load_lanes<W>(o.taps + (r * K + s) * o.tap_step + i * o.out.channels + c); });
    });
  });
}

// How the columns of `in` are read.
enum class Reads : uint8_t { in_place, ahead };
template <Reads kReads, class T, int W, int kRows, int kColumns>
using Columns =
    std::conditional_t<kReads == Reads::ahead, ReadAhead<T, W, kRows, kColumns>, InPlace<T, W, kRows, kColumns>>;

// The sums of a window's columns of out, some of which each step ends and as many begins. Either the others move on to
// their places; or they stay in their registers and the steps are unrolled to where all are in their first places
// again. A CPU renames registers, and wants the shorter code; a GPU would move each of them, but not hold the code of
// wide windows.
constexpr int turns(Reads reads, int open) { return reads == Reads::ahead && open <= 5 ? open : 1; }

// out(h, w) = the sum of in(h * S - top + r, w * S - left + s) * tap(r, s). A thread walks along kHeight rows of out.
template <class T, int K, int S, int W, int D, Reads kReads>
struct Correlate {
  // Higher strips read fewer rows twice, but want more registers.
  static constexpr int kHeight = S == 2 ? (K == 3 && (W == 8 || D > 1) ? 1 : 2) : (W == 8 || D > 1 ? 2 : 4);
  static constexpr int kRows = (kHeight - 1) * S + K;
  static constexpr int kOpen = (K + S - 1) / S;  // columns of out that a column of in adds to
  static constexpr int kTurns = turns(kReads, kOpen);
  using In = Columns<kReads, T, kChannelsRead<W, D>, kRows, S>;
  using Sums = Lanes<W>[kOpen][kHeight];  // of columns q, q - 1, ...
  using Taps = Lanes<W>[K][K][D];
  static constexpr int kMemory = In::kMemory;  // bytes of shared memory
  Operands<T> o;
  Layout layout;

  HD void operator()(int64_t i, const Spot& spot) const {
    const Place at = layout.place(i);
    const int c = at.packet * W;
    if (c >= o.out.channels) return;
    Taps taps;
    load_taps(o, c, taps);
    const int row = at.strip * kHeight, left = o.window.pad.left, columns = o.out.w + kOpen - 1;
    In in(o.in, at.n, D == 1 ? c : c / D * D, row * S - o.window.pad.top, -left, spot);
    T* out = o.out.at(at.n, row, 0, c);
    Sums sums = {};
    for (int first = 0; first < columns; first += kTurns)
      unrolled<kTurns>([&](int turn) INLINED {
        const int q = first + turn;
        if (turn > 0 && q >= columns) return;
        in.advance();
        if (In::kPadded || (q >= kOpen - 1 && q < o.out.w && q * S >= left && q * S + S - left <= o.in.w))
          add(in, taps, turn, sums);
        else
          add_existing(in, taps, sums, q);
        Lanes<W>(&last)[kHeight] = sums[place(turn, kOpen - 1)];
        if (q >= kOpen - 1) {
          o.put(out, c, last, {0, o.out.h - row});
          out += o.out.channels;
        }
        if constexpr (kTurns == 1)
          unrolled<kOpen - 1>(
              [&](int j) { unrolled<kHeight>([&](int t) { sums[kOpen - 1 - j][t] = sums[kOpen - 2 - j][t]; }); });
        unrolled<kHeight>([&](int t) { sums[place(turn + 1, 0)][t] = Lanes<W>{}; });
      });
  }

  // What strips of kHeight rows divide.
  static int rows(const Operands<T>& o) { return o.out.h; }

private:
  // Where the sums of column q - j are, at the turn of q.
  static constexpr int place(int turn, int j) { return kTurns == 1 ? j : (turn - j + kOpen) % kOpen; }

  HD void add(const In& in, const Taps& taps, int turn, Sums& sums) const {
    unrolled<S>([&](int e) {
      unrolled<kRows>([&](int a) {
        if constexpr (!In::kPadded)
          if (!in.has_row(a)) return;
        const auto v = factors<D>(in.at(e, a));
        unrolled<kOpen>([&](int j) {
          if (j * S + e < K) add_row(v, a, j * S + e, taps, sums[place(turn, j)]);
        });
      });
    });
  }
  // The same near both ends of a row, where columns of in or of out are missing.
  HD void add_existing(const In& in, const Taps& taps, Sums& sums, int q) const {
    if constexpr (!In::kPadded)
      unrolled<S>([&](int e) {
        if (!in.has_column(e)) return;
        unrolled<kOpen>([&](int j) {
          if (j * S + e >= K || q - j < 0 || q - j >= o.out.w) return;
          unrolled<kRows>([&](int a) {
            if (in.has_row(a)) add_row(factors<D>(in.at(e, a)), a, j * S + e, taps, sums[j]);
          });
        });
      });
  }
  template <class Factors>
  HD void add_row(const Factors& v, int a, int s, const Taps& taps, Lanes<W> (&sums)[kHeight]) const {
    unrolled<kHeight>([&](int t) {
      if (const int r = a - t * S; r >= 0 && r < K) add_sum(sums[t], taps[r][s], v);
    });
  }
};

// The transposed: out(h, w) = the sum of in(i, j) * tap(h + top - i * S, w + left - j * S) over the taps there are. A
// thread walks along kHeight rows of in and S times as many of out.
template <class T, int K, int S, int W, int D, Reads kReads>
struct Spread {
  static constexpr int kHeight = W == 2 && D == 1 ? 2 : 1, kReach = (K - 1) / S, kRows = kHeight + kReach;
  static constexpr int kTurns = turns(kReads, K);
  using In = Columns<kReads, T, kChannelsRead<W, D>, kRows, 1>;
  using Sums = Lanes<W>[K][kHeight * S];  // of the columns that a column of in adds to
  using Taps = Lanes<W>[K][K][D];
  static constexpr int kMemory = In::kMemory;  // bytes of shared memory
  Operands<T> o;
  Layout layout;

  HD void operator()(int64_t i, const Spot& spot) const {
    const Place at = layout.place(i);
    const int c = at.packet * W;
    if (c >= o.out.channels) return;
    Taps taps;
    load_taps(o, c, taps);
    // Strips begin on whole strides of the padded picture.
    const Padding& pad = o.window.pad;
    const int row = at.strip * kHeight * S - pad.top % S;
    In in(o.in, at.n, D == 1 ? c : c / D * D, at.strip * kHeight + pad.top / S - kReach, pad.left / S - kReach, spot);
    int w = -kReach * S - pad.left % S;  // the first of the columns in sums
    T* out = o.out.at(at.n, row, w, c);
    Sums sums = {};
    while (w < o.out.w)
      unrolled<kTurns>([&](int turn) INLINED {
        if (turn > 0 && w >= o.out.w) return;
        in.advance();
        add(in, taps, turn, sums);
        unrolled<S>([&](int e) {
          if (w + e >= 0 && w + e < o.out.w) o.put(out, c, sums[place(turn, e)], {-row, o.out.h - row});
          out += o.out.channels;
        });
        unrolled<kHeight * S>([&](int d) {
          if constexpr (kTurns == 1) unrolled<K - S>([&](int s) { sums[s][d] = sums[s + S][d]; });
          unrolled<S>([&](int s) { sums[place(turn + 1, K - S + s)][d] = Lanes<W>{}; });
        });
        w += S;
      });
  }
  static int rows(const Operands<T>& o) { return (o.out.h + o.window.pad.top % S + S - 1) / S; }

private:
  // Where the sums of column w + s are, at a turn.
  static constexpr int place(int turn, int s) { return kTurns == 1 ? s : (turn * S + s) % K; }

  HD void add(const In& in, const Taps& taps, int turn, Sums& sums) const {
    if constexpr (!In::kPadded)
      if (!in.has_column(0)) return;
    unrolled<kRows>([&](int a) {
      if constexpr (!In::kPadded)
        if (!in.has_row(a)) return;
      const auto v = factors<D>(in.at(0, a));
      unrolled<K>([&](int s) {
        unrolled<kHeight * S>([&](int d) {
          if (const int r = d - (a - kReach) * S; r >= 0 && r < K) add_sum(sums[place(turn, s)][d], taps[r][s], v);
        });
      });
    });
  }
};

// F with its threads laid out: in slabs of a line of cache on a GPU; on the CPU, which takes a strip's channels all in
// turn, in one, so that memory is read in long runs.
template <class F, class T>
F laid_out(const Operands<T>& o, int lanes, bool cuda) {
  const int slabs = cuda ? static_cast<int>((o.out.channels * sizeof(T) + 127) / 128) : 1;
  return {o, Layout(o.out.channels / lanes, (F::rows(o) + F::kHeight - 1) / F::kHeight, slabs)};
}
template <template <class, int, int, int, int, Reads> class F, int K, int S, int W, int D, class T>
void run_on_cpu(int64_t pictures, const Operands<T>& o) {
  using Walk = F<T, K, S, W, D, Reads::in_place>;
  const auto f = laid_out<Walk>(o, W, false);
  walk_on_cpu(f.layout.threads(pictures), pictures * Walk::rows(o) * o.out.line() * (K * K * D),
              [f](int64_t i) INLINED { f(i, Spot{}); });
}
template <template <class, int, int, int, int, Reads> class F, int K, int S, int W, int D, class T>
void run_on_cuda(Stream s, int64_t pictures, const Operands<T>& o) {
  const auto f = laid_out<F<T, K, S, W, D, Reads::ahead>>(o, W, true);
  walk_on_cuda(s, f.layout.threads(pictures), f);
}

}  // namespace convolt
