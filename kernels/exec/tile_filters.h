// The filters of a tile on the CPU, found for eight pixels at a time: which source pixels each takes and their weights.
// A filter that reaches over the edge takes pixels from the edge on; those that it does not cover get weight 0.
#pragma once

#include "exec/axis.h"

#if !defined(__CUDA_ARCH__)
namespace convolt {

// Of a general map.
struct alignas(32) TileFilters {
  float across[kThreads * kFilterTaps];  // [pixel][N] of N columns
  float down[kFilterTaps * kThreads];    // [row][pixel], with what makes a sum the pixel
  float fill[kThreads];                  // the part of the pixel that is fill
  int32_t from[kThreads];                // the first source pixel
};

// For how many columns there are loops, of those that hold so many taps.
HD int summed_columns(int taps) { return taps <= 2 ? 2 : taps <= 4 ? taps : taps <= 6 ? 6 : kFilterTaps; }

// Of an axis-aligned map: the same in every row of a picture.
struct alignas(32) ColumnFilters {
  float weights[kFilterTaps][kThreads];  // [column][pixel], of sum 1; 0 where the pixel is fill
  float fill[kThreads];                  // 1 there
  int32_t from[kThreads];                // the first source column, after `first`
  int picture, x0;                       // of which they are
  int first, last, count;                // source columns of the tile, and of each pixel

  bool are_of(const Tile& tile) const { return picture == tile.picture && x0 == tile.x0; }
};

// In source columns [first, last), which hold all that the tile needs; `count` of them for each pixel.
HD void find_columns(ColumnFilters& f, const RowRecord& r, const Axis& columns, const Tile& tile, int count, int first,
                     int last) {
  f.picture = tile.picture;
  f.x0 = tile.x0;
  f.first = first;
  f.last = last;
  f.count = count;
  for (int t = 0; t < tile.count; t += 8) {
    const Eight x = first_eight() + static_cast<float>(tile.x0 + t);
    const Eight centres = columns.bordered(source_x(r, x, static_cast<float>(tile.y)));
    const Eight from = columns.windows(centres, static_cast<float>(first), static_cast<float>(last), count);
    const Eight::Mask inside = columns.inside(centres);
    const Eight whole = columns.sums_of_weights(from + 0.5F - centres, count);
    for (int i = 0; i < count; ++i) {
      const Eight weight = columns.weights_at(from + (static_cast<float>(i) + 0.5F) - centres);
      put(f.weights[i] + t, choose(inside, weight / whole, 0.F));
    }
    put(f.fill + t, choose(inside, 0.F, 1.F));
    put(f.from + t, ints_of(from) - first);
  }
}

// Of a general map; N columns each.
template <int N>
HD void find_filters(TileFilters& f, const RowRecord& r, const Axis& columns, const Axis& rows, const Tile& tile) {
  const int taps = rows.taps();
  for (int t = 0; t < tile.count; t += 8) {
    const Eight x = first_eight() + static_cast<float>(tile.x0 + t);
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
    const Eight begin_x = columns.begin(cx), begin_y = rows.begin(cy);
    if (columns.fills() && !all((begin_x == left) & (begin_y == top)))  // taps outside the box are fill
      whole = columns.sums_of_weights(begin_x + 0.5F - cx, N) * rows.sums_of_weights(begin_y + 0.5F - cy, taps);
    const Eight scale = 1.F / (255.F * whole);
    for (int j = 0; j < taps; ++j) put(f.down + j * kThreads + t, down[j] * scale);
    put_transposed<N>(across, f.across + t * N);
    put(f.fill + t, 1.F - inside / whole);
    put(f.from + t, ints_of(top) * r.stride + ints_of(left));
  }
}

}  // namespace convolt
#endif
