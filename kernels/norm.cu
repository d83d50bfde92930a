#include "norm.h"

#include "exec/reduce.h"

namespace convolt {
namespace {

// Where the sets of a tensor lie.
struct Layout {
  int channels, width;  // width: channels of a group
  int groups;
  int64_t pixels;
  Divisor by_pixels, by_width;
  Layout(const Tensor& x, const NormSets& sets)
      : channels(static_cast<int>(x.shape[-1])),
        width(static_cast<int>(x.shape[-1] / sets.groups)),
        groups(static_cast<int>(sets.groups)),
        pixels(sets.pixels),
        by_pixels(sets.pixels),
        by_width(width) {}
  // Of a row: its first element, and in a [sets, 2] table the first set of its picture.
  struct Place {
    int64_t first, sets;
  };
  HD Place at(int64_t row) const { return {row * channels, 2 * by_pixels.quotient(row) * groups}; }
};

// The two numbers that a [sets, 2] table holds for the sets of a packet of channels.
template <int W>
struct OfSets {
  Floats<W> first, second;
  HD OfSets(const Layout& l, const float* table, int64_t sets, int c) {
    int group = static_cast<int>(l.by_width.quotient(c)), channel = c - group * l.width;
    const float* of_group = table + sets + 2 * group;
    if (l.width % W == 0) {  // all of one set
      const float a = of_group[0], b = of_group[1];
      for_lanes<W>([&](int j) {
        first[j] = a;
        second[j] = b;
      });
      return;
    }
    for (int j = 0; j < W; ++j) {
      first[j] = of_group[0];
      second[j] = of_group[1];
      const bool last = ++channel == l.width;
      of_group += last ? 2 : 0;
      channel = last ? 0 : channel;
    }
  }
};

// Two sums over each set, by blocks of 256 threads: L of them, of which each takes every L-th packet, for one set. The
// sums of the threads are joined in order and in double. F: sum(set, first, element, channel, sums) adds those of a
// packet; finish(set, first, sums) takes the result; both are told the set's first element.
template <int W, int L, class F>
struct SumSets {
  struct Shared {
    float sums[2][256];
  };
  static constexpr int kSets = 256 / L;
  F f;
  Layout l;
  int64_t sets;
  Divisor by_groups, by_packets;
  int packets;  // of one pixel

  HD void operator()(Block<256> block, Shared& shared) const {
    block.phase([&](int t) {
      const int64_t set = block.index * kSets + t / L;
      Floats<W> sums[2] = {zeros<W>(), zeros<W>()};
      if (set < sets) {
        const int first = first_channel(set);
        const int64_t begin = first_element(set);
#if defined(__CUDA_ARCH__)
#pragma unroll 1  // two packets at once need more registers than there are
#endif
        for (int64_t k = t % L; k < l.pixels * packets; k += L) {
          const int64_t pixel = by_packets.quotient(k);
          const int c = static_cast<int>(k - pixel * packets) * W;
          f.template sum<W>(set, begin, begin + pixel * l.channels + c, first + c, sums);
        }
      }
      for (int i = 0; i < 2; ++i) {
        shared.sums[i][t] = 0;
        for (int j = 0; j < W; ++j) shared.sums[i][t] += sums[i][j];
      }
    });
    block.phase([&](int t) {
      const int64_t set = block.index * kSets + t;
      if (t >= kSets || set >= sets) return;
      double sums[2] = {};
      for (int i = 0; i < 2; ++i)
        for (int lane = 0; lane < L; ++lane) sums[i] += static_cast<double>(shared.sums[i][t * L + lane]);
      f.finish(set, first_element(set), sums);
    });
  }
  HD int first_channel(int64_t set) const {
    return static_cast<int>(set - by_groups.quotient(set) * l.groups) * l.width;
  }
  HD int64_t first_element(int64_t set) const {
    return by_groups.quotient(set) * l.pixels * l.channels + first_channel(set);
  }
};

template <int W, int L, class F>
void sum_sets_of(Stream s, const Layout& l, int64_t sets, F f) {
  using Sums = SumSets<W, L, F>;
  const int packets = l.width / W;
  for_each_block<256>(s, (sets + Sums::kSets - 1) / Sums::kSets,
                      Sums{f, l, sets, Divisor(l.groups), Divisor(packets), packets});
}
// Eight threads for each small set, so that few of them idle (a row of 96 channels is 12 packets); a block for each
// large one.
template <class F>
void sum_sets(Stream s, const Layout& l, int64_t sets, F f) {
  const bool large = l.pixels * l.width > 4096;
  if (l.width % 8 == 0)
    large ? sum_sets_of<8, 256>(s, l, sets, f) : sum_sets_of<8, 8>(s, l, sets, f);
  else if (l.width % 2 == 0)  // 64 channels in the usual 32 groups
    large ? sum_sets_of<2, 256>(s, l, sets, f) : sum_sets_of<2, 8>(s, l, sets, f);
  else
    large ? sum_sets_of<1, 256>(s, l, sets, f) : sum_sets_of<1, 8>(s, l, sets, f);
}

template <class T>
struct Stats {
  const T* x;
  float* stats;
  double inverse_elements, eps;  // elements: of a set
  template <int W>
  HD void sum(int64_t, int64_t first, int64_t i, int, Floats<W> (&sums)[2]) const {
    const float shift = static_cast<float>(x[first]);
    const Floats<W> v = load<W>(x + i);
    for_lanes<W>([&](int j) {
      const float d = v[j] - shift;
      sums[0][j] += d;
      sums[1][j] += d * d;
    });
  }
  HD void finish(int64_t set, int64_t first, const double (&sums)[2]) const {
    const double mean_shifted = sums[0] * inverse_elements;
    const double spread = sums[1] * inverse_elements - mean_shifted * mean_shifted;
    const double variance = spread < 0 ? 0 : spread;  // rounding may leave a constant set just below 0; NaN stays
    stats[2 * set] = static_cast<float>(static_cast<double>(static_cast<float>(x[first])) + mean_shifted);
    stats[2 * set + 1] = static_cast<float>(1 / sqrt(variance + eps));
  }
};

template <class T>
struct Apply {
  const T* x;
  const float *stats, *gamma, *beta;
  Result<T> y;
  Layout l;
  HD Layout::Place at(int64_t row) const { return l.at(row); }
  template <int W>
  HD void run(const Layout::Place& place, int c) const {
    Floats<W> v = load<W>(x + place.first + c);
    const Floats<W> scale = load<W>(gamma + c), bias = load<W>(beta + c);
    const OfSets<W> m(l, stats, place.sets, c);
    for_lanes<W>([&](int j) { v[j] = (v[j] - m.first[j]) * m.second[j] * scale[j] + bias[j]; });
    store(y + place.first + c, v);
  }
};

template <class T>
struct BackwardParams {
  const T *dy, *x;
  const float* stats;
  Layout l;
  template <int W>
  HD void run(int64_t row, int c, Floats<W> (&sums)[2]) const {
    const Layout::Place place = l.at(row);
    const Floats<W> g = load<W>(dy + place.first + c), v = load<W>(x + place.first + c);
    const OfSets<W> m(l, stats, place.sets, c);
    for_lanes<W>([&](int j) {
      sums[0][j] += g[j] * ((v[j] - m.first[j]) * m.second[j]);
      sums[1][j] += g[j];
    });
  }
};

// mean(g) and mean(g xhat).
template <class T>
struct BackwardMeans {
  const T *dy, *x;
  const float *stats, *gamma;
  float* means;
  double inverse_elements;  // a division in here is a call, around which registers spill
  template <int W>
  HD void sum(int64_t set, int64_t, int64_t i, int c, Floats<W> (&sums)[2]) const {
    const float mean = stats[2 * set], invstd = stats[2 * set + 1];
    Floats<W> g = load<W>(dy + i);
    const Floats<W> v = load<W>(x + i), scale = load<W>(gamma + c);
    for_lanes<W>([&](int j) {
      g[j] *= scale[j];
      sums[0][j] += g[j];
      sums[1][j] += g[j] * ((v[j] - mean) * invstd);
    });
  }
  HD void finish(int64_t set, int64_t, const double (&sums)[2]) const {
    means[2 * set] = static_cast<float>(sums[0] * inverse_elements);
    means[2 * set + 1] = static_cast<float>(sums[1] * inverse_elements);
  }
};

template <class T>
struct Backward {
  const T *dy, *x;
  const float *stats, *gamma, *means;
  Result<T> dx;
  Layout l;
  HD Layout::Place at(int64_t row) const { return l.at(row); }
  template <int W>
  HD void run(const Layout::Place& place, int c) const {
    const int64_t i = place.first + c;
    Floats<W> g = load<W>(dy + i);
    const Floats<W> v = load<W>(x + i), scale = load<W>(gamma + c);
    const OfSets<W> m(l, stats, place.sets, c);
    const OfSets<W> of_g(l, means, place.sets, c);
    for_lanes<W>([&](int j) {
      const float xhat = (v[j] - m.first[j]) * m.second[j];
      g[j] = m.second[j] * (g[j] * scale[j] - of_g.first[j] - xhat * of_g.second[j]);
    });
    store(dx + i, g);
  }
};

// The whole gradient of a layer norm: a block goes through the rows of a chunk a tile at a time. Eight threads for each
// row find its two means, as SumSets does; then each thread has one packet of channels, of every slices-th row, whose
// dy and x the first cache still holds.
template <class T>
struct BackwardRows {
  static constexpr int kThreads = 256, kLanes = 8, kMostRows = 64;
  struct Shared {
    float sums[2][kMostRows * kLanes];
    float means[2][kMostRows];
    float slices[8][kThreads];
  };
  struct Sums {
    Floats<8> of[3];  // dgamma, dbeta, dx
  };
  BackwardMeans<T> row_sums;
  T* dx;
  float* partials;  // [chunks, 3, channels]
  int64_t rows, per_chunk;
  int channels, tile, slices;  // tile: rows, at most kMostRows
  Divisor by_packets;

  HD void operator()(Block<kThreads> block, Shared& shared) const {
    const int64_t first = block.index * per_chunk, last = first + per_chunk < rows ? first + per_chunk : rows;
    Lane<Sums, kThreads> sums;
    block.phase([&](int t) { sums[t] = {}; });
    for (int64_t row = first; row < last; row += tile) {
      const int count = static_cast<int>(row + tile < last ? tile : last - row);
      block.phase([&](int t) { sum_rows(row, count, t, shared); });
      block.phase([&](int t) { find_means(count, t, shared); });
      block.phase([&](int t) { sweep(row, count, t, shared, sums[t]); });
    }
    for (int k = 0; k < 3; ++k) {
      block.phase([&](int t) {
        for (int j = 0; j < 8; ++j) shared.slices[j][t] = sums[t].of[k][j];
      });
      block.phase([&](int t) { join_slices(block.index * 3 + k, t, shared); });
    }
  }

  HD void sum_rows(int64_t row, int count, int t, Shared& shared) const {
    const int lane = t % kLanes;
    for (int r = t / kLanes; r < count; r += kThreads / kLanes) {
      Floats<8> sums[2] = {};
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
      for (int c = lane * 8; c < channels; c += kLanes * 8)
        row_sums.template sum<8>(row + r, 0, (row + r) * channels + c, c, sums);
      for (int i = 0; i < 2; ++i) {
        float sum = 0;
        for (int j = 0; j < 8; ++j) sum += sums[i][j];
        shared.sums[i][r * kLanes + lane] = sum;
      }
    }
  }
  HD void find_means(int count, int t, Shared& shared) const {
    if (t >= count) return;
    for (int i = 0; i < 2; ++i) {
      double sum = 0;
      for (int lane = 0; lane < kLanes; ++lane) sum += static_cast<double>(shared.sums[i][t * kLanes + lane]);
      shared.means[i][t] = static_cast<float>(sum * row_sums.inverse_elements);
    }
  }
  // dx, and the sums over the tile.
  HD void sweep(int64_t row, int count, int t, const Shared& shared, Sums& total) const {
    const int slice = static_cast<int>(by_packets.quotient(t)), c = (t - slice * (channels / 8)) * 8;
    if (slice >= slices) return;
    const Floats<8> scale = load<8>(row_sums.gamma + c);
    Sums sums = {};
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
    for (int r = slice; r < count; r += slices) {
      const int64_t i = (row + r) * channels + c;
      const Floats<8> v = load<8>(row_sums.x + i);
      Floats<8> g = load<8>(row_sums.dy + i);
      const float mean = row_sums.stats[2 * (row + r)], invstd = row_sums.stats[2 * (row + r) + 1];
      const float mean_g = shared.means[0][r], mean_g_xhat = shared.means[1][r];
      for_lanes<8>([&](int j) {
        const float xhat = (v[j] - mean) * invstd;
        sums.of[0][j] += g[j] * xhat;
        sums.of[1][j] += g[j];
        g[j] = invstd * (g[j] * scale[j] - mean_g - xhat * mean_g_xhat);
      });
      store(dx + i, g);
      g = rounded<T>(g);
      for_lanes<8>([&](int j) { sums.of[2][j] += g[j]; });
    }
    for (int k = 0; k < 3; ++k) for_lanes<8>([&](int j) { total.of[k][j] += sums.of[k][j]; });
  }
  HD void join_slices(int64_t row, int t, const Shared& shared) const {
    const int packets = channels / 8;
    if (t >= packets) return;
    for (int j = 0; j < 8; ++j) {
      float sum = shared.slices[j][t];
      for (int slice = 1; slice < slices; ++slice) sum += shared.slices[j][slice * packets + t];
      partials[row * channels + t * 8 + j] = sum;
    }
  }
};

// Each sum where it is wanted.
struct StoreLayerNorm {
  float *dgamma, *dbeta, *dsum;
  HD void operator()(int c, const double (&sums)[3]) const {
    dgamma[c] = static_cast<float>(sums[0]);
    dbeta[c] = static_cast<float>(sums[1]);
    if (dsum) dsum[c] = static_cast<float>(sums[2]);
  }
};

int64_t rows_of(const Shape& x) { return x.elements() / x[-1]; }
double inverse_elements_of(const Layout& l) { return 1 / static_cast<double>(l.pixels * l.width); }

}  // namespace

void norm_stats(Stream s, const Tensor& x, const NormSets& sets, float eps, float* stats) {
  const Layout l(x, sets);
  dispatch_float(x.dtype, "norm_stats", [&](auto t) {
    using T = decltype(t);
    sum_sets(s, l, sets.sets_of(x.shape),
             Stats<T>{x.as<const T>(), stats, inverse_elements_of(l), static_cast<double>(eps)});
  });
}

void norm_apply(Stream s, const Tensor& x, const NormSets& sets, const float* stats, const float* gamma,
                const float* beta, const Tensor& y) {
  const Layout l(x, sets);
  dispatch_float(x.dtype, "norm_apply", [&](auto t) {
    using T = decltype(t);
    for_each_channel_packet(s, rows_of(x.shape), l.channels,
                            Apply<T>{x.as<const T>(), stats, gamma, beta, result_of<T>(s, y, {x.data}), l});
  });
}

int64_t norm_backward_params_scratch(const Shape& x) { return chunks_of(rows_of(x)) * 2 * x[-1] * 4; }

void norm_backward_params(Stream s, const Tensor& dy, const Tensor& x, const NormSets& sets, const float* stats,
                          float* scratch, float* dgamma, float* dbeta) {
  const Layout l(x, sets);
  const int64_t rows = rows_of(x.shape);
  dispatch_float(x.dtype, "norm_backward_params", [&](auto t) {
    using T = decltype(t);
    reduce_channels_then<2>(s, rows, l.channels, scratch,
                            BackwardParams<T>{dy.as<const T>(), x.as<const T>(), stats, l},
                            StoreSums<2>{{dgamma, dbeta}});
  });
}

void norm_backward(Stream s, const Tensor& dy, const Tensor& x, const NormSets& sets, const float* stats,
                   const float* gamma, float* means, const Tensor& dx) {
  const Layout l(x, sets);
  dispatch_float(x.dtype, "norm_backward", [&](auto t) {
    using T = decltype(t);
    const T *g = dy.as<const T>(), *px = x.as<const T>();
    sum_sets(s, l, sets.sets_of(x.shape), BackwardMeans<T>{g, px, stats, gamma, means, inverse_elements_of(l)});
    for_each_channel_packet(s, rows_of(x.shape), l.channels,
                            Backward<T>{g, px, stats, gamma, means, result_of<T>(s, dx, {g, px}), l});
  });
}

bool sweeps_layer_norm(const Shape& x, const NormSets& sets) {
  return sets.pixels == 1 && sets.groups == 1 && x[-1] % 8 == 0 && x[-1] / 8 <= BackwardRows<float>::kThreads;
}

int64_t layer_norm_backward_scratch(const Shape& x) { return chunks_of(rows_of(x)) * 3 * x[-1] * 4; }

void layer_norm_backward(Stream s, const LayerNormBackwardArgs& a) {
  const Layout l(a.x, {});
  const int64_t rows = rows_of(a.x.shape);
  const int packets = l.channels / 8;
  dispatch_float(a.x.dtype, "layer_norm_backward", [&](auto t) {
    using T = decltype(t);
    using Rows = BackwardRows<T>;
    // On the CPU the order of reduce_channels; on the GPU few enough rows for the first cache.
    for_each_block<Rows::kThreads>(
        s, chunks_of(rows),
        Rows{.row_sums = {a.dy.as<const T>(), a.x.as<const T>(), a.stats, a.gamma, nullptr, inverse_elements_of(l)},
             .dx = a.dx.as<T>(),
             .partials = a.scratch,
             .rows = rows,
             .per_chunk = rows_per_chunk(rows),
             .channels = l.channels,
             .tile = s.cuda && l.channels > 192 ? 32 : 64,
             .slices = s.cuda ? Rows::kThreads / packets : 1,
             .by_packets = Divisor(packets)});
  });
  join_chunks<3>(s, chunks_of(rows), l.channels, a.scratch, StoreLayerNorm{a.dgamma, a.dbeta, a.dsum});
}

}  // namespace convolt
