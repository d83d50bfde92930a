#include "norm.h"

#include "exec/norm_sets.h"

namespace convolt {
namespace {

template <class T>
struct Stats {
  const T* x;
  float* stats;
  double inverse_elements, eps;  // elements: of a set
  HD float kept(int64_t, int64_t first) const { return static_cast<float>(x[first]); }
  template <int W>
  HD Ahead<T, W> operands(int64_t i, bool exists) const {
    return Ahead<T, W>::of(x + i, exists);
  }
  template <int W>
  HD void add(const Ahead<T, W>& o, float shift, int, Floats<W> (&sums)[2]) const {
    const Floats<W> v = o.of_existing();
    for_lanes<W>([&](int j) {
      const float d = v[j] - shift;
      sums[0][j] += d;
      sums[1][j] += d * d;
    });
  }
  template <int W>
  HD Floats<W> centres(const NormLayout& l, int64_t picture, int c) const {
    Floats<W> r;
    for (int j = 0; j < W; ++j) r[j] = kept(0, picture * l.pixels * l.channels + l.by_width.quotient(c + j) * l.width);
    return r;
  }
  template <int W>
  HD void add_centred(const Ahead<T, W>& o, const Floats<W>& shift, Floats<W> (&sums)[2]) const {
    const Floats<W> v = o.of_existing();
    for_lanes<W>([&](int j) {
      const float d = v[j] - shift[j];
      sums[0][j] += d;
      sums[1][j] += d * d;
    });
  }
  HD void weigh(int64_t, int, double (&)[2]) const {}
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
  NormLayout l;
  HD NormLayout::Place at(int64_t row) const { return l.at(row); }
  template <int W>
  struct Kept {
    OfSets<W> m;
    Floats<W> scale, bias;
  };
  template <int W>
  HD Kept<W> kept(int64_t sets, int c) const {
    return {OfSets<W>(l, stats, sets, c), load<W>(gamma + c), load<W>(beta + c)};
  }
  template <int W>
  HD Ahead<T, W> operands(int64_t i, bool exists) const {
    return Ahead<T, W>::of(x + i, exists);
  }
  template <int W>
  HD void put(int64_t i, const Ahead<T, W>& o, const Kept<W>& k) const {
    Floats<W> v = o.of_existing();
    for_lanes<W>([&](int j) { v[j] = (v[j] - k.m.first[j]) * k.m.second[j] * k.scale[j] + k.bias[j]; });
    store(y + i, v);
  }
  template <int W>
  HD void run(const NormLayout::Place& place, int c) const {
    const int64_t i = place.first + c;
    put<W>(i, operands<W>(i, true), kept<W>(place.sets, c));
  }
};

// kLayer: a row is a set.
template <class T, bool kLayer>
struct BackwardParams {
  static constexpr int kBytes = 2 * sizeof(T) + (kLayer ? 1 : 0);
  const T *dy, *x;
  const float* stats;
  NormLayout l;
  template <int W>
  HD Nothing kept(int) const {
    return {};
  }
  struct OfRow {
    float mean, invstd;
  };
  template <int W>
  struct Operands {
    Ahead<T, W> dy, x;
    [[no_unique_address]] std::conditional_t<kLayer, OfRow, Nothing> of_row;
  };
  template <int W>
  HD Operands<W> operands(int64_t row, int c, bool exists) const {
    const int64_t i = row * l.channels + c;
    Operands<W> o;
    o.dy = Ahead<T, W>::of(dy + i, exists);
    o.x = Ahead<T, W>::of(x + i, exists);
    if constexpr (kLayer) {
      o.of_row = {0, 0};
      if (exists) o.of_row = {stats[2 * row], stats[2 * row + 1]};
    }
    return o;
  }
  template <int W>
  HD void add(int64_t row, int c, const Operands<W>& o, Nothing, Floats<W> (&sums)[2]) const {
    const Floats<W> g = o.dy.of_existing(), v = o.x.of_existing();
    if constexpr (kLayer) {
      for_lanes<W>([&](int j) {
        sums[0][j] += g[j] * ((v[j] - o.of_row.mean) * o.of_row.invstd);
        sums[1][j] += g[j];
      });
    } else {
      const OfSets<W> m(l, stats, l.at(row).sets, c);
      for_lanes<W>([&](int j) {
        sums[0][j] += g[j] * ((v[j] - m.first[j]) * m.second[j]);
        sums[1][j] += g[j];
      });
    }
  }
};

// mean(g) and mean(g xhat).
template <class T>
struct BackwardMeans {
  static constexpr int kBlocksPerProcessor = blocks_elsewhere(sizeof(T) == 2 ? 2 : 0);
  const T *dy, *x;
  const float *stats, *gamma;
  float* means;
  double inverse_elements;  // a division in here is a call, around which registers spill
  struct Kept {
    float mean, invstd;
  };
  HD Kept kept(int64_t set, int64_t) const { return {stats[2 * set], stats[2 * set + 1]}; }
  template <int W>
  struct Operands {
    Ahead<T, W> dy, x;
  };
  template <int W>
  HD Operands<W> operands(int64_t i, bool exists) const {
    return {Ahead<T, W>::of(dy + i, exists), Ahead<T, W>::of(x + i, exists)};
  }
  template <int W>
  HD void add(const Operands<W>& o, const Kept& k, int c, Floats<W> (&sums)[2]) const {
    Floats<W> g = o.dy.of_existing();
    const Floats<W> v = o.x.of_existing(), scale = load<W>(gamma + c);
    for_lanes<W>([&](int j) {
      g[j] *= scale[j];
      sums[0][j] += g[j];
      sums[1][j] += g[j] * ((v[j] - k.mean) * k.invstd);
    });
  }
  // By channels gamma and invstd are common factors.
  template <int W>
  HD Floats<W> centres(const NormLayout& l, int64_t picture, int c) const {
    return OfSets<W>(l, stats, 2 * picture * l.groups, c).first;
  }
  template <int W>
  HD void add_centred(const Operands<W>& o, const Floats<W>& mean, Floats<W> (&sums)[2]) const {
    const Floats<W> g = o.dy.of_existing(), v = o.x.of_existing();
    for_lanes<W>([&](int j) {
      sums[0][j] += g[j];
      sums[1][j] += g[j] * (v[j] - mean[j]);
    });
  }
  HD void weigh(int64_t set, int c, double (&sums)[2]) const {
    sums[0] *= static_cast<double>(gamma[c]);
    sums[1] *= static_cast<double>(gamma[c]) * static_cast<double>(stats[2 * set + 1]);
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
  NormLayout l;
  HD NormLayout::Place at(int64_t row) const { return l.at(row); }
  template <int W>
  struct Kept {
    OfSets<W> m, of_g;
    Floats<W> scale;
  };
  template <int W>
  HD Kept<W> kept(int64_t sets, int c) const {
    return {OfSets<W>(l, stats, sets, c), OfSets<W>(l, means, sets, c), load<W>(gamma + c)};
  }
  template <int W>
  struct Operands {
    Ahead<T, W> dy, x;
  };
  template <int W>
  HD Operands<W> operands(int64_t i, bool exists) const {
    return {Ahead<T, W>::of(dy + i, exists), Ahead<T, W>::of(x + i, exists)};
  }
  template <int W>
  HD void put(int64_t i, const Operands<W>& o, const Kept<W>& k) const {
    Floats<W> g = o.dy.of_existing();
    const Floats<W> v = o.x.of_existing();
    for_lanes<W>([&](int j) {
      const float xhat = (v[j] - k.m.first[j]) * k.m.second[j];
      g[j] = k.m.second[j] * (g[j] * k.scale[j] - k.of_g.first[j] - xhat * k.of_g.second[j]);
    });
    store(dx + i, g);
  }
  template <int W>
  HD void run(const NormLayout::Place& place, int c) const {
    const int64_t i = place.first + c;
    put<W>(i, operands<W>(i, true), kept<W>(place.sets, c));
  }
};

// The whole gradient of a layer norm: a block goes through the rows of a chunk a tile at a time. Eight threads for each
// row find its two means, on the CPU one, as SumSets does; then each thread has one packet of channels, of every
// slices-th row, whose dy and x the first cache still holds.
template <class T>
struct BackwardRows {
#if defined(__CUDA_ARCH__)
  static constexpr int kLanes = 8;
#else
  static constexpr int kLanes = 1;
#endif
  static constexpr int kThreads = 256, kMostRows = 64;
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
      const auto kept = row_sums.kept(row + r, 0);
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
      for (int c = lane * 8; c < channels; c += kLanes * 8)
        row_sums.template add<8>(row_sums.template operands<8>((row + r) * channels + c, true), kept, c, sums);
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
      const Floats<8> v = load_ahead<8>(row_sums.x + i);
      Floats<8> g = load_ahead<8>(row_sums.dy + i);
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
double inverse_elements_of(const NormLayout& l) { return 1 / static_cast<double>(l.pixels * l.width); }

}  // namespace

void norm_stats(Stream s, const Tensor& x, const NormSets& sets, float eps, float* stats) {
  const NormLayout l(x, sets);
  dispatch_float(x.dtype, "norm_stats", [&](auto t) {
    using T = decltype(t);
    sum_sets(s, l, sets.sets_of(x.shape),
             Stats<T>{x.as<const T>(), stats, inverse_elements_of(l), static_cast<double>(eps)});
  });
}

void norm_apply(Stream s, const Tensor& x, const NormSets& sets, const float* stats, const float* gamma,
                const float* beta, const Tensor& y) {
  const NormLayout l(x, sets);
  dispatch_float(x.dtype, "norm_apply", [&](auto t) {
    using T = decltype(t);
    for_each_norm_packet<T>(s, rows_of(x.shape), l,
                            Apply<T>{x.as<const T>(), stats, gamma, beta, result_of<T>(s, y, {x.data}), l});
  });
}

int64_t norm_backward_params_scratch(const Shape& x) { return chunks_of(rows_of(x)) * 2 * x[-1] * 4; }

void norm_backward_params(Stream s, const Tensor& dy, const Tensor& x, const NormSets& sets, const float* stats,
                          float* scratch, float* dgamma, float* dbeta) {
  const NormLayout l(x, sets);
  const int64_t rows = rows_of(x.shape);
  dispatch_float(x.dtype, "norm_backward_params", [&](auto t) {
    using T = decltype(t);
    const auto reduce = [&](auto params) {
      reduce_channels_then<2>(s, rows, l.channels, scratch, params, StoreSums<2>{{dgamma, dbeta}});
    };
    if (l.pixels == 1 && l.groups == 1)
      reduce(BackwardParams<T, true>{dy.as<const T>(), x.as<const T>(), stats, l});
    else
      reduce(BackwardParams<T, false>{dy.as<const T>(), x.as<const T>(), stats, l});
  });
}

void norm_backward(Stream s, const Tensor& dy, const Tensor& x, const NormSets& sets, const float* stats,
                   const float* gamma, float* means, const Tensor& dx) {
  const NormLayout l(x, sets);
  dispatch_float(x.dtype, "norm_backward", [&](auto t) {
    using T = decltype(t);
    const T *g = dy.as<const T>(), *px = x.as<const T>();
    sum_sets(s, l, sets.sets_of(x.shape), BackwardMeans<T>{g, px, stats, gamma, means, inverse_elements_of(l)});
    for_each_norm_packet<T>(s, rows_of(x.shape), l,
                            Backward<T>{g, px, stats, gamma, means, result_of<T>(s, dx, {g, px}), l});
  });
}

bool sweeps_layer_norm(const Shape& x, const NormSets& sets) {
  return sets.pixels == 1 && sets.groups == 1 && x[-1] % 8 == 0 && x[-1] / 8 <= BackwardRows<float>::kThreads;
}

int64_t layer_norm_backward_scratch(const Shape& x) { return chunks_of(rows_of(x)) * 3 * x[-1] * 4; }

void layer_norm_backward(Stream s, const LayerNormBackwardArgs& a) {
  const NormLayout l(a.x, {});
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
