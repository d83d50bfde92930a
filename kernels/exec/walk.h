// Kernels whose threads walk along strips of rows of NHWC pictures, each with a packet of channels, and keep what they
// need again in registers.
#pragma once

#include "exec/lanes.h"
#include "exec/launch.h"

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
  int64_t line() const { return int64_t{w} * channels; }
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

// The columns of a picture one after the other, each of the rows of one strip.
template <class T>
struct Columns {
  const T* pixel;  // of the next column, in the first row
  int64_t line;
  int column, width, channels;
  Span rows;  // that exist
  HD Columns(const Pictures<const T>& x, int64_t n, int c, int top, int left)
      : pixel(x.at(n, top, left, c)),
        line(int64_t{x.w} * x.channels),
        column(left),
        width(x.w),
        channels(x.channels),
        rows{-top, x.h - top} {}
  HD void advance() {
    ++column;
    pixel += channels;
  }
};
// One of them, W channels of A rows, ahead of its use (see Ahead).
#if defined(__CUDA_ARCH__)
template <class T, int W, int A>
struct Column {
  Ahead<T, W> ahead[A];
  HD void take(Columns<T>& from) {
    const bool exists = from.column >= 0 && from.column < from.width;
    const T* p = from.pixel;
    unrolled<A>([&](int a) {
      ahead[a] = Ahead<T, W>::of(p, exists & from.rows.has(a));
      p += from.line;
    });
    from.advance();
  }
  // The threads of a warp stay together: rows outside are added, as zeros.
  HD bool has(const Columns<T>&, int) const { return true; }
  HD Lanes<W> row(const Columns<T>&, int a) const { return ahead[a].lanes(); }
};
#else
template <class T, int W, int A>
struct Column {
  const T* pixel;
  HD void take(Columns<T>& from) {
    pixel = from.pixel;
    from.advance();
  }
  HD bool has(const Columns<T>& of, int a) const { return of.rows.has(a); }
  HD Lanes<W> row(const Columns<T>& of, int a) const { return load_lanes<W>(pixel + a * of.line); }
};
#endif

#if defined(__CUDACC__)
constexpr int kWalkers = 128;
template <class F>
__global__ void __launch_bounds__(kWalkers) walk_kernel(int64_t n, F f) {
  const int64_t i = blockIdx.x * int64_t{kWalkers} + threadIdx.x;
  if (i < n) f(i);
}
#endif

// f(i) for i in [0, n), on a CUDA stream; and on the calling thread and those it leads, where `products` says how many
// multiplications that is. Two functions, since the two want other packets: only what is launched is compiled for a
// GPU.
template <class F>
void walk_on_cuda([[maybe_unused]] Stream s, [[maybe_unused]] int64_t n, [[maybe_unused]] const F& f) {
#if defined(__CUDACC__)
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
