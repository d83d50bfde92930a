// Pixels of NHWC pictures from the rows of a [N * H * W, C] tensor.
#pragma once

#include "exec/launch.h"

namespace convolt {

struct Pixel {
  int64_t n;
  int h, w;
};
// An [N, h, w] grid, whose pixels are the rows of a tensor [N * h * w, C].
struct Grid {
  int h, w;
  Divisor by_h, by_w;
  Grid(int height, int width) : h(height), w(width), by_h(height), by_w(width) {}
  explicit Grid(const Tensor& x) : Grid(static_cast<int>(x.shape[1]), static_cast<int>(x.shape[2])) {}
  HD Pixel pixel(int64_t row) const {
    const int64_t line = by_w.quotient(row), n = by_h.quotient(line);
    return {n, static_cast<int>(line - n * h), static_cast<int>(row - line * w)};
  }
};

}  // namespace convolt
