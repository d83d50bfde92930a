// Weight gradients of convolutions with few channels a group (see convolve.h): sums over fixed chunks of the rows of
// dy, joined in order.
#pragma once

#include "exec/convolve.h"

namespace convolt {

// dw(r, s) = the sum of dy(h, w) * x(h * stride - top + r, w * S - left + s). A thread walks along a row of dy and
// along that row of x which one row r of the window takes there: K pixels of x and the K * D sums stay in registers.
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

private:
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
    per_chunk = (rows + wanted - 1) / wanted;
    count = (rows + per_chunk - 1) / per_chunk;
    per_run = std::max<int64_t>(1, (256 << 10) / (dy[2] * dy[3] * size_of(dtype)));
  }
};

#if defined(__CUDACC__)
// A block sums `lanes` packets of channels over the rows of one chunk, for all K rows of the window, `slices` rows of
// dy at a time; the slices are joined in order.
template <class T, int K, int S, int W, int D>
__global__ void __launch_bounds__(256)
    row_sums_kernel(RowSums<T, K, S, W, D> f, int64_t rows, int64_t per_chunk, int lanes, int slices, float* partials) {
  __shared__ float joined[W][256];
  const int t = threadIdx.x, lane = t % lanes, r = t / lanes % K, slice = t / lanes / K, channels = f.dy.channels;
  const int c = (blockIdx.x * lanes + lane) * W;
  const int64_t first = blockIdx.y * per_chunk, last = first + per_chunk < rows ? first + per_chunk : rows;
  Lanes<W> sums[K][D] = {};
  if (c < channels)
    for (int64_t row = first + slice; row < last; row += slices) f.add(row, r, c, sums);
  float* out = partials + (blockIdx.y * K + r) * int64_t{K * D} * channels + c;
  unrolled<K>([&](int s) {
    unrolled<D>([&](int i) {
      unrolled<W>([&](int j) { joined[j][t] = sums[s][i].v[j]; });
      __syncthreads();
      if (slice == 0 && c < channels) {
        Floats<W> total = {};
#pragma unroll 1
        for (int other = 0; other < slices; ++other)
          unrolled<W>([&](int j) { total[j] += joined[j][t + other * lanes * K]; });
        store(out, total);
      }
      __syncthreads();
      out += channels;
    });
  });
}
#endif

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

// partials [chunks.count, K * K * D, C].
template <int K, int S, int W, int D, class T>
void sum_rows(Stream s, const Tensor& x, const Tensor& dy, const Chunks& chunks, float* partials,
              const ConvWindow& window) {
  const RowSums<T, K, S, W, D> f(x, dy, window);
#if defined(__CUDACC__)
  if constexpr (W * sizeof(T) <= 16)  // more is the CPU's
    if (s.cuda) {
      const int packets = f.dy.channels / W, most = std::min(32, static_cast<int>(128 / (W * sizeof(T))));
      const int slabs = (packets + most - 1) / most, lanes = (packets + slabs - 1) / slabs, slices = 256 / (lanes * K);
      row_sums_kernel<<<dim3(slabs, static_cast<unsigned>(chunks.count)), lanes * K * slices, 0,
                        static_cast<cudaStream_t>(s.handle)>>>(f, chunks.rows, chunks.per_chunk, lanes, slices,
                                                               partials);
      return check_launch("weight gradient launch");
    }
#else
  (void)s;
#endif
  sum_rows_on_cpu(chunks, partials, f);
}

template <class T>
struct Join {
  const float* partials;  // [chunks, taps, channels]
  T* dw;                  // [channels, taps]
  Divisor by_channels;
  int channels, taps;
  int64_t chunks;
  HD void operator()(int64_t i) const {
    double sum = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += static_cast<double>(partials[chunk * taps * channels + i]);
    const int64_t t = by_channels.quotient(i);
    dw[(i - t * channels) * taps + t] = static_cast<T>(static_cast<float>(sum));
  }
};
template <class T>
void join(Stream s, const Chunks& chunks, const float* partials, const Tensor& dw) {
  const int channels = static_cast<int>(dw.shape[0]), taps = static_cast<int>(dw.elements() / channels);
  for_each(s, dw.elements(), Join<T>{partials, dw.as<T>(), Divisor(channels), channels, taps, chunks.count});
}

}  // namespace convolt
