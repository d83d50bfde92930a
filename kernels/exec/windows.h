// Reductions of windows of NHWC pictures to one pixel each.
#pragma once

#include "exec/grid.h"

namespace convolt {

// A window's part of the picture.
struct Inside {
  int64_t out, in;  // first elements of the pooled pixel, and of the first pixel of the part
  // Rows and columns of the part, each with how many of the window are before it, where that matters. In this order:
  // g++ compares neighbours as one number, for which it waits until both have left the core.
  int rows, skipped_rows, columns, skipped_columns;
  float scale;  // of averages
};
// A number of rows and columns to loop over: known when the kernel is compiled, or only when it runs. On the CPU loops
// of two or three turns cost more than what is in them, so that kernels ask for the usual ones first.
template <int kRows, int kColumns>
struct Known {
  static constexpr int rows = kRows, columns = kColumns;
};
struct Unknown {
  int rows, columns;
};

// The reduction of windows. F is asked for the sums of W channels from c: f.begin(part, sums), f.take(sums, i, c,
// position) for each pixel of the part in order, which begins with channel c at element i, f.end_line(sums) after each
// of its lines, f.finish(part, c, sums). f.address(i) is where element i lies.
template <class F>
struct ReduceWindow {
  static constexpr int kBlocksPerProcessor = blocks_per_processor<F>();
  F f;
  HD Inside at(int64_t row) const { return f.at(row); }
  template <int W>
  HD void run(const Inside& part, int c) const {
#if !defined(__CUDA_ARCH__)
    if (part.rows == 2 && part.columns == 2) return sweep<W>(part, c, Known<2, 2>{});
    if (part.rows == 3 && part.columns == 3) return sweep<W>(part, c, Known<3, 3>{});
#endif
    sweep<W>(part, c, Unknown{part.rows, part.columns});
  }
  template <int W, class Extents>
  HD void sweep(const Inside& part, int c, Extents extents) const {
    typename F::template Sums<W> sums;
    f.begin(part, sums);
    int64_t line = part.in + c;
    for (int r = 0; r < extents.rows; ++r, line += f.line_elements()) {
      int64_t i = line;
#if defined(__CUDA_ARCH__)
      const int64_t end = line + extents.columns * f.channels();
#pragma unroll 1  // windows are narrow, and the addresses of several pixels at once would spill
      for (int s = 0; i < end; ++s, i += f.channels()) f.take(sums, i, c, f.position(part, r, s));
#else
      for (int s = 0; s < extents.columns; ++s, i += f.channels()) {
        __builtin_prefetch(static_cast<const char*>(f.address(i)) + kAhead);
        f.take(sums, i, c, f.position(part, r, s));
      }
#endif
      f.end_line(sums);
    }
    f.finish(part, c, sums);
  }
  static constexpr int kAhead = 2048;  // bytes; memory is read pixel by pixel of several lines in turn
};

template <class T, class F>
void for_each_window(Stream s, int64_t windows, F f) {
  for_each_channel_packet<T>(s, windows, f.channels(), ReduceWindow<F>{f});
}

// Sums of lines, then of those: large windows cost little accuracy.
template <int W>
struct LineSums {
  Floats<W> all, line;
};

// The means of windows. Geometry: at(row) with Inside::scale, channels(), line_elements().
template <class T, class Geometry>
struct WindowMean {
  static constexpr int kBlocksPerProcessor = blocks_elsewhere(5);
  const T* x;
  Result<T> y;
  Geometry geometry;

  template <int W>
  using Sums = LineSums<W>;
  HD int channels() const { return geometry.channels(); }
  HD int64_t line_elements() const { return geometry.line_elements(); }
  HD const void* address(int64_t i) const { return x + i; }
  HD Inside at(int64_t row) const { return geometry.at(row); }
  HD float position(const Inside&, int, int) const { return 0; }
  template <int W>
  HD void begin(const Inside&, Sums<W>& sums) const {
    for_lanes<W>([&](int j) { sums.all[j] = sums.line[j] = 0; });
  }
  template <int W>
  HD void take(Sums<W>& sums, int64_t i, int, float) const {
    const Floats<W> v = load<W>(x + i);
    for_lanes<W>([&](int j) { sums.line[j] += v[j]; });
  }
  template <int W>
  HD void end_line(Sums<W>& sums) const {
    for_lanes<W>([&](int j) {
      sums.all[j] += sums.line[j];
      sums.line[j] = 0;
    });
  }
  template <int W>
  HD void finish(const Inside& part, int c, const Sums<W>& sums) const {
    Floats<W> mean;
    for_lanes<W>([&](int j) { mean[j] = sums.all[j] * part.scale; });
    store(y + part.out + c, mean);
  }
};

}  // namespace convolt
