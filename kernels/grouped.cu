#include "grouped.h"

#include "exec/row_sums.h"

namespace convolt {
namespace {

constexpr int kKernel = 3, kTaps = kKernel * kKernel;

// taps[(t * D + i) * C + c] = w[c][t][i], or transposed: that of channel i of the group from c, its own number in it.
template <class T, bool kTransposed>
struct GroupTaps {
  const T* w;
  float* taps;
  Divisor by_channels, by_group;
  int channels, group;
  HD void operator()(int64_t k) const {
    const int64_t row = by_channels.quotient(k), t = by_group.quotient(row);
    const int64_t c = k - row * channels, i = row - t * group, first = by_group.quotient(c) * group;
    const int64_t to = kTransposed ? first + i : c, from = kTransposed ? c - first : i;
    taps[k] = static_cast<float>(w[(to * kTaps + t) * group + from]);
  }
};

template <bool kTransposed>
void make_taps(Stream s, const Tensor& w, float* taps) {
  dispatch_float(w.dtype, "grouped_taps", [&](auto t) {
    using T = decltype(t);
    const int channels = static_cast<int>(w.shape[0]), group = static_cast<int>(w.shape[3]);
    for_each(s, w.elements(),
             GroupTaps<T, kTransposed>{w.as<const T>(), taps, Divisor(channels), Divisor(group), channels, group});
  });
}

template <template <class, int, int, int, int, Reads> class F, int S, int D, class T>
void walk(Stream s, int64_t pictures, const Operands<T>& o) {
  if (s.cuda) return run_on_cuda<F, kKernel, S, kGroupedLanes<T, D>, D>(s, pictures, o);
  run_on_cpu<F, kKernel, S, kGroupedLanes<T, D>, D>(pictures, o);
}
template <template <class, int, int, int, int, Reads> class F, int S, class T>
void walk(Stream s, int64_t pictures, int group, const Operands<T>& o) {
  if (group == 4) return walk<F, S, 4>(s, pictures, o);
  walk<F, S, 8>(s, pictures, o);
}

}  // namespace

void grouped_taps(Stream s, const Tensor& w, float* taps) { make_taps<false>(s, w, taps); }
void grouped_transposed_taps(Stream s, const Tensor& w, float* taps) { make_taps<true>(s, w, taps); }

void grouped(Stream s, const Tensor& x, const float* taps, const Tensor& y, int group, const ConvWindow& window,
             const ConvFinish& finish) {
  dispatch_float(x.dtype, "grouped", [&](auto t) {
    const auto o = operands<decltype(t)>(x, taps, y, group, window, finish);
    if (window.stride_h == 1) return walk<Correlate, 1>(s, x.shape[0], group, o);
    walk<Correlate, 2>(s, x.shape[0], group, o);
  });
}

void grouped_dgrad(Stream s, const Tensor& dy, const float* transposed_taps, const Tensor& dx, int group,
                   const ConvWindow& window) {
  dispatch_float(dy.dtype, "grouped_dgrad", [&](auto t) {
    const auto o = operands<decltype(t)>(dy, transposed_taps, dx, group, window, {});
    if (window.stride_h == 1) return walk<Correlate, 1>(s, dy.shape[0], group, reversed(o));
    walk<Spread, 2>(s, dy.shape[0], group, o);
  });
}

int64_t grouped_wgrad_scratch(const Shape& dy, DType dtype, int group) {
  return Chunks(dy, dtype).count * kTaps * group * dy[3] * 4;
}

void grouped_wgrad(Stream s, const Tensor& x, const Tensor& dy, float* scratch, const Tensor& dw, int group,
                   const ConvWindow& window) {
  const Chunks chunks(dy.shape, dy.dtype);
  dispatch_float(dy.dtype, "grouped_wgrad", [&](auto t) {
    using T = decltype(t);
    const auto sum = [&](auto stride) {
      constexpr int S = decltype(stride)::value;
      if (group == 4)
        sum_rows(s, chunks, scratch, RowSums<T, kKernel, S, kGroupedLanes<T, 4>, 4>(x, dy, window));
      else
        sum_rows(s, chunks, scratch, RowSums<T, kKernel, S, kGroupedLanes<T, 8>, 8>(x, dy, window));
    };
    window.stride_w == 1 ? sum(std::integral_constant<int, 1>{}) : sum(std::integral_constant<int, 2>{});
    join<T>(s, chunks, scratch, dw);
  });
}

}  // namespace convolt
