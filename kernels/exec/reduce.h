// Sums over the rows of a [rows, channels] matrix: fixed chunks, a fixed order, no atomics, so the same bits every time
// and for any number of CPU threads.
#pragma once

#include "exec/block.h"

namespace convolt {

// Rows that one chunk sums: at least 64 rows and at most 512 chunks, whatever the device.
inline int64_t rows_per_chunk(int64_t rows) { return std::max<int64_t>(64, (rows + 511) / 512); }
inline int64_t chunks_of(int64_t rows) {
  return rows == 0 ? 0 : (rows + rows_per_chunk(rows) - 1) / rows_per_chunk(rows);
}

#if defined(__CUDACC__)
// A block of 256 threads sums `lanes` packets of channels (a power of two, at most 32) over the rows of one chunk, with
// 256 / lanes rows in flight, then joins those in a fixed tree.
template <int K, int W, class P, class F>
__device__ void reduce_chunk(const F& f, int64_t rows, int channels, int64_t per_chunk, int lanes,
                             float (&tree)[K][W][256], P* partials) {
  const int t = threadIdx.x, lane = t % lanes, slice = t / lanes, slices = 256 / lanes;
  const int c = (blockIdx.y * lanes + lane) * W;
  const int64_t first = blockIdx.x * per_chunk, last = first + per_chunk < rows ? first + per_chunk : rows;
  Floats<W> sums[K] = {};
  if (c < channels)
    for (int64_t row = first + slice; row < last; row += slices) f.template run<W>(row, c, sums);
  for (int k = 0; k < K; ++k)
    for (int j = 0; j < W; ++j) tree[k][j][t] = sums[k][j];
  __syncthreads();
  for (int width = slices / 2; width > 0; width /= 2) {
    if (slice < width)
      for (int k = 0; k < K; ++k)
        for (int j = 0; j < W; ++j) tree[k][j][t] += tree[k][j][t + width * lanes];
    __syncthreads();
  }
  if (slice == 0 && c < channels)
    for (int k = 0; k < K; ++k)
      for (int j = 0; j < W; ++j)
        partials[(blockIdx.x * K + k) * static_cast<int64_t>(channels) + c + j] = static_cast<P>(tree[k][j][t]);
}

template <int K, int W, class P, class F>
__global__ void __launch_bounds__(256)
    reduce_channels_kernel(F f, int64_t rows, int channels, int64_t per_chunk, int lanes, P* partials) {
  __shared__ float tree[K][W][256];
  reduce_chunk<K, W>(f, rows, channels, per_chunk, lanes, tree, partials);
}

// What joins the partials of at most 256 channels in a block of 256 threads.
template <int K, int V>
struct Joined {
  double sums[K][V][256];
};

// Joins the partials of `width` channels from `first`, a power of two: slice i of the threads sums every slices-th
// chunk from i, V channels a thread, in double, then the slices are summed in order.
template <int K, int V, class G>
__device__ void join_partials(const float* partials, int64_t chunks, int channels, int first, int width,
                              Joined<K, V>& joined, const G& finish) {
  const int t = threadIdx.x, lanes = width / V, lane = t % lanes, slice = t / lanes, slices = 256 / lanes;
  const int c = first + lane * V;
  for (int k = 0; k < K; ++k) {
    double sums[V] = {};
    if (c < channels)
#pragma unroll 2
      for (int64_t chunk = slice; chunk < chunks; chunk += slices) {
        const Floats<V> part = load<V>(partials + (chunk * K + k) * channels + c);
        for (int j = 0; j < V; ++j) sums[j] += static_cast<double>(part[j]);
      }
    for (int j = 0; j < V; ++j) joined.sums[k][j][t] = sums[j];
  }
  __syncthreads();
  if (t >= width || first + t >= channels) return;
  double sums[K];
  for (int k = 0; k < K; ++k) {
    sums[k] = 0;
    for (int i = 0; i < slices; ++i) sums[k] += joined.sums[k][t % V][i * lanes + t / V];
  }
  finish(first + t, sums);
}

// reduce_channels_kernel, and the block that ends last of those of its channels joins their partials.
template <int K, int W, class F, class G>
__global__ void __launch_bounds__(256, 2)
    reduce_then_kernel(F f, G finish, int64_t rows, int channels, int64_t per_chunk, int lanes, float* partials,
                       int32_t* counters) {
  __shared__ union {
    float tree[K][W][256];
    Joined<K, W == 8 ? 4 : 1> joined;
  } shared;
  reduce_chunk<K, W>(f, rows, channels, per_chunk, lanes, shared.tree, partials);
  if (!is_last_block(counters + blockIdx.y, gridDim.x)) return;
  const int width = lanes * W;
  join_partials(partials, gridDim.x, channels, blockIdx.y * width, width, shared.joined, finish);
}
#endif

// Adds what N rows have to the sums of a packet.
template <int K, int W, int N, class F>
HD void add_rows(const F& f, int64_t row, int c, Floats<W> (&part)[K]) {
  Floats<W> sums[K];
  for (int k = 0; k < K; ++k) for_lanes<W>([&](int j) { sums[k][j] = 0; });
  for (int r = 0; r < N; ++r) f.template run<W>(row + r, c, sums);
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
      for (int p = 0; p < used; ++p) f.template run<W>(row, c + p * W, part[p]);
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
#pragma omp parallel for schedule(static) if (rows * channels > kParallelElements)
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const int64_t first = chunk * per_chunk, last = std::min(rows, first + per_chunk);
    P* out = partials + chunk * K * channels;
    for (int c = 0, packets = 0; c < channels; c += packets * W) {
      packets = std::min((channels - c) / W, 256);
      if (packets >= 64) {
        reduce_tile<K, W, 256>(f, first, last, c, packets, channels, out);
      } else if (packets >= 8) {
        reduce_tile<K, W, 32>(f, first, last, c, packets = std::min(packets, 32), channels, out);
      } else if (packets >= 4) {
        reduce_tile<K, W, 4>(f, first, last, c, packets = 4, channels, out);
      } else if (packets >= 2) {
        reduce_tile<K, W, 2>(f, first, last, c, packets = 2, channels, out);
      } else {
        reduce_tile<K, W, 1>(f, first, last, c, packets, channels, out);
      }
    }
  }
}

template <int K, int W, class P, class F>
void reduce_chunks_of([[maybe_unused]] Stream s, int64_t rows, int channels, int64_t per_chunk, P* partials, F f) {
#if defined(__CUDACC__)
  const int64_t chunks = (rows + per_chunk - 1) / per_chunk;
  if (s.cuda && chunks > 0) {
    const int packets = channels / W;
    int lanes = 1;
    while (lanes < packets && lanes < 32) lanes *= 2;
    const dim3 grid(static_cast<unsigned>(chunks), static_cast<unsigned>((packets + lanes - 1) / lanes));
    reduce_channels_kernel<K, W>
        <<<grid, 256, 0, static_cast<cudaStream_t>(s.handle)>>>(f, rows, channels, per_chunk, lanes, partials);
    return check_launch("channel reduction launch");
  }
  if (s.cuda) return;
#endif
  reduce_chunks_here<K, W>(rows, channels, per_chunk, partials, f);
}

// sums[chunk][k][c] = sum over the chunk's per_chunk rows of what f.run<W>(row, c, Floats<W> (&sums)[K]) adds to
// sums[k]. sums: [ceil(rows / per_chunk), K, channels], of any floating type.
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
  // Eight packets of 16 bytes fill a line of memory, and few channels leave many threads to join their chunks.
  const int width = channels % 8 == 0 ? 64 : 32, tiles = (channels + width - 1) / width;
  if (s.cuda && chunks > 0) {
    if (tiles > kStreamCounters)
      throw ShapeError("a sum over at most 131072 channels, found " + std::to_string(channels));
    const dim3 grid(static_cast<unsigned>(chunks), static_cast<unsigned>(tiles));
    const auto stream = static_cast<cudaStream_t>(s.handle);
    if (channels % 8 == 0)
      reduce_then_kernel<K, 8><<<grid, 256, 0, stream>>>(f, finish, rows, channels, per_chunk, 8, partials, s.counters);
    else
      reduce_then_kernel<K, 1>
          <<<grid, 256, 0, stream>>>(f, finish, rows, channels, per_chunk, 32, partials, s.counters);
    return check_launch("channel reduction launch");
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
