// Kernels whose threads walk along strips of rows of NHWC pictures, each with a packet of channels, and keep what they
// need again in registers.
#pragma once

#include "exec/launch.h"
#include "exec/ring.h"

namespace convolt {

template <class T>
struct Pictures {
  T* data;
  int h, w, channels;
  explicit Pictures(const Tensor& x)
      : data(x.as<T>()),
        h(static_cast<int>(x.shape[1])),
        w(static_cast<int>(x.shape[2])),
        channels(static_cast<int>(x.shape[3])) {}
  HD int64_t line() const { return int64_t{w} * channels; }
  // The pixel and the channel may lie outside.
  HD T* at(int64_t n, int row, int column, int c) const { return data + (((n * h + row) * w + column) * channels + c); }
};

// Rows [first, end) of those that a thread walks along.
struct Span {
  int first, end;
  HD bool has(int i) const { return i >= first && i < end; }
};

// Which rows and channels a thread makes. Neighbouring threads take neighbouring packets of a slab of channels, and
// then neighbouring strips of rows: a block finds in its cache the rows that strips share.
struct Place {
  int64_t n;
  int strip, packet;  // the packet may lie beyond the last one
};
class Layout {
public:
  Layout(int packets, int strips, int slabs)
      : lanes_((packets + slabs - 1) / slabs),
        strips_(strips),
        slabs_(slabs),
        by_lanes_(lanes_),
        by_strips_(strips),
        by_slabs_(slabs) {}
  int64_t threads(int64_t pictures) const { return pictures * slabs_ * strips_ * lanes_; }
  HD Place place(int64_t i) const {
    const int64_t row = by_lanes_.quotient(i), slab = by_strips_.quotient(row), n = by_slabs_.quotient(slab);
    const int lane = static_cast<int>(i - row * lanes_), of_picture = static_cast<int>(slab - n * slabs_);
    return {n, static_cast<int>(row - slab * strips_), of_picture * lanes_ + lane};
  }

private:
  int lanes_, strips_, slabs_;
  Divisor by_lanes_, by_strips_, by_slabs_;
};

constexpr int kWalkers = 128;  // threads of a block

// The columns of a strip of a picture from `left` on, kColumns at a time, each of kRows rows from `top` on, of W
// channels from c. They are read where they are used: for the CPU, which has few registers and looks ahead by itself.
// Rows and columns outside the picture are not there.
template <class T, int W, int kRows, int kColumns>
class InPlace {
public:
  static constexpr bool kPadded = false;
  static constexpr int kMemory = 0;
  HD InPlace(const Pictures<const T>& x, int64_t n, int c, int top, int left, const Spot&)
      : next_(x.at(n, top, left, c)),
        line_(x.line()),
        column_(left - kColumns),
        width_(x.w),
        channels_(x.channels),
        rows_{-top, x.h - top} {}
  HD void advance() {
    pixel_ = next_;
    next_ += int64_t{kColumns} * channels_;
    column_ += kColumns;
  }
  HD bool has_column(int e) const { return column_ + e >= 0 && column_ + e < width_; }
  HD bool has_row(int a) const { return rows_.has(a); }
  HD Lanes<W> at(int e, int a) const { return load_lanes<W>(pixel_ + int64_t{e} * channels_ + a * line_); }

private:
  const T *pixel_ = nullptr, *next_;  // in the first row
  int64_t line_;
  int column_, width_, channels_;
  Span rows_;
};

// The same with zeros outside the picture, read ahead of their use: for a GPU.
template <class T, int W, int kRows, int kColumns>
class ReadAhead {
  static constexpr int kParts = kRows * kColumns, kBytes = W * sizeof(T);
  using Steps = Ring<kWalkers, ring_steps(kWalkers, kParts* kBytes, 5), kParts, kBytes>;

public:
  static constexpr bool kPadded = true;
  static constexpr int kMemory = Steps::kMemory;
  HD ReadAhead(const Pictures<const T>& x, int64_t n, int c, int top, int left, const Spot& spot)
      : ring_(spot), next_(x.at(n, top, left, c)), line_(x.line()), column_(left), width_(x.w), channels_(x.channels) {
    unrolled<kRows>([&](int a) { rows_ |= (top + a >= 0 && top + a < x.h) << a; });
    ring_.begin([&] { ask(); });
  }
  HD void advance() {
    ring_.advance([&] { ask(); });
  }
  HD Lanes<W> at(int e, int a) const { return ring_.template lanes<T, W>(e * kRows + a); }

private:
  HD void ask() {
    unrolled<kColumns>([&](int e) {
      const int rows = static_cast<unsigned>(column_) < static_cast<unsigned>(width_) ? rows_ : 0;
      const T* pixel = next_;
      unrolled<kRows>([&](int a) {
        ring_.template ask<W>(e * kRows + a, pixel, rows >> a & 1);
        pixel += line_;
      });
      ++column_;
      next_ += channels_;
    });
  }
  Steps ring_;
  const T* next_;  // in the first row
  int64_t line_;
  int column_, width_, channels_, rows_ = 0;  // a bit for each row that exists
};

#if defined(__CUDACC__)
template <class F>
__global__ void __launch_bounds__(kWalkers) walk_kernel(int64_t n, F f) {
  const int64_t i = blockIdx.x * int64_t{kWalkers} + threadIdx.x;
  if constexpr (requires { F::kMemory; }) {
    __shared__ __align__(16) unsigned char memory[F::kMemory];
    if (i < n) f(i, Spot{memory, static_cast<int>(threadIdx.x)});
  } else {
    if (i < n) f(i);
  }
}
#endif

// f(i) for i in [0, n), on a CUDA stream, with a Spot where f has a use for one (F::kMemory); and on the calling thread
// and those it leads, where `products` says how many multiplications that is. Two functions, since the two want other
// packets: only what is launched is compiled for a GPU.
template <class F>
void walk_on_cuda([[maybe_unused]] Stream s, [[maybe_unused]] int64_t n, [[maybe_unused]] const F& f) {
#if defined(__CUDACC__)
  if (n <= 0) return;
  walk_kernel<<<static_cast<unsigned>((n + kWalkers - 1) / kWalkers), kWalkers, 0,
                static_cast<cudaStream_t>(s.handle)>>>(n, f);
  check_launch("walk kernel launch");
#endif
}
template <class F>
void walk_on_cpu(int64_t n, [[maybe_unused]] int64_t products, F f) {
#pragma omp parallel for schedule(static) firstprivate(f) if (products > kParallelElements)
  for (int64_t i = 0; i < n; ++i) f(i);
}

}  // namespace convolt
