// Sums over the rows of a [rows, channels] matrix: fixed chunks, a fixed order, no atomics, so the same bits every time
// and for any number of CPU threads.
#pragma once

#include "exec/block.h"

namespace convolt {

// Rows that one chunk sums: at least 32 rows and at most 256 chunks, whatever the device.
inline int64_t rows_per_chunk(int64_t rows) { return std::max<int64_t>(32, (rows + 255) / 256); }
inline int64_t chunks_of(int64_t rows) {
  return rows == 0 ? 0 : (rows + rows_per_chunk(rows) - 1) / rows_per_chunk(rows);
}

#if defined(__CUDACC__)
// A block sums 32 packets of channels over the rows of one chunk with 8 rows in flight, then joins the 8 in a fixed
// tree.
template <int K, int W, class F>
__global__ void __launch_bounds__(256)
    reduce_channels_kernel(F f, int64_t rows, int channels, int64_t per_chunk, float* partials) {
  __shared__ float tree[8][K][32 * W];
  const int lane = threadIdx.x % 32, slice = threadIdx.x / 32;
  const int c = (blockIdx.y * 32 + lane) * W;
  const int64_t first = blockIdx.x * per_chunk, last = first + per_chunk < rows ? first + per_chunk : rows;
  Floats<W> sums[K] = {};
  if (c < channels)
    for (int64_t row = first + slice; row < last; row += 8) f.template run<W>(row, c, sums);
  for (int k = 0; k < K; ++k)
    for (int j = 0; j < W; ++j) tree[slice][k][lane * W + j] = sums[k][j];
  __syncthreads();
  for (int width = 4; width > 0; width /= 2) {
    if (slice < width)
      for (int k = 0; k < K; ++k)
        for (int j = 0; j < W; ++j) tree[slice][k][lane * W + j] += tree[slice + width][k][lane * W + j];
    __syncthreads();
  }
  if (slice == 0 && c < channels)
    for (int k = 0; k < K; ++k)
      for (int j = 0; j < W; ++j)
        partials[(blockIdx.x * K + k) * static_cast<int64_t>(channels) + c + j] = tree[0][k][lane * W + j];
}
#endif

template <int K, int W, class F>
void reduce_channels_of(Stream s, int64_t rows, int channels, float* partials, F f) {
  const int64_t per_chunk = rows_per_chunk(rows), chunks = chunks_of(rows);
  if (chunks == 0) return;
#if defined(__CUDACC__)
  if (s.cuda) {
    const dim3 grid(static_cast<unsigned>(chunks), static_cast<unsigned>((channels + 32 * W - 1) / (32 * W)));
    reduce_channels_kernel<K, W>
        <<<grid, 256, 0, static_cast<cudaStream_t>(s.handle)>>>(f, rows, channels, per_chunk, partials);
    return check_launch("channel reduction launch");
  }
#else
  (void)s;
#endif
#pragma omp parallel for schedule(static)
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const int64_t last = std::min(rows, (chunk + 1) * per_chunk);
    float* out = partials + chunk * K * channels;
    for (int64_t row = chunk * per_chunk; row < last; ++row) {
      for (int c = 0; c < channels; c += W) {
        Floats<W> sums[K];
        for (int k = 0; k < K; ++k)
          for (int j = 0; j < W; ++j) sums[k][j] = row == chunk * per_chunk ? 0.F : out[k * channels + c + j];
        f.template run<W>(row, c, sums);
        for (int k = 0; k < K; ++k)
          for (int j = 0; j < W; ++j) out[k * channels + c + j] = sums[k][j];
      }
    }
  }
}

// partials[chunk][k][c] = sum over the chunk's rows of what f.run<W>(row, c, Floats<W> (&sums)[K]) adds to sums[k].
// partials: f32 [chunks_of(rows), K, channels].
template <int K, class F>
void reduce_channels(Stream s, int64_t rows, int channels, float* partials, F f) {
  if (channels % 8 == 0)
    reduce_channels_of<K, 8>(s, rows, channels, partials, f);
  else
    reduce_channels_of<K, 1>(s, rows, channels, partials, f);
}

}  // namespace convolt
