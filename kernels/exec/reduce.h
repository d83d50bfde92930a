// Sums over the rows of a [rows, channels] matrix: fixed chunks, a fixed order, no atomics, so the same bits every time
// and for any number of CPU threads.
#pragma once

#include <algorithm>
#include <utility>

#include "exec/block.h"
#include "exec/lanes.h"

namespace convolt {

// Rows that one chunk sums: at least 64 rows and at most 512 chunks, whatever the device.
inline int64_t rows_per_chunk(int64_t rows) { return std::max<int64_t>(64, (rows + 511) / 512); }
inline int64_t chunks_of(int64_t rows) {
  return rows == 0 ? 0 : (rows + rows_per_chunk(rows) - 1) / rows_per_chunk(rows);
}

// A sum may tell apart what it reads, so that a GPU reads several rows before it uses the first, and reads once what
// belongs to channels: f.kept<W>(c), f.operands<W>(row, c, exists), of which nothing is read where it does not exist,
// and f.add<W>(row, c, operands, kept, sums). F::kBytes: what it reads of a row and channel. Other sums have
// f.run<W>(row, c, sums) alone.
template <class F, int W>
concept ReadsAhead = requires(const F& f) {
  f.template kept<W>(0);
  f.template operands<W>(int64_t{0}, 0, true);
};
template <class F, int W>
using KeptOf = decltype(std::declval<const F&>().template kept<W>(0));
struct Nothing {};

// What a row adds to the sums of a packet.
template <int K, int W, class F>
HD void add_row(const F& f, int64_t row, int c, Floats<W> (&sums)[K]) {
  if constexpr (ReadsAhead<F, W>)
    f.template add<W>(row, c, f.template operands<W>(row, c, true), f.template kept<W>(c), sums);
  else
    f.template run<W>(row, c, sums);
}

// Such sums that read one tensor, or two, and nothing of channels.
template <class T>
struct RowsOfOne {
  static constexpr int kBytes = sizeof(T);
  const T* x;
  int channels;
  template <int W>
  HD Nothing kept(int) const {
    return {};
  }
  template <int W>
  HD Ahead<T, W> operands(int64_t row, int c, bool exists) const {
    return Ahead<T, W>::of(x + row * channels + c, exists);
  }
};
template <class T>
struct RowsOfTwo {
  static constexpr int kBytes = 2 * sizeof(T);
  const T *a, *b;
  int channels;
  template <int W>
  struct Operands {
    Ahead<T, W> a, b;
  };
  template <int W>
  HD Nothing kept(int) const {
    return {};
  }
  template <int W>
  HD Operands<W> operands(int64_t row, int c, bool exists) const {
    const int64_t i = row * channels + c;
    return {Ahead<T, W>::of(a + i, exists), Ahead<T, W>::of(b + i, exists)};
  }
};

// Rows that a thread reads at once: some 64 bytes of 16-bit operands, and no more registers than there are.
template <int K, int W, class F>
constexpr int rows_ahead() {
  constexpr int kOfChannels = sizeof(KeptOf<F, W>);
  return std::clamp(((92 - K * W) * 4 - kOfChannels) / (F::kBytes * W), 1, 4);
}

// Threads that a multiprocessor has at once, a quarter or half of all, by the registers that one needs: a sum that also
// stores (F::Stores) needs more.
template <int K, int W, class F>
constexpr int threads_at_once() {
  if constexpr (ReadsAhead<F, W> && !requires { typename F::Stores; } && K <= 2) {
    constexpr int kOfChannels = sizeof(KeptOf<F, W>);
    if (K * W + (rows_ahead<K, W, F>() * F::kBytes * W + kOfChannels) / 4 <= 40) return 1024;
  }
  return 512;
}

// For how many blocks of B threads on a multiprocessor registers are left. Compilers for other GPUs than the one that
// this was tuned on spill where there are to be so many; how rows are divided stays the same, and so do the sums.
template <int B, int K, int W, class F>
constexpr int blocks_at_once() {
  return (kElsewhere ? 512 : threads_at_once<K, W, F>()) / B;
}

// How blocks divide a matrix: chunks of rows, tiles of `lanes` packets of channels.
struct Slabs {
  int64_t rows, per_chunk;
  int channels, lanes, tiles;
  Slabs(int64_t row_count, int channel_count, int width, int64_t chunk)
      : rows(row_count), per_chunk(chunk), channels(channel_count) {
    const int packets = channels / width;
    tiles = (packets + 31) / 32;
    lanes = (packets + tiles - 1) / tiles;
  }
  int64_t chunks() const { return (rows + per_chunk - 1) / per_chunk; }
};

// sums += every step-th row of [first, last).
template <int K, int W, class F>
HD void add_slice(const F& f, int64_t first, int64_t last, int step, int c, Floats<W> (&sums)[K]) {
  if constexpr (ReadsAhead<F, W>) {
    const auto kept = f.template kept<W>(c);
    read_ahead<rows_ahead<K, W, F>()>(
        first, last, step, [&](int64_t row, bool exists) { return f.template operands<W>(row, c, exists); },
        [&](int64_t row, const auto& operands) { f.template add<W>(row, c, operands, kept, sums); });
  } else {
    for (int64_t row = first; row < last; row += step) add_row<K, W>(f, row, c, sums);
  }
}

// A block sums one tile over the rows of one chunk: each thread every slices-th row of a packet, then the slices are
// joined, in a fixed order.
template <int B, int K, int W>
struct ChunkSums {
  float slices[K][W][B], parts[K][B];
};
template <int B, int K, int W, class P, class F>
HD void reduce_chunk(const Block<B>& block, int64_t chunk, int tile, const Slabs& l, const F& f,
                     ChunkSums<B, K, W>& shared, P* partials) {
  const int lanes = l.lanes, slices = B / lanes, width = lanes * W, parts = B / width;
  block.phase([&](int t) {
    const int slice = t / lanes, c = (tile * lanes + t % lanes) * W;
    const int64_t first = chunk * l.per_chunk, last = first + l.per_chunk < l.rows ? first + l.per_chunk : l.rows;
    Floats<W> sums[K] = {};
    if (slice < slices && c < l.channels) add_slice<K, W>(f, first + slice, last, slices, c, sums);
    for (int k = 0; k < K; ++k)
      for (int j = 0; j < W; ++j) shared.slices[k][j][t] = sums[k][j];
  });
  block.phase([&](int t) {
    const int part = t / width, lane = t % width % lanes, j = t % width / lanes;
    if (part >= parts) return;
    for (int k = 0; k < K; ++k) {
      float sum = 0;
      for (int slice = part; slice < slices; slice += parts) sum += shared.slices[k][j][slice * lanes + lane];
      shared.parts[k][t] = sum;
    }
  });
  block.phase([&](int t) {
    const int c = (tile * lanes + t % lanes) * W + t / lanes;
    if (t >= width || c >= l.channels) return;
    for (int k = 0; k < K; ++k) {
      float sum = 0;
      for (int part = 0; part < parts; ++part) sum += shared.parts[k][part * width + t];
      partials[(chunk * K + k) * l.channels + c] = static_cast<P>(sum);
    }
  });
}

#if defined(__CUDACC__)
template <int B, int K, int W, class P, class F>
__global__ void __launch_bounds__(B, blocks_at_once<B, K, W, F>()) reduce_channels_kernel(F f, Slabs l, P* partials) {
  __shared__ ChunkSums<B, K, W> shared;
  reduce_chunk(Block<B>{0}, blockIdx.x, static_cast<int>(blockIdx.y), l, f, shared, partials);
}

// What joins the partials of at most 256 channels in a block of B threads.
template <int K, int V, int B = 256>
struct Joined {
  double sums[K][V][B];
};

// Joins the partials of `width` channels from `first`, a multiple of V: slice i of the threads sums every slices-th
// chunk from i, V channels a thread, in double, then the slices are summed in order.
template <int K, int V, int B, class G>
__device__ void join_partials(const float* partials, int64_t chunks, int channels, int first, int width,
                              Joined<K, V, B>& joined, const G& finish) {
  const int t = threadIdx.x, lanes = width / V, lane = t % lanes, slice = t / lanes, slices = B / lanes;
  const int c = first + lane * V;
  constexpr int kAtOnce = K == 1 ? 8 : K == 3 && kElsewhere ? 2 : 4;
  double sums[K][V] = {};
  if (slice < slices && c < channels)
#pragma unroll 1
    for (int64_t chunk = slice; chunk < chunks; chunk += kAtOnce * slices) {
      Floats<V> parts[kAtOnce][K];
      unrolled<kAtOnce>([&](int i) {
        const int64_t from = chunk + i * slices;
        for (int k = 0; k < K; ++k)
          parts[i][k] = from < chunks ? load<V>(partials + (from * K + k) * channels + c) : Floats<V>{};
      });
      unrolled<kAtOnce>([&](int i) {
        for (int k = 0; k < K; ++k)
          for (int j = 0; j < V; ++j) sums[k][j] += static_cast<double>(parts[i][k][j]);
      });
    }
  for (int k = 0; k < K; ++k)
    for (int j = 0; j < V; ++j) joined.sums[k][j][t] = sums[k][j];
  __syncthreads();
  if (t >= width || first + t >= channels) return;
  double total[K];
  for (int k = 0; k < K; ++k) {
    total[k] = 0;
    for (int i = 0; i < slices; ++i) total[k] += joined.sums[k][t % V][i * lanes + t / V];
  }
  finish(first + t, total);
}

// reduce_channels_kernel, and the block that ends last of those of its channels joins their partials.
template <int B, int K, int W, class F, class G>
__global__ void __launch_bounds__(B, blocks_at_once<B, K, W, F>())
    reduce_then_kernel(F f, G finish, Slabs l, float* partials, int32_t* counters) {
  __shared__ union {
    ChunkSums<B, K, W> sums;
    Joined<K, W == 8 ? 4 : 1, B> joined;
  } shared;
  reduce_chunk(Block<B>{0}, blockIdx.x, static_cast<int>(blockIdx.y), l, f, shared.sums, partials);
  if (!is_last_block(counters + blockIdx.y, gridDim.x)) return;
  const int width = l.lanes * W;
  join_partials(partials, gridDim.x, l.channels, static_cast<int>(blockIdx.y) * width, width, shared.joined, finish);
}

// Chunks that fill the device once, of at most chunks_of(rows): each costs a partial and the end of a block. Blocks of
// 512 threads, where their shared memory suffices, leave half as many partials.
template <int K, int W, class F, class G>
void reduce_then(Stream s, int64_t rows, int channels, float* partials, const F& f, const G& finish) {
  constexpr int kThreads = K <= 2 ? 512 : 256, kBlocks = kMultiprocessors * threads_at_once<K, W, F>() / kThreads;
  Slabs l(rows, channels, W, rows);
  if (l.tiles > kStreamCounters)
    throw ShapeError("a sum over at most 131072 channels, found " + std::to_string(channels));
  const int64_t chunks = std::clamp<int64_t>(kBlocks / l.tiles, 1, chunks_of(rows));
  l.per_chunk = (rows + chunks - 1) / chunks;
  const dim3 grid(static_cast<unsigned>(l.chunks()), static_cast<unsigned>(l.tiles));
  reduce_then_kernel<kThreads, K, W>
      <<<grid, kThreads, 0, static_cast<cudaStream_t>(s.handle)>>>(f, finish, l, partials, s.counters);
  check_launch("channel reduction launch");
}
#endif

// Adds what N rows have to the sums of a packet.
template <int K, int W, int N, class F>
HD void add_rows(const F& f, int64_t row, int c, Floats<W> (&part)[K]) {
  Floats<W> sums[K];
  for (int k = 0; k < K; ++k) for_lanes<W>([&](int j) { sums[k][j] = 0; });
  for (int r = 0; r < N; ++r) add_row<K, W>(f, row + r, c, sums);
  for (int k = 0; k < K; ++k) for_lanes<W>([&](int j) { part[k][j] += sums[k][j]; });
}

// Sums `packets` <= P packets of channels from c over rows [first, last): few packets with the sums in registers, many
// with the sums in the first cache, and row after row, so that memory is read in long runs. The sums of many more only
// fit into the second cache, so that four rows come to them at once.
// 64 rows at a time, so that long chunks lose no accuracy.
template <int K, int W, int P, class Out, class F>
void reduce_tile(const F& f, int64_t first, int64_t last, int c, int packets, int channels, Out* out) {
  const int used = P <= 4 ? P : packets;
  Floats<W> sums[P][K], part[P][K];
  std::fill_n(&sums[0][0], used * K, Floats<W>{});
  for (int64_t run = first; run < last; run += 64) {
    std::fill_n(&part[0][0], used * K, Floats<W>{});
    const int64_t end = std::min(run + 64, last);
    int64_t row = run;
    if constexpr (K > 1 && P > 32)
      for (; row + 4 <= end; row += 4)
        for (int p = 0; p < used; ++p) add_rows<K, W, 4>(f, row, c + p * W, part[p]);
    for (; row < end; ++row)
      for (int p = 0; p < used; ++p) add_row<K, W>(f, row, c + p * W, part[p]);
    for (int p = 0; p < packets; ++p)
      for (int k = 0; k < K; ++k) for_lanes<W>([&](int j) { sums[p][k][j] += part[p][k][j]; });
  }
  for (int p = 0; p < packets; ++p)
    for (int k = 0; k < K; ++k)
      for (int j = 0; j < W; ++j) out[k * channels + c + p * W + j] = static_cast<Out>(sums[p][k][j]);
}

// On the calling thread and the OpenMP threads that it leads.
template <int K, int W, class P, class F>
void reduce_chunks_here(int64_t rows, int channels, int64_t per_chunk, P* partials, F f) {
  const int64_t chunks = (rows + per_chunk - 1) / per_chunk;
#pragma omp parallel firstprivate(f) if (rows * channels > kParallelElements)
  {
#pragma omp for schedule(static) nowait
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const int64_t first = chunk * per_chunk, last = std::min(rows, first + per_chunk);
      P* out = partials + chunk * K * channels;
      for (int c = 0, packets = 0; c < channels; c += packets * W) {
        packets = std::min((channels - c) / W, 256);
        if constexpr (W == 1) {  // few networks have such channels: one loop for them
          reduce_tile<K, W, 32>(f, first, last, c, packets = std::min(packets, 32), channels, out);
        } else if (packets > 32) {
          reduce_tile<K, W, 256>(f, first, last, c, packets, channels, out);
        } else if (packets > 4 || packets == 3) {
          reduce_tile<K, W, 32>(f, first, last, c, packets, channels, out);
        } else if (packets == 4) {
          reduce_tile<K, W, 4>(f, first, last, c, packets, channels, out);
        } else if (packets == 2) {
          reduce_tile<K, W, 2>(f, first, last, c, packets, channels, out);
        } else {
          reduce_tile<K, W, 1>(f, first, last, c, packets, channels, out);
        }
      }
    }
    wait_for_stores();
  }
}

template <int K, int W, class P, class F>
void reduce_chunks_of([[maybe_unused]] Stream s, int64_t rows, int channels, int64_t per_chunk, P* partials, F f) {
#if defined(__CUDACC__)
  if (s.cuda) {
    if (rows <= 0) return;
    const Slabs l(rows, channels, W, per_chunk);
    const dim3 grid(static_cast<unsigned>(l.chunks()), static_cast<unsigned>(l.tiles));
    reduce_channels_kernel<256, K, W><<<grid, 256, 0, static_cast<cudaStream_t>(s.handle)>>>(f, l, partials);
    return check_launch("channel reduction launch");
  }
#endif
  reduce_chunks_here<K, W>(rows, channels, per_chunk, partials, f);
}

// sums[chunk][k][c] = sum over the chunk's per_chunk rows of what add_row() of f adds to sums[k]. sums: [ceil(rows /
// per_chunk), K, channels], of any floating type.
template <int K, class P, class F>
void reduce_chunks(Stream s, int64_t rows, int channels, int64_t per_chunk, P* sums, F f) {
  if (channels % 8 == 0)
    reduce_chunks_of<K, 8>(s, rows, channels, per_chunk, sums, f);
  else
    reduce_chunks_of<K, 1>(s, rows, channels, per_chunk, sums, f);
}

// The same over chunks of our own choice, for join_chunks: partials f32 [chunks_of(rows), K, channels].
template <int K, class F>
void reduce_channels(Stream s, int64_t rows, int channels, float* partials, F f) {
  reduce_chunks<K>(s, rows, channels, rows_per_chunk(rows), partials, f);
}

// A block joins the partials of 32 channels: slice i sums every kSlices-th chunk from i, then the slices are summed in
// order. In double, so that the number of chunks costs no accuracy.
template <int K, class F>
struct JoinChunks {
  static constexpr int kSlices = 16, kThreads = 32 * kSlices;
  struct Shared {
    double sums[K][kThreads];
  };
  const float* partials;
  int64_t chunks;
  int channels;
  F finish;

  HD void operator()(Block<kThreads> block, Shared& shared) const {
    block.phase([&](int t) {
      const int64_t c = block.index * 32 + t % 32;
      for (int k = 0; k < K; ++k) {
        double sum = 0;
        if (c < channels)
          for (int64_t chunk = t / 32; chunk < chunks; chunk += kSlices)
            sum += static_cast<double>(partials[(chunk * K + k) * channels + c]);
        shared.sums[k][t] = sum;
      }
    });
    block.phase([&](int t) {
      const int64_t c = block.index * 32 + t;
      if (t >= 32 || c >= channels) return;
      double sums[K];
      for (int k = 0; k < K; ++k) {
        sums[k] = 0;
        for (int slice = 0; slice < kSlices; ++slice) sums[k] += shared.sums[k][slice * 32 + t];
      }
      finish(static_cast<int>(c), sums);
    });
  }
};

// finish(c, sums) once for each channel, with double sums[k] = the sum of partials[chunk][k][c] over all chunks.
template <int K, class F>
void join_chunks(Stream s, int64_t chunks, int channels, const float* partials, F finish) {
  for_each_block<JoinChunks<K, F>::kThreads>(s, (channels + 31) / 32,
                                             JoinChunks<K, F>{partials, chunks, channels, finish});
}

// reduce_channels and join_chunks; on the GPU in one launch. There may be 131,072 channels.
template <int K, class F, class G>
void reduce_channels_then(Stream s, int64_t rows, int channels, float* partials, F f, G finish) {
  const int64_t per_chunk = rows_per_chunk(rows), chunks = chunks_of(rows);
#if defined(__CUDACC__)
  if (s.cuda && chunks > 0) {
    if (channels % 8 == 0) return reduce_then<K, 8>(s, rows, channels, partials, f, finish);
    return reduce_then<K, 1>(s, rows, channels, partials, f, finish);
  }
#endif
  if (!s.cuda) {
    if (channels % 8 == 0)
      reduce_chunks_here<K, 8>(rows, channels, per_chunk, partials, f);
    else
      reduce_chunks_here<K, 1>(rows, channels, per_chunk, partials, f);
  }
  join_chunks<K>(s, chunks, channels, partials, finish);
}

// A finish that stores sum k at out[k][c].
template <int K>
struct StoreSums {
  float* out[K];
  HD void operator()(int c, const double (&sums)[K]) const {
    for (int k = 0; k < K; ++k) out[k][c] = static_cast<float>(sums[k]);
  }
};

}  // namespace convolt
