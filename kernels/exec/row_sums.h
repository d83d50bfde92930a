// Weight gradients of convolutions with few channels a group (see convolve.h): sums over fixed chunks of the rows of
// dy, joined in order.
#pragma once

#include "exec/convolve.h"
#include "exec/reduce.h"

namespace convolt {

// dw(r, s) = the sum of dy(h, w) * x(h * stride - top + r, w * S - left + s). A thread walks along rows of dy and along
// those rows of x which one row r of the window takes there: K pixels of x and the K * D sums stay in registers.
template <class T, int K, int S, int W, int D>
struct RowSums {
  static constexpr int kRead = kChannelsRead<W, D>;
  using Factors = decltype(factors<D>(Lanes<kRead>{}));
  using Sums = Lanes<W>[K][D];
  Pictures<const T> x, dy;
  int stride_h, top, left;
  Divisor by_out_h;
  RowSums(const Tensor& xs, const Tensor& dys, const ConvWindow& k)
      : x(xs), dy(dys), stride_h(k.stride_h), top(k.pad.top), left(k.pad.left), by_out_h(dys.shape[1]) {}

  // sums[s] += what row `row` of dy [N * H', W', C] makes, of W channels from c.
  HD void add(int64_t row, int r, int c, Sums& sums) const {
    const int64_t n = by_out_h.quotient(row);
    const int h = static_cast<int>(row - n * dy.h) * stride_h - top + r;
    if (h < 0 || h >= x.h) return;
    const T* const pixels = x.at(n, h, -left, D == 1 ? c : c / D * D);
    const T* const gradients = dy.data + (row * dy.w * dy.channels + c);
    Factors window[K];  // the m-th pixel of the padded row at m % K
    unrolled<K - S>([&](int m) {
      const bool exists = m >= left && m < left + x.w;
      window[m] = factors<D>(Ahead<T, kRead>::of(pixels + int64_t{m} * x.channels, exists).lanes());
    });
    for (int w = 0; w < dy.w; w += K) {
      const int m = w * S + K - S;  // the pixel that comes next
      if (w + K <= dy.w && m >= left && m + K * S <= left + x.w)
        add_columns<true>(pixels, gradients, w, window, sums);
      else
        add_columns<false>(pixels, gradients, w, window, sums);
    }
  }

  // The same of rows begin, begin + step, ... of the `count` from `first` on, read ahead of their use as if they were
  // one: for a GPU, whose memory is far when rows are short. A row begins with kWarm steps that only fill the window.
  static constexpr int kWarm = (K - 1) / S;
  static constexpr int kThreads = 256;  // of a block
  static constexpr int kBytes = (kRead > W ? kRead : W) * sizeof(T);
  using Steps = Ring<kThreads, ring_steps(kThreads, (S + 1) * kBytes, 8), S + 1, kBytes>;

  HD void add_ahead(int64_t first, int begin, int count, int step, int r, int c, const Spot& spot, Sums& sums) const {
    Reader reader(*this, first, begin, count, step, r, c, spot);
    Factors window[K] = {};  // pixel m of the padded row at m % K
    const auto take_pixels = [&](int turn) {
      reader.advance();
      unrolled<S>([&](int e) { window[place(turn, K - S + e)] = factors<D>(reader.ring.template lanes<T, kRead>(e)); });
    };
    for (int row = begin; row < count; row += step) {
      unrolled<kWarm>([&](int i) { take_pixels(i + K - kWarm); });
      for (int w = 0; w < dy.w; w += K)
        unrolled<K>([&](int turn) {
          if (turn > 0 && w + turn >= dy.w) return;
          take_pixels(turn);
          const Lanes<W> of_column = reader.ring.template lanes<T, W>(S);
          unrolled<K>([&](int s) { add_products(sums[s], of_column, window[place(turn, s)]); });
        });
    }
  }

private:
  // Where the pixel under tap s is, of a column of dy that is `turn` modulo K.
  static constexpr int place(int turn, int s) { return (turn * S + s) % K; }

  // Of a step the S pixels that are new in the window, then the pixel of dy.
  struct Reader {
    const RowSums& of;
    Steps ring;
    const int count, step, r, c;
    int row, n, h;        // of dy: the row of the chunk, and which that is of which picture
    int w, column;        // the columns of dy, and of x the first, that are asked for next
    int columns, pixels;  // as many as exist, both from 0 on
    const T *pixel, *gradient;
    HD Reader(const RowSums& sums, int64_t first, int begin, int rows, int by, int row_of_window, int channel,
              const Spot& spot)
        : of(sums), ring(spot), count(rows), step(by), r(row_of_window), c(channel), row(begin) {
      n = static_cast<int>(of.by_out_h.quotient(first + begin));
      h = static_cast<int>(first + begin - int64_t{n} * of.dy.h);
      begin_row();
      ring.begin([&] { ask(); });
    }
    HD void advance() {
      ring.advance([&] { ask(); });
    }
    HD void ask() {
      unrolled<S>([&](int e) {
        ring.template ask<kRead>(e, pixel, static_cast<unsigned>(column + e) < static_cast<unsigned>(pixels));
        pixel += of.x.channels;
      });
      ring.template ask<W>(S, gradient, static_cast<unsigned>(w) < static_cast<unsigned>(columns));
      gradient += of.dy.channels;
      column += S;
      if (++w < of.dy.w) return;
      row += step;
      for (h += step; h >= of.dy.h; h -= of.dy.h) ++n;
      begin_row();
    }
    HD void begin_row() {
      const int of_x = h * of.stride_h - of.top + r;
      w = -kWarm;
      column = w * S + K - S - of.left;
      const bool exists = row < count && of_x >= 0 && of_x < of.x.h;
      columns = exists ? of.dy.w : 0;
      pixels = exists ? of.x.w : 0;
      pixel = of.x.at(n, of_x, column, D == 1 ? c : c / D * D);
      gradient = of.dy.at(n, h, w, c);
    }
  };

  // What the K columns of dy from w on make; kWhole: all that is read exists.
  template <bool kWhole>
  HD void add_columns(const T* pixels, const T* gradients, int w, Factors (&window)[K], Sums& sums) const {
    Ahead<T, kRead> pixel[K][S];
    Ahead<T, W> gradient[K];
    const T *p = pixels + int64_t{w * S + K - S} * x.channels, *g = gradients + int64_t{w} * dy.channels;
    unrolled<K>([&](int u) {
      gradient[u] = Ahead<T, W>::of(g, kWhole || w + u < dy.w);
      g += dy.channels;
      unrolled<S>([&](int e) {
        const int m = (w + u) * S + K - S + e;
        pixel[u][e] = Ahead<T, kRead>::of(p, kWhole || (m >= left && m < left + x.w));
        p += x.channels;
      });
    });
    unrolled<K>([&](int u) {
      if (!kWhole && w + u >= dy.w) return;
      unrolled<S>([&](int e) { window[(u * S + K - S + e) % K] = factors<D>(pixel[u][e].lanes()); });
      const Lanes<W> of_column = gradient[u].lanes();
      unrolled<K>([&](int s) { add_products(sums[s], of_column, window[(u * S + s) % K]); });
    });
  }
};

// Fixed chunks of the rows of dy, whatever the device: enough to fill a GPU, none too small to be worth its joining.
struct Chunks {
  int64_t rows, count, per_chunk;
  int64_t per_run;  // rows that stay in a CPU's second cache
  Chunks(const Shape& dy, DType dtype) : rows(dy[0] * dy[1]) {
    const int64_t slabs = (dy[3] * size_of(dtype) + 127) / 128;
    const int64_t wanted = std::max<int64_t>(1, std::min((528 + slabs - 1) / slabs, rows / 32));
    per_chunk = std::max<int64_t>(1, (rows + wanted - 1) / wanted);
    count = (rows + per_chunk - 1) / per_chunk;
    per_run = std::max<int64_t>(1, (256 << 10) / (dy[2] * dy[3] * size_of(dtype)));
  }
};

// A block sums `lanes` packets of channels over the rows of one chunk, for all K rows of the window, `slices` rows of
// dy at a time; the slices are joined in order.
template <class T, int K, int S, int W, int D>
struct SumChunk {
  static constexpr int kBlocksPerProcessor = blocks_elsewhere(K * W * D == 12                      ? 3
                                                              : K * W * D == 20 || K * W * D == 24 ? 2
                                                                                                   : 0);
  using Rows = RowSums<T, K, S, W, D>;
  static constexpr int kThreads = Rows::kThreads;
  static constexpr bool kReadsAhead = W * sizeof(T) >= 4;  // what is copied beside the computation
  static constexpr int ring_bytes() {
    if constexpr (kReadsAhead) return Rows::Steps::kMemory;
    return 16;
  }
  union Shared {
    alignas(16) unsigned char ring[ring_bytes()];
    float joined[W][kThreads];
  };
  struct Kept {
    typename Rows::Sums of_taps;
  };
  Rows f;
  int64_t rows, per_chunk;
  int slabs, lanes, slices;
  float* partials;
  Divisor by_slabs;
  SumChunk(const Rows& of, const Chunks& chunks, float* to)
      : f(of), rows(chunks.rows), per_chunk(chunks.per_chunk), partials(to), by_slabs(0) {
    const int packets = of.dy.channels / W, most = std::min(32, static_cast<int>(128 / (W * sizeof(T))));
    slabs = (packets + most - 1) / most;
    lanes = (packets + slabs - 1) / slabs;
    slices = kThreads / (lanes * K);
    by_slabs = Divisor(slabs);
  }

  HD void operator()(const Block<kThreads>& block, Shared& shared) const {
    const int channels = f.dy.channels;
    const int64_t chunk = by_slabs.quotient(block.index), first = chunk * per_chunk;
    const auto count = static_cast<int>(first + per_chunk < rows ? per_chunk : rows - first);
    const int first_lane = static_cast<int>(block.index - chunk * slabs) * lanes;
    const auto channel_of = [&](int t) { return (first_lane + t % lanes) * W; };
    Lane<Kept, kThreads> sums;
    block.phase([&](int t) {
      sums[t] = Kept{};
      const int c = channel_of(t), r = t / lanes % K, slice = t / lanes / K;
      if (c >= channels || slice >= slices) return;
      if constexpr (kReadsAhead)
        f.add_ahead(first, slice, count, slices, r, c, Spot{shared.ring, t, block.backwards}, sums[t].of_taps);
      else
        for (int row = slice; row < count; row += slices) f.add(first + row, r, c, sums[t].of_taps);
    });
    unrolled<K>([&](int s) {
      unrolled<D>([&](int i) {
        block.phase([&](int t) {
          const Floats<W> sum = floats(sums[t].of_taps[s][i]);
          unrolled<W>([&](int j) { shared.joined[j][t] = sum[j]; });
        });
        block.phase([&](int t) {
          const int c = channel_of(t), r = t / lanes;
          if (r >= K || c >= channels) return;
          Floats<W> total = {};
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
          for (int slice = 0; slice < slices; ++slice)
            unrolled<W>([&](int j) { total[j] += shared.joined[j][t + slice * lanes * K]; });
          store(partials + ((chunk * K + r) * (K * D) + s * D + i) * channels + c, total);
        });
      });
    });
  }
};

template <class T, int K, int S, int W, int D>
void sum_run(const RowSums<T, K, S, W, D>& f, int64_t first, int64_t last, int c, float* partials) {
  for (int r = 0; r < K; ++r) {
    Lanes<W> sums[K][D] = {};
    for (int64_t row = first; row < last; ++row) f.add(row, r, c, sums);
    for (int s = 0; s < K; ++s)
      for (int i = 0; i < D; ++i) {
        float* const p = partials + ((r * K + s) * D + i) * f.dy.channels + c;
        Floats<W> sum = load<W>(p);
        const Floats<W> more = floats(sums[s][i]);
        for_lanes<W>([&](int j) { sum[j] += more[j]; });
        store(p, sum);
      }
  }
}

template <class T, int K, int S, int W, int D>
void sum_rows_on_cpu(const Chunks& chunks, float* partials, RowSums<T, K, S, W, D> f) {
  constexpr int kTaps = K * K * D;
  // Few chunks are shared by several threads, each with some of the channels.
  const int channels = f.dy.channels;
  const int64_t packets = channels / W, groups = std::min<int64_t>(packets, (64 + chunks.count - 1) / chunks.count);
  [[maybe_unused]] const int64_t products = chunks.rows * f.dy.line() * kTaps;
#pragma omp parallel for schedule(static) firstprivate(f) if (products > kParallelElements)
  for (int64_t i = 0; i < chunks.count * groups; ++i) {
    const int64_t chunk = i / groups, group = i % groups;
    const int begin = static_cast<int>(group * packets / groups) * W,
              end = static_cast<int>((group + 1) * packets / groups) * W;
    float* const sums = partials + chunk * kTaps * channels;
    for (int t = 0; t < kTaps; ++t) std::fill(sums + t * channels + begin, sums + t * channels + end, 0.F);
    const int64_t last = std::min(chunks.rows, (chunk + 1) * chunks.per_chunk);
    for (int64_t row = chunk * chunks.per_chunk; row < last; row += chunks.per_run)
      for (int c = begin; c < end; c += W) sum_run(f, row, std::min(row + chunks.per_run, last), c, sums);
  }
}

template <class T, int K, int S, int W, int D>
void sum_rows_on_cuda(Stream s, const Chunks& chunks, float* partials, const RowSums<T, K, S, W, D>& f) {
  const SumChunk<T, K, S, W, D> sum(f, chunks, partials);
  for_each_block_on_cuda<sum.kThreads>(s, chunks.count * sum.slabs, sum);
}

// partials [chunks.count, K * K * D, C].
template <class T, int K, int S, int W, int D>
void sum_rows(Stream s, const Chunks& chunks, float* partials, const RowSums<T, K, S, W, D>& f) {
  s.cuda ? sum_rows_on_cuda(s, chunks, partials, f) : sum_rows_on_cpu(chunks, partials, f);
}

// Where the sums [taps, channels] of a gradient lie.
template <class T>
struct StoreTaps {
  T* dw;  // [channels, taps]
  Divisor by_channels;
  int channels, taps;
  HD void operator()(int i, const double (&sums)[1]) const {
    const auto t = static_cast<int>(by_channels.quotient(i));
    dw[int64_t{i - t * channels} * taps + t] = static_cast<T>(static_cast<float>(sums[0]));
  }
};
template <class T>
void join(Stream s, const Chunks& chunks, const float* partials, const Tensor& dw) {
  const int channels = static_cast<int>(dw.shape[0]), all = static_cast<int>(dw.elements());
  join_chunks<1>(s, chunks.count, all, partials, StoreTaps<T>{dw.as<T>(), Divisor(channels), channels, all / channels});
}

}  // namespace convolt
