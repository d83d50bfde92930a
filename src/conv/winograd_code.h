// The inner loops of the Winograd convolutions, compiled once for each instruction set. Functions of this header are
// always inlined: the linker must not keep the AVX-512 copy of one for processors without it.
#pragma once

#include <cstdint>

#include "convolt/dtype.h"

namespace convolt::winograd {

// Channels come in whole vectors of the widest instruction set.
constexpr int kChannels = 16;
constexpr int kMostPoints = 36;

// Where the points of a tile lie: point p, channel c at data[p * point_stride + c / panel * panel_stride + c % panel].
struct Points {
  float* data = nullptr;
  int64_t point_stride = 0;
  int panel = kChannels;
  int64_t panel_stride = kChannels;
};

// Pixels of an NHWC picture, or taps of OHWI weights: pixel (i, j) lies at data + offset + i * row + j * pixel, all in
// bytes, and exists for i in [first_row, end_row) and j in [first_column, end_column).
struct Window {
  char* data = nullptr;
  int64_t offset = 0, row = 0, pixel = 0;
  int first_row = 0, end_row = 0, first_column = 0, end_column = 0;
  [[gnu::always_inline]] bool has(int i, int j) const {
    return i >= first_row && i < end_row && j >= first_column && j < end_column;
  }
  [[gnu::always_inline]] bool is_whole(int side) const { return has(0, 0) && has(side - 1, side - 1); }
  [[gnu::always_inline]] char* at(int i, int j) const { return data + (offset + i * row + j * pixel); }
};

struct Channels {
  DType dtype = DType::f32;
  int count = 0;  // a multiple of kChannels
};

// (bias ? x + bias : x), and where it clamps at least 0 and at most `high`.
struct Finish {
  const float* bias = nullptr;
  float high = 0;
  bool clamps = false;
};

// sums[r, j] (+)= the sum over d < depth of left(r, d) * right[d * columns + j]. The left factors of a row lie in runs
// of `left_run`: left(r, d) = left[d / left_run * left_jump + d % left_run * left_step + r * (the row's stride)].
struct Product {
  const float* left = nullptr;
  int left_run = kChannels;
  int64_t left_step = 1, left_jump = 0;
  const float* right = nullptr;  // a panel: [depth, columns]
  float* sums = nullptr;
  int64_t sums_row = 0;
  int depth = 0;
  bool adds = false;
};

// F(tile x tile, 3 x 3): tiles of tile + 2 pixels a side are read, and have as many points; tile x tile are written.
// The matrices A, B and G are in winograd_loops.h.
struct Transforms {
  int tile;
  [[gnu::always_inline]] int side() const { return tile + 2; }
  [[gnu::always_inline]] int points() const { return side() * side(); }
  // points = B^T d B of side x side pixels d; those that do not exist are 0.
  void (*pixels)(const Channels& channels, const Window& pixels, const Points& to);
  // points = A d A^T of tile x tile gradients d; those that do not exist are 0.
  void (*gradients)(const Channels& channels, const Window& pixels, const Points& to);
  // points = G w G^T of 3 x 3 weights w.
  void (*weights)(const Channels& channels, const Window& taps, const Points& to);
  // pixels = A^T points A, tile x tile, of the channels of one panel, finished; those that do not exist are left out.
  void (*output)(const Channels& channels, const float* points, int64_t point_stride, const Window& pixels,
                 const Finish& finish);
  // taps = G^T points G, 3 x 3.
  void (*weight_gradient)(const Channels& channels, const Points& points, const Window& taps);
};

struct Code {
  const char* name;
  int most_rows;  // of one product
  // Columns of a panel of a matrix with so many columns in all, a multiple of kChannels.
  int (*panel)(int columns);
  Transforms transforms[3];  // of tiles of 2, 3 and 4
  // Products of `rows` rows, 1 to most_rows, and a panel's columns. The rows' stride is kChannels or 1.
  void (*multiply_strided)(const Product& product, int rows, int columns);
  void (*multiply_adjacent)(const Product& product, int rows, int columns);
};

extern const Code kAvx2;
extern const Code kAvx512;

}  // namespace convolt::winograd
