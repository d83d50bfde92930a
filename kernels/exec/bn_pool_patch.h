// Batch norm, ReLU and max pool in one by strips and patches (pool_patch.h), and the gradient.
#pragma once

#include "exec/act.h"
#include "exec/block.h"
#include "exec/bn_gradient.h"
#include "exec/pool_patch.h"

namespace convolt {

using Relu = Fixed<Activation::relu>;

// The same by strips of windows of K x K (pool_patch.h). What is normalised is compared as integers, from 0 on:
// whatever is no larger, as after the ReLU, is a smaller integer too, and NaN is the largest.
HD int32_t ordered(float v) {
#if defined(__CUDA_ARCH__)
  return __float_as_int(v);  // products and sums make but one NaN, which is positive
#else
  return static_cast<int32_t>(float_to_bits(v == v ? v : bits_to_float(0x7fffffffU)));
#endif
}
template <class T, int K>
struct PoolStrips {
  static constexpr int W = kStored<T>;
  struct Best {
    int32_t value[W], where[W];
  };
  const T* x;
  const float *scale, *bias;
  T* y;
  uint8_t* index;
  PoolExtents e;
  Strips strips;  // of windows

  HD void operator()(int64_t strip, int c) const {
    const StripPlace at = strips.place(strip);
    const Floats<W> a = load<W>(scale + c), b = load<W>(bias + c);
    const int left = 2 * at.column - (K - 2), skipped = left < 0 ? 1 : 0;
    const int64_t first_in = e.in(at.n, 2 * at.first - (K - 2), left, c);
    int64_t out = e.out(at.n, at.first, at.column, c);
    const auto fetch_line = [&](Stored(&line)[K], int row, int64_t in) {
      const bool exists = (row >= 0) & (row < e.h);
      unrolled<K>([&](int s) {
        line[s] = fetch<Stored>(x + in + int64_t{s} * e.channels, exists & (left + s >= 0) & (left + s < e.w));
      });
    };
    // The best of a line, 0 at the first place where nothing is larger.
    const auto best_of = [&](const Stored(&line)[K], int row, Best& best) {
      for_lanes<W>([&](int j) {
        best.value[j] = 0;
        best.where[j] = skipped;
      });
      if (row < 0 || row >= e.h) return;
      unrolled<K>([&](int s) {
        if (left + s < 0 || left + s >= e.w) return;
        const Floats<W> v = floats_of<T>(line[s]);
        for_lanes<W>([&](int j) {
          const int32_t value = ordered(v[j] * a[j] + b[j]);
          best.where[j] = value > best.value[j] ? s : best.where[j];
          best.value[j] = value > best.value[j] ? value : best.value[j];
        });
      });
    };

    Best line;
    int row = 2 * at.first - (K - 2);
    int64_t in = first_in;
    if constexpr (K == 3) {
      Stored pixels[K];
      fetch_line(pixels, row, in);
      best_of(pixels, row, line);
      ++row;
      in += e.line();
    }
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
    for (int oh = at.first; oh < at.end; ++oh, row += 2, in += 2 * e.line(), out += e.out_line()) {
      Stored upper[K], lower[K];
      fetch_line(upper, row, in);
      fetch_line(lower, row + 1, in + e.line());
      Best best;
      if constexpr (K == 3) {
        // Nothing of a line above the picture is above 0: the first place is then one line further down.
        const int first = row == 0 ? K : 0;
        for_lanes<W>([&](int j) {
          best.value[j] = line.value[j];
          best.where[j] = first + line.where[j];
        });
      } else {
        best_of(upper, row, best);
      }
      const auto join = [&](int first) {
        for_lanes<W>([&](int j) {
          best.where[j] = line.value[j] > best.value[j] ? first + line.where[j] : best.where[j];
          best.value[j] = line.value[j] > best.value[j] ? line.value[j] : best.value[j];
        });
      };
      if constexpr (K == 3) {
        best_of(upper, row, line);
        join(K);
      }
      best_of(lower, row + 1, line);  // the first of the next window of 3x3
      join((K - 1) * K);
      Floats<W> v;
      StoredPositions<W> where;
      for_lanes<W>([&](int j) { v[j] = bits_to_float(static_cast<uint32_t>(best.value[j])); });
      unrolled<W / 4>([&](int k) {
        where.word[k] = static_cast<uint32_t>(best.where[4 * k] | best.where[4 * k + 1] << 8 |
                                              best.where[4 * k + 2] << 16 | best.where[4 * k + 3] << 24);
      });
      put(y + out, stored_of<T>(v));
      put(index + out, where);
    }
  }
};

// What the batch norm's gradient is made of comes from one pixel of each window: its gradient goes nowhere else. So
// blocks sum over windows, in which each pixel's part is found by its position, and not over pixels.
template <class T, int K, bool kTwo>
struct SumStrips {
  static constexpr int kBlocksPerProcessor = blocks_elsewhere(sizeof(T) == 4 ? 4 : 0);
  static constexpr int kThreads = 128, W = kStored<T>;
  struct Shared {
    float tree[2][W][kThreads];
  };
  WindowGradients<T, kTwo> from;
  const T* x;
  const float* coef;
  float* partials;  // [chunks, 2, channels]
  PoolExtents e;
  Strips strips;  // of windows
  int64_t all, per_chunk;
  int lanes, tiles;  // a power of two of packets to a tile; block = chunk * tiles + tile

  HD void operator()(Block<kThreads> block, Shared& shared) const {
    const int slices = kThreads / lanes;
    const int64_t chunk = block.index / tiles;
    const int tile = static_cast<int>(block.index - chunk * tiles);
    const int64_t first = chunk * per_chunk, last = first + per_chunk < all ? first + per_chunk : all;
    block.phase([&](int t) {
      const int slice = t / lanes, c = (tile * lanes + t - slice * lanes) * W;
      auto products = zeros<W>(), sums = zeros<W>();
      if (c < e.channels) {
        const Floats<W> scale = load<W>(coef + 2 * e.channels + c), bias = load<W>(coef + 3 * e.channels + c);
        const Floats<W> mean = load<W>(coef + c);
        for (int64_t strip = first + slice; strip < last; strip += slices)
          sum_strip(strips.place(strip), c, mean, scale, bias, products, sums);
        const Floats<W> invstd = load<W>(coef + e.channels + c);
        for_lanes<W>([&](int j) { products[j] *= invstd[j]; });
      }
      unrolled<W>([&](int j) {
        shared.tree[0][j][t] = products[j];
        shared.tree[1][j][t] = sums[j];
      });
    });
    for (int width = slices / 2; width > 0; width /= 2)
      block.phase_of(width * lanes, [&](int t) {
        for (int k = 0; k < 2; ++k)
          for (int j = 0; j < W; ++j) shared.tree[k][j][t] += shared.tree[k][j][t + width * lanes];
      });
    block.phase_of(lanes, [&](int t) {
      const int c = (tile * lanes + t) * W;
      if (c < e.channels)
        for (int k = 0; k < 2; ++k)
          for (int j = 0; j < W; ++j) partials[(chunk * 2 + k) * e.channels + c + j] = shared.tree[k][j][t];
    });
  }

  HD void sum_strip(const StripPlace& at, int c, const Floats<W>& mean, const Floats<W>& scale, const Floats<W>& bias,
                    Floats<W>& products, Floats<W>& sums) const {
    const int left = 2 * at.column - (K - 2);
    int row = 2 * at.first - (K - 2);
    int64_t in = e.in(at.n, row, left, c), out = e.out(at.n, at.first, at.column, c);
    Stored pixels[K][K];
    const auto fetch_line = [&](Stored(&line)[K], bool wanted) {
      const bool exists = wanted & (row >= 0) & (row < e.h);
      unrolled<K>([&](int s) {
        line[s] = fetch<Stored>(x + in + int64_t{s} * e.channels, exists & (left + s >= 0) & (left + s < e.w));
      });
      ++row;
      in += e.line();
    };
    // A window is read behind the sums of the one above it, so that all its reads are under way at once: nvcc moves
    // reads down to where they are used, but not into another turn of the loop.
    if constexpr (K == 3) fetch_line(pixels[0], true);
    fetch_line(pixels[K - 2], true);
    fetch_line(pixels[K - 1], true);
    WindowGradient<T> window = from.at(out, true);
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
    for (int oh = at.first; oh < at.end; ++oh) {
      from.join(window);
      const Positions<W> where(window.positions);
      Stored of = pixels[0][0];
      unrolled<K * K>([&](int position) {
        if (position > 0)
          for (int k = 0; k < 4; ++k) {
            const uint32_t mask = where.at(k, position);
            of.word[k] = (pixels[position / K][position % K].word[k] & mask) | (of.word[k] & ~mask);
          }
      });
      const Floats<W> v = floats_of<T>(of);
      Floats<W> g = floats_of<T>(window.g), z;
      for_lanes<W>([&](int j) { z[j] = v[j] * scale[j] + bias[j]; });
      Relu{}.backward(z, g);
      for_lanes<W>([&](int j) {
        products[j] += g[j] * (v[j] - mean[j]);
        sums[j] += g[j];
      });
      const bool more = oh + 1 < at.end;
      out += e.out_line();
      if constexpr (K == 3) unrolled<K>([&](int s) { pixels[0][s] = pixels[2][s]; });
      fetch_line(pixels[K - 2], more);
      fetch_line(pixels[K - 1], more);
      window = from.at(out, more);
    }
  }
};

// Sums partials [chunks, columns] over the chunks into first, then second, of half of the columns each: slice i of the
// threads every kSlices-th chunk from i, four columns a thread, then the slices in order.
struct JoinSums {
  static constexpr int kThreads = 128, kSlices = kThreads / 32;
  struct Shared {
    double sums[kSlices][kThreads];
  };
  const float* partials;
  int64_t chunks;
  int columns;  // in fours
  float *first, *second;
  HD void operator()(Block<kThreads> block, Shared& shared) const {
    for (int begin = 0; begin < columns; begin += kThreads) {
      block.phase([&](int t) {
        const int lane = t % 32, slice = t / 32, column = begin + 4 * lane;
        double sums[4] = {};
        if (column < columns) {
#if defined(__CUDA_ARCH__)
#pragma unroll 16
#endif
          for (int64_t chunk = slice; chunk < chunks; chunk += kSlices) {
            const Floats<4> part = load<4>(partials + chunk * columns + column);
            for (int j = 0; j < 4; ++j) sums[j] += static_cast<double>(part[j]);
          }
        }
        for (int j = 0; j < 4; ++j) shared.sums[slice][4 * lane + j] = sums[j];
      });
      block.phase([&](int t) {
        const int column = begin + t, channels = columns / 2;
        if (column >= columns) return;
        double sum = 0;
        for (int i = 0; i < kSlices; ++i) sum += shared.sums[i][t];
        *(column < channels ? first + column : second + (column - channels)) = static_cast<float>(sum);
      });
    }
  }
};

// BnGradient of what comes through the ReLU, in fewer registers: scale * g + x * slope + offset.
template <class T>
struct ApplyToPatches {
  static constexpr int W = kStored<T>;
  struct Coefficients {
    Floats<W> scale, bias, slope, offset;
  };
  const T* x;
  const float *coef, *dgamma, *dbeta;
  float inverse_rows;
  T* dx;
  int channels;
  HD Coefficients coefficients(int c) const {
    const auto gradient = BnGradient<W>::of(coef, channels, dgamma, dbeta, inverse_rows, c);
    Coefficients k{gradient.scale, load<W>(coef + 3 * channels + c), gradient.of_x, {}};
    for_lanes<W>([&](int j) { k.offset[j] = gradient.rest[j] - gradient.mean[j] * k.slope[j]; });
    return k;
  }
  HD Stored fetch(int64_t i, bool exists) const { return convolt::fetch<Stored>(x + i, exists); }
  HD void put(const Coefficients& k, const Stored& read, const Floats<W>& arriving, int64_t i) const {
    const Floats<W> v = floats_of<T>(read);
    Floats<W> g = arriving, z, r;
    for_lanes<W>([&](int j) { z[j] = v[j] * k.scale[j] + k.bias[j]; });
    Relu{}.backward(z, g);
    for_lanes<W>([&](int j) { r[j] = k.scale[j] * g[j] + (v[j] * k.slope[j] + k.offset[j]); });
    convolt::put(dx + i, stored_of<T>(r));
  }
};

}  // namespace convolt
