#include "depthwise.h"
#include "exec/lanes.h"
#include "exec/launch.h"

namespace convolt {
namespace {

int extent(const Tensor& t, int i) { return static_cast<int>(t.shape[i]); }

// dw(r, s) = the sum of dy(h, w) * x(h * stride - top + r, w * S - left + s). A thread walks along a row of dy and
// along that row of x which one row r of the window takes there: K pixels of x and K sums stay in registers.
template <class T, int K, int S, int W>
struct RowSums {
  const T *x, *dy;
  int in_h, in_w, out_h, out_w, channels, stride_h, top, left;
  Divisor by_out_h;

  // sums[s] += what row `row` of dy [N * H', W', C] makes, of W channels from c.
  HD void add(int64_t row, int r, int c, Lanes<W> (&sums)[K]) const {
    const int64_t n = by_out_h.quotient(row);
    const int h = static_cast<int>(row - n * out_h) * stride_h - top + r;
    if (h < 0 || h >= in_h) return;
    const T* const pixels = x + (((n * in_h + h) * in_w - left) * channels + c);
    const T* const gradients = dy + (row * out_w * channels + c);
    Lanes<W> window[K];  // the m-th pixel of the padded row at m % K
    unrolled<K - S>([&](int m) {
      window[m] = Ahead<T, W>::of(pixels + int64_t{m} * channels, m >= left && m < left + in_w).lanes();
    });
    for (int w = 0; w < out_w; w += K) {
      const int m = w * S + K - S;  // the pixel that comes next
      if (w + K <= out_w && m >= left && m + K * S <= left + in_w)
        add_columns<true>(pixels, gradients, w, window, sums);
      else
        add_columns<false>(pixels, gradients, w, window, sums);
    }
  }

private:
  // What the K columns of dy from w on make; kWhole: all that is read exists.
  template <bool kWhole>
  HD void add_columns(const T* pixels, const T* gradients, int w, Lanes<W> (&window)[K], Lanes<W> (&sums)[K]) const {
    Ahead<T, W> pixel[K][S], gradient[K];
    const T *p = pixels + int64_t{w * S + K - S} * channels, *g = gradients + int64_t{w} * channels;
    unrolled<K>([&](int u) {
      gradient[u] = Ahead<T, W>::of(g, kWhole || w + u < out_w);
      g += channels;
      unrolled<S>([&](int e) {
        const int m = (w + u) * S + K - S + e;
        pixel[u][e] = Ahead<T, W>::of(p, kWhole || (m >= left && m < left + in_w));
        p += channels;
      });
    });
    unrolled<K>([&](int u) {
      if (!kWhole && w + u >= out_w) return;
      unrolled<S>([&](int e) { window[(u * S + K - S + e) % K] = pixel[u][e].lanes(); });
      const Lanes<W> factor = gradient[u].lanes();
      unrolled<K>([&](int s) { add_product(sums[s], factor, window[(u * S + s) % K]); });
    });
  }
};

#if defined(__CUDACC__)
// A block sums `lanes` packets of channels over the rows of one chunk, for all K rows of the window, `slices` rows of
// dy at a time; the slices are joined in order.
template <int K, int W, class F>
__global__ void __launch_bounds__(256)
    row_sums_kernel(F f, int64_t rows, int64_t per_chunk, int lanes, int slices, float* partials) {
  __shared__ float joined[W][256];
  const int t = threadIdx.x, lane = t % lanes, r = t / lanes % K, slice = t / lanes / K;
  const int c = (blockIdx.x * lanes + lane) * W;
  const int64_t first = blockIdx.y * per_chunk, last = first + per_chunk < rows ? first + per_chunk : rows;
  Lanes<W> sums[K] = {};
  if (c < f.channels)
    for (int64_t row = first + slice; row < last; row += slices) f.add(row, r, c, sums);
  float* out = partials + (blockIdx.y * K + r) * int64_t{K} * f.channels + c;
  unrolled<K>([&](int s) {
    unrolled<W>([&](int j) { joined[j][t] = sums[s].v[j]; });
    __syncthreads();
    if (slice == 0 && c < f.channels) {
      Floats<W> total = {};
#pragma unroll 1
      for (int other = 0; other < slices; ++other)
        unrolled<W>([&](int j) { total[j] += joined[j][t + other * lanes * K]; });
      store(out, total);
    }
    __syncthreads();
    out += f.channels;
  });
}
#endif

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

template <class T, int K, int S, int W>
void sum_run(const RowSums<T, K, S, W>& f, int64_t first, int64_t last, int c, float* sums) {
  for (int r = 0; r < K; ++r) {
    Lanes<W> of_run[K] = {};
    for (int64_t row = first; row < last; ++row) f.add(row, r, c, of_run);
    for (int s = 0; s < K; ++s) {
      float* const p = sums + (r * K + s) * f.channels + c;
      Floats<W> sum = load<W>(p);
      const Floats<W> more = floats(of_run[s]);
      for_lanes<W>([&](int j) { sum[j] += more[j]; });
      store(p, sum);
    }
  }
}

template <class T, int K, int S, int W>
void sum_rows_on_cpu(const Chunks& chunks, float* partials, RowSums<T, K, S, W> f) {
  // Few chunks are shared by several threads, each with some of the channels.
  const int64_t packets = f.channels / W, groups = std::min<int64_t>(packets, (64 + chunks.count - 1) / chunks.count);
  [[maybe_unused]] const int64_t products = chunks.rows * f.out_w * f.channels * K * K;
#pragma omp parallel for schedule(static) firstprivate(f) if (products > kParallelElements)
  for (int64_t i = 0; i < chunks.count * groups; ++i) {
    const int64_t chunk = i / groups, group = i % groups;
    const int begin = static_cast<int>(group * packets / groups) * W,
              end = static_cast<int>((group + 1) * packets / groups) * W;
    float* const sums = partials + chunk * K * K * f.channels;
    for (int t = 0; t < K * K; ++t) std::fill(sums + t * f.channels + begin, sums + t * f.channels + end, 0.F);
    const int64_t last = std::min(chunks.rows, (chunk + 1) * chunks.per_chunk);
    for (int64_t row = chunk * chunks.per_chunk; row < last; row += chunks.per_run)
      for (int c = begin; c < end; c += W) sum_run(f, row, std::min(row + chunks.per_run, last), c, sums);
  }
}

template <class T>
struct Join {
  const float* partials;  // [chunks, count, channels]
  T* dw;
  Divisor by_channels;
  int channels, count;
  int64_t chunks;
  HD void operator()(int64_t i) const {
    double sum = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += static_cast<double>(partials[chunk * count * channels + i]);
    const int64_t t = by_channels.quotient(i);
    dw[(i - t * channels) * count + t] = static_cast<T>(static_cast<float>(sum));
  }
};

template <int K, int S, int W, class T>
void sum_rows(Stream s, const Tensor& x, const Tensor& dy, const Chunks& chunks, float* partials,
              const DepthwiseWindow& k) {
  const RowSums<T, K, S, W> f{x.as<const T>(), dy.as<const T>(), extent(x, 1),        extent(x, 2),
                              extent(dy, 1),   extent(dy, 2),    extent(x, 3),        k.stride_h,
                              k.pad.top,       k.pad.left,       Divisor(dy.shape[1])};
#if defined(__CUDACC__)
  if constexpr (W * sizeof(T) <= 16)
    if (s.cuda) {
      const int packets = f.channels / W, most = std::min(32, static_cast<int>(128 / (W * sizeof(T))));
      const int slabs = (packets + most - 1) / most, lanes = (packets + slabs - 1) / slabs, slices = 256 / (lanes * K);
      row_sums_kernel<K, W>
          <<<dim3(slabs, static_cast<unsigned>(chunks.count)), lanes * K * slices, 0,
             static_cast<cudaStream_t>(s.handle)>>>(f, chunks.rows, chunks.per_chunk, lanes, slices, partials);
      return check_launch("depthwise weight gradient launch");
    }
#else
  (void)s;
#endif
  sum_rows_on_cpu(chunks, partials, f);
}

// In packets of 16 bytes on a GPU and of eight channels on the CPU, where the channels fill them.
template <int K, int S, class T>
void sum_rows_of(Stream s, const Tensor& x, const Tensor& dy, const Chunks& chunks, float* partials,
                 const DepthwiseWindow& k) {
  constexpr int kDeviceLanes = 16 / sizeof(T);
  if (!s.cuda && x.shape[3] % 8 == 0) return sum_rows<K, S, 8, T>(s, x, dy, chunks, partials, k);
  if (x.shape[3] % kDeviceLanes == 0) return sum_rows<K, S, kDeviceLanes, T>(s, x, dy, chunks, partials, k);
  sum_rows<K, S, 1, T>(s, x, dy, chunks, partials, k);
}

template <int K, class T>
void sum_rows_of(Stream s, const Tensor& x, const Tensor& dy, const Chunks& chunks, float* partials,
                 const DepthwiseWindow& k) {
  if (k.stride_w == 1) return sum_rows_of<K, 1, T>(s, x, dy, chunks, partials, k);
  sum_rows_of<K, 2, T>(s, x, dy, chunks, partials, k);
}

}  // namespace

int64_t depthwise_wgrad_scratch(const Shape& dy, DType dtype, int kernel) {
  return Chunks(dy, dtype).count * kernel * kernel * dy[3] * 4;
}

void depthwise_wgrad(Stream s, const Tensor& x, const Tensor& dy, float* scratch, const Tensor& dw,
                     const DepthwiseWindow& window) {
  const Chunks chunks(dy.shape, dy.dtype);
  dispatch_float(dy.dtype, "depthwise_wgrad", [&](auto t) {
    using T = decltype(t);
    if (window.kernel == 3) sum_rows_of<3, T>(s, x, dy, chunks, scratch, window);
    if (window.kernel == 5) sum_rows_of<5, T>(s, x, dy, chunks, scratch, window);
    if (window.kernel == 7) sum_rows_of<7, T>(s, x, dy, chunks, scratch, window);
    const int channels = extent(dy, 3), count = window.kernel * window.kernel;
    for_each(s, dw.elements(), Join<T>{scratch, dw.as<T>(), Divisor(channels), channels, count, chunks.count});
  });
}

}  // namespace convolt
