// One formula, two executors: for_each, for_each_packet, for_each_channel_packet. The functor runs on the GPU (grid
// stride) or in an OpenMP loop on the CPU.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>
#include <vector>

#include "device/device.h"
#include "exec/lanes.h"

namespace convolt {

// Waking the other CPU threads costs about as much as this many element operations: shorter loops run on one.
constexpr int64_t kParallelElements = 16384;

// a / divisor for a >= 0 without a division: on a GPU one of 64 bits is a call of some 70 instructions, around which
// registers spill. Exact while (a + 1) * divisor <= 2^64, which no tensor's indices exceed. Made on the host; a divisor
// of 0 is allowed where nothing is divided.
class Divisor {
public:
  explicit constexpr Divisor(int64_t divisor)
      : reciprocal_(divisor ? ~uint64_t{0} / static_cast<uint64_t>(divisor) : 0) {}
  // The reciprocal, in units of 2^-64, is too small by at most 1: a + 1 makes up for that and still stays below the
  // next quotient.
  HD constexpr int64_t quotient(int64_t a) const {
    return static_cast<int64_t>((static_cast<unsigned __int128>(static_cast<uint64_t>(a) + 1) * reciprocal_) >> 64);
  }

private:
  uint64_t reciprocal_;
};
static_assert(Divisor(1).quotient(int64_t{1} << 62) == int64_t{1} << 62);
static_assert(Divisor(7).quotient((int64_t{7} << 58) - 1) == (int64_t{1} << 58) - 1);
static_assert(Divisor(7).quotient(int64_t{7} << 58) == int64_t{1} << 58);

constexpr int kMultiprocessors = 132;  // of an H100 or H200: what grids are made to fill

// Blocks of a grid whose threads stride over what `needed` blocks would do in one turn, where a multiprocessor has
// `resident` blocks at once: whole waves of them, since in a last one that is not whole most multiprocessors would wait
// for the rest.
constexpr int64_t grid_stride_blocks(int64_t needed, int resident) {
  return std::min<int64_t>(needed, kMultiprocessors * resident * (16 / resident));
}
static_assert(grid_stride_blocks(100, 3) == 100);
static_assert(grid_stride_blocks(1 << 20, 3) == kMultiprocessors * 15);
static_assert(grid_stride_blocks(1 << 20, 8) == kMultiprocessors * 16);

#if defined(__CUDACC__)
inline void check_launch(const char* what) {
  if (const cudaError_t e = cudaGetLastError(); e != cudaSuccess)
    throw DeviceError(std::string(what) + ": " + cudaGetErrorString(e));
}

// Blocks of 256 threads of kKernel that a multiprocessor has at once: of the GPU that the first launch is for. Its
// launch bounds leave room for one at least.
template <auto kKernel>
int resident_blocks() {
  static const int blocks = [] {
    int found = 0;
    if (cudaOccupancyMaxActiveBlocksPerMultiprocessor(&found, kKernel, 256, 0) != cudaSuccess)
      check_launch("asking a GPU how many blocks of a kernel it runs at once");
    return found;
  }();
  return blocks;
}
template <auto kKernel>
unsigned grid_for(int64_t n) {
  return static_cast<unsigned>(grid_stride_blocks((n + 255) / 256, resident_blocks<kKernel>()));
}

template <class F>
__global__ void __launch_bounds__(256, blocks_per_processor<F>()) grid_stride_kernel(int64_t n, F f) {
#pragma unroll 1  // unrolling gains nothing across the stores of f, and begins with a division of 64 bits
  for (int64_t i = blockIdx.x * int64_t{256} + threadIdx.x; i < n; i += int64_t{gridDim.x} * 256) f(i);
}
#endif

// A tensor as rows of channels, its last extent.
inline int channels_of(const Tensor& x) { return static_cast<int>(x.shape[-1]); }
inline int64_t rows_of(const Tensor& x) { return x.elements() / x.shape[-1]; }

// Set by tests only: the bytes above which results pass the caches by; negative: those of the last cache.
extern int64_t past_caches_from;

// A result of `bytes` at data. On the CPU one that is larger than the last cache passes the caches by, unless it takes
// the place of an operand: a line that is written whole then need not be read first, and little of it would be left for
// the next kernel anyway. The executors wait for such stores before they return.
template <class T>
Result<T> result_of(Stream s, void* data, int64_t bytes, std::initializer_list<const void*> operands) {
  const bool in_place = std::find(operands.begin(), operands.end(), data) != operands.end();
  const bool aligned = reinterpret_cast<uintptr_t>(data) % 32 == 0;
  const int64_t from = past_caches_from < 0 ? cpu_last_cache_bytes() : past_caches_from;
  return {static_cast<T*>(data), !s.cuda && aligned && !in_place && bytes > from};
}
template <class T>
Result<T> result_of(Stream s, const Tensor& y, std::initializer_list<const void*> operands) {
  return result_of<T>(s, y.data, y.bytes(), operands);
}

// Once a thread is past it, its stores past the caches have arrived.
inline void wait_for_stores() {
#if !defined(__CUDA_ARCH__)
  _mm_sfence();
#endif
}

// On the CPU every thread has its own copy of f (firstprivate): a shared one could be what f's stores write to, for all
// the compiler knows, and would be read again after each.

template <class F>
void for_each_on_cpu(int64_t n, F f, [[maybe_unused]] int64_t elements) {
#pragma omp parallel firstprivate(f) if (n * elements > kParallelElements)
  {
#pragma omp for schedule(static) nowait
    for (int64_t i = 0; i < n; ++i) f(i);
    wait_for_stores();
  }
}

// f(i) for i in [0, n), in any order, on a CUDA stream. What runs only there is not compiled for the CPU.
template <class F>
void for_each_on_cuda([[maybe_unused]] Stream s, [[maybe_unused]] int64_t n, [[maybe_unused]] const F& f) {
#if defined(__CUDACC__)
  if (n <= 0) return;
  grid_stride_kernel<<<grid_for<grid_stride_kernel<F>>(n), 256, 0, static_cast<cudaStream_t>(s.handle)>>>(n, f);
  check_launch("kernel launch");
#endif
}

// The same wherever it runs. `elements`: about how many element operations one call does.
template <class F>
void for_each(Stream s, int64_t n, F f, int64_t elements = 4) {
  if (n <= 0) return;
  if (s.cuda) return for_each_on_cuda(s, n, f);
  for_each_on_cpu(n, f, elements);
}

template <int W, class F>
struct RunPackets {
  F f;
  int64_t n;
  HD void operator()(int64_t k) const {
    const int64_t i = k * W;
    if (i + W <= n) {
      f.template run<W>(i);
    } else {
      for (int64_t j = i; j < n; ++j) f.template run<1>(j);
    }
  }
};

// Elements of T that a thread of a GPU takes at once: neighbouring threads then write neighbouring 16 bytes.
template <class T>
constexpr int kPacket = static_cast<int>(16 / sizeof(T));

// f.run<W>(i) for whole packets of W elements from i, f.run<1>(i) for the tail. W is 8, and on the GPU kPacket<T>, with
// T the largest type that f reads or writes. Pointers start on 16 bytes.
template <class T, class F>
void for_each_packet(Stream s, int64_t n, F f) {
  constexpr int kWidth = kPacket<T>;
  if (s.cuda) return for_each_on_cuda(s, (n + kWidth - 1) / kWidth, RunPackets<kWidth, F>{f, n});
  for_each_on_cpu((n + 7) / 8, RunPackets<8, F>{f, n}, 8);
}

// What f.run<W>(.., c) is told of a row: f.at(row), found once for all its channels on the CPU, or the row itself.
template <class F>
HD auto place_of(const F& f, int64_t row) {
  if constexpr (requires { f.at(row); })
    return f.at(row);
  else
    return row;
}

template <int W, class F>
struct RunChannelPackets {
  static constexpr int kBlocksPerProcessor = blocks_per_processor<F>();
  F f;
  Divisor by_packets;
  int packets;  // per row
  HD void operator()(int64_t k) const {
    const int64_t row = by_packets.quotient(k);
    f.template run<W>(place_of(f, row), static_cast<int>(k - row * packets) * W);
  }
};

// A functor may make what it needs of W channels from c on once for all rows: f.of_channels<W>(c). In place of run it
// then has put<W>(row, c, operands, of_channels), of f.operands<W>(row, c, exists), which a GPU reads of two rows at
// once: beside what it knows of channels a thread has registers for no more.
template <int W, class F>
constexpr bool kKnowsChannels = requires(const F& f) {
  f.template of_channels<W>(0);
};

#if defined(__CUDACC__)
// The threads go down the rows, each with channels of its own. There are at least as many as packets in a row.
template <int W, class F>
__global__ void __launch_bounds__(256) channels_kernel(int64_t rows, int packets, F f) {
  const int64_t threads = int64_t{gridDim.x} * 256, rows_at_once = threads / packets;
  const int64_t first = blockIdx.x * int64_t{256} + threadIdx.x;
  if (first >= rows_at_once * packets) return;
  const int64_t row_of_first = first / packets;
  const int c = static_cast<int>(first - row_of_first * packets) * W;
  const auto known = f.template of_channels<W>(c);
  read_ahead<2>(
      row_of_first, rows, rows_at_once,
      [&](int64_t row, bool exists) { return f.template operands<W>(row, c, exists); },
      [&](int64_t row, const auto& operands) { f.template put<W>(row, c, operands, known); });
}

template <int W, class F>
void channel_packets_on_cuda(Stream s, int64_t rows, int channels, F f) {
  const int packets = channels / W;
  if constexpr (kKnowsChannels<W, F>) {
    if (rows <= 0) return;
    const unsigned blocks =
        std::max(grid_for<channels_kernel<W, F>>(rows * packets), static_cast<unsigned>((packets + 255) / 256));
    channels_kernel<W><<<blocks, 256, 0, static_cast<cudaStream_t>(s.handle)>>>(rows, packets, f);
    check_launch("kernel launch");
  } else {
    for_each_on_cuda(s, rows * packets, RunChannelPackets<W, F>{f, Divisor(packets), packets});
  }
}
#endif

template <int W, class F>
void channel_packets_on_cpu(int64_t rows, int channels, F f) {
#pragma omp parallel firstprivate(f) if (rows * channels > kParallelElements)
  {
    if constexpr (kKnowsChannels<W, F>) {
      std::vector<decltype(f.template of_channels<W>(0))> known;
      for (int c = 0; c < channels; c += W) known.push_back(f.template of_channels<W>(c));
#pragma omp for schedule(static) nowait
      for (int64_t row = 0; row < rows; ++row)
        for (int c = 0; c < channels; c += W)
          f.template put<W>(row, c, f.template operands<W>(row, c, true), known[static_cast<size_t>(c / W)]);
    } else {
#pragma omp for schedule(static) nowait
      for (int64_t row = 0; row < rows; ++row) {
        const auto place = place_of(f, row);
        for (int c = 0; c < channels; c += W) f.template run<W>(place, c);
      }
    }
    wait_for_stores();
  }
}

// Packets of W channels wherever they run.
template <int W, class F>
void for_each_channel_packet_of([[maybe_unused]] Stream s, int64_t rows, int channels, F f) {
#if defined(__CUDACC__)
  if (s.cuda) return channel_packets_on_cuda<W>(s, rows, channels, f);
#endif
  channel_packets_on_cpu<W>(rows, channels, f);
}

// For [rows, channels] tensors with per-channel operands: f.run<W>(row, c), or f.run<W>(f.at(row), c), or what a
// functor that knows channels has in their place, for each packet of W channels from c. W is as for packets of elements
// where the channels divide into packets (then row * channels + c is a multiple of W too), else 1. `steps`: other
// extents and offsets that must divide so too, all joined by |.
template <class T, class F>
void for_each_channel_packet([[maybe_unused]] Stream s, int64_t rows, int channels, F f, int64_t steps = 0) {
#if defined(__CUDACC__)
  constexpr int kWidth = kPacket<T>;
  if (s.cuda && (channels | steps) % kWidth == 0) return channel_packets_on_cuda<kWidth>(s, rows, channels, f);
  if (s.cuda) return channel_packets_on_cuda<1>(s, rows, channels, f);
#endif
  if ((channels | steps) % 8 == 0) return channel_packets_on_cpu<8>(rows, channels, f);
  channel_packets_on_cpu<1>(rows, channels, f);
}

}  // namespace convolt
