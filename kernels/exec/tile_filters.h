// The filters of a tile on the CPU, found for eight pixels at a time: which source pixels each takes and their weights.
// A filter that reaches over the edge takes pixels from the edge on; those that it does not cover get weight 0.
#pragma once

#include "exec/axis.h"

#if !defined(__CUDA_ARCH__)
namespace convolt {

struct alignas(32) TileFilters {
  float across[kThreads * kFilterTaps];  // [pixel][N] of N columns
  float down[kFilterTaps * kThreads];    // [row][pixel], of a general map; with what makes a sum the pixel
  float whole[kThreads];                 // sum of the weights, of an axis-aligned map
  float fill[kThreads];                  // the part of the pixel that is fill
  int32_t from[kThreads];                // the first source pixel
};

// Of an axis-aligned map, in source columns [first, last), which hold all that the tile needs; N columns each, 4 or 8.
template <int N>
HD void find_columns(TileFilters& f, const RowRecord& r, const Axis& columns, const Tile& tile, int first, int last) {
  for (int t = 0; t < tile.count; t += 8) {
    const Eight x = kIota + static_cast<float>(tile.x0 + t);
    const Eight centres = columns.bordered(source_x(r, x, static_cast<float>(tile.y)));
    const Eight from = columns.windows(centres, static_cast<float>(first), static_cast<float>(last), N);
    const EightInts inside = columns.inside(centres);
    Eight weights[N], whole{};
    for (int i = 0; i < N; ++i) {
      weights[i] = inside ? columns.weights_at(from + (static_cast<float>(i) + 0.5F) - centres) : Eight{};
      whole += weights[i];
    }
    put_transposed<N>(weights, f.across + t * N);
    put(f.whole + t, inside ? whole : Eight{} + 1.F);
    put(f.fill + t, inside ? Eight{} : Eight{} + 1.F);
    put(f.from + t, __builtin_convertvector(from, EightInts) - first);
  }
}

// Of a general map; N columns each.
template <int N>
HD void find_filters(TileFilters& f, const RowRecord& r, const Axis& columns, const Axis& rows, const Tile& tile) {
  const int taps = rows.taps();
  for (int t = 0; t < tile.count; t += 8) {
    const Eight x = kIota + static_cast<float>(tile.x0 + t);
    const Eight cx = columns.bordered(source_x(r, x, static_cast<float>(tile.y)));
    const Eight cy = rows.bordered(source_y(r, x, static_cast<float>(tile.y)));
    const Eight left = columns.windows(cx, columns.low, columns.high, N);
    const Eight top = rows.windows(cy, rows.low, rows.high, taps);
    Eight across[N], across_inside{}, down[kFilterTaps], down_inside{};
    for (int i = 0; i < N; ++i) {
      across[i] = columns.weights_at(left + (static_cast<float>(i) + 0.5F) - cx);
      across_inside += across[i];
    }
    for (int j = 0; j < taps; ++j) {
      down[j] = rows.weights_at(top + (static_cast<float>(j) + 0.5F) - cy);
      down_inside += down[j];
    }
    const Eight inside = across_inside * down_inside;
    Eight whole = inside;
    const Eight begin_x = columns.begins(cx), begin_y = rows.begins(cy);
    if (columns.fills() && !all((begin_x == left) & (begin_y == top)))  // taps outside the box are fill
      whole = columns.sums_of_weights(begin_x + 0.5F - cx, N) * rows.sums_of_weights(begin_y + 0.5F - cy, taps);
    const Eight scale = 1.F / (255.F * whole);
    for (int j = 0; j < taps; ++j) put(f.down + j * kThreads + t, down[j] * scale);
    put_transposed<N>(across, f.across + t * N);
    put(f.fill + t, 1.F - inside / whole);
    put(f.from + t, __builtin_convertvector(top, EightInts) * r.stride + __builtin_convertvector(left, EightInts));
  }
}

}  // namespace convolt
#endif
