// Pixels of a picture of any size under a map and an antialiased filter: where the augmentation's output comes from.
#pragma once

#include "augment.h"
#include "exec/block.h"
#include "exec/colour.h"
#include "exec/tile_filters.h"

namespace convolt {

// Source pixels of a tile whose columns are blended at a time.
constexpr int kSpan = 1024;
#if !defined(__CUDA_ARCH__)
// Tiles whose columns are found once for all rows of a picture that a thread makes: those of 512 pixels.
constexpr int kKeptTiles = 4;
#endif

// What the threads of a block share. The record and the axes lie here and not in registers, where they would be alive
// through the whole kernel.
struct RowShared {
  RowRecord record;
  Axis columns, rows;        // of the source
  float blended[kSpan * 3];  // source pixels of the tile, summed over the rows under the filter
  float weights[kThreads];   // of those rows
  float tree[kThreads];
#if !defined(__CUDA_ARCH__)
  TileFilters filters;
  ColumnFilters kept[kKeptTiles];  // those of the last row
  void begin_launch() {
    for (ColumnFilters& tile : kept) tile.picture = -1;
  }
#endif
};

// An axis of the map moved so that the output, so many pixels long, begins at the near edge of the picture (-1) or ends
// at the far one (1).
HD void move_to_edge(int edge, float scale, float low, float high, int length, float& start) {
  if (edge < 0) start = scale < 0 ? high : low;
  if (edge > 0) start = (scale < 0 ? low : high) - scale * static_cast<float>(length);
}

// The record's map after what StepInput says of the view.
HD void show(const StepInput& input, int height, int width, RowRecord& record) {
  const auto x = static_cast<float>(input.view_x), y = static_cast<float>(input.view_y);
  float *const m = record.map, *const box = record.box;
  if (input.view_of_mirror_image) {
    m[0] = -m[0];
    m[1] = -m[1];
    m[2] = box[0] + box[2] - m[2];
  }
  move_to_edge(input.view_column, m[0], box[0], box[2], width, m[2]);
  move_to_edge(input.view_row, m[4], box[1], box[3], height, m[5]);
  m[2] += m[0] * x + m[1] * y;
  m[5] += m[3] * x + m[4] * y;
  if (!input.view_mirrored) return;
  m[2] += m[0] * static_cast<float>(width);
  m[5] += m[3] * static_cast<float>(width);
  m[0] = -m[0];
  m[3] = -m[3];
}

HD void begin_row(const Block<kThreads>& block, RowShared& s, const StepInput& input, int picture, int height,
                  int width, Reading reading) {
  block.phase([&](int t) {
    if (t > 0) return;
    s.record = input.records[picture];
    show(input, height, width, s.record);
    const RowRecord& record = s.record;
    s.columns = Axis::of(record.map[0], record.map[1], record.box[0], record.box[2], reading);
    s.rows = Axis::of(record.map[3], record.map[4], record.box[1], record.box[3], reading);
  });
}

// A sampled pixel: its source channels in 0..1, and in [3] the part of it that is fill.
using Sampled = Colours<float, 4>;
using SampledLane = Lane<Sampled, kThreads>;
#if !defined(__CUDA_ARCH__)
// Eight of them.
HD Colours<Eight, 4> eight_of(const Sampled* p) {
  Colours<Eight, 4> r;
  for (int i = 0; i < 4; ++i) r[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(four(p[i].v)), four(p[i + 4].v), 1);
  transpose_halves(r.v);
  return r;
}
HD Sampled sampled(__m128 channels, float last) {
  Sampled v;
  _mm_storeu_ps(v.v, _mm_insert_ps(channels, _mm_set_ss(last), 0x30));
  return v;
}
#endif

// Of a pixel from StepInput::pixels. That of (0, 0) may be no address, so all is added up before it becomes one.
template <int S>
HD int64_t offset_of(const RowRecord& r, int column, int row) {
  return r.offset + (int64_t{row} * r.stride + column) * S;
}

// out[j] = (add ? out[j] : 0) + the sum over `rows` source rows of weights[k] * p[k][j], for every step-th byte j of
// [first, last), of which four are on the way at once.
HD void blend_bytes(const uint8_t* p, int64_t stride, int first, int last, int step, int rows, const float* weights,
                    bool add, float* out) {
  constexpr int kAtOnce = 4;
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
  for (int j = first; j < last; j += step * kAtOnce) {
    float sums[kAtOnce] = {};
    const uint8_t* from = p + j;
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
    for (int k = 0; k < rows; ++k, from += stride)
      for_lanes<kAtOnce>([&](int u) {
        if (j + u * step < last) sums[u] += weights[k] * static_cast<float>(from[u * step]);
      });
    for_lanes<kAtOnce>([&](int u) {
      if (j + u * step < last) out[j + u * step] = (add ? out[j + u * step] : 0.F) + sums[u];
    });
  }
}

// A thread's share of them: on the GPU neighbouring threads read neighbouring bytes, on the CPU each takes strips.
#if defined(__CUDA_ARCH__)
HD void blend(int t, const uint8_t* p, int64_t stride, int bytes, int rows, const float* weights, bool add,
              float* out) {
  blend_bytes(p, stride, t, bytes, kThreads, rows, weights, add, out);
}
HD int blending_threads(int) { return kThreads; }
#else
constexpr int kStrip = 32;
HD void blend(int t, const uint8_t* p, int64_t stride, int bytes, int rows, const float* weights, bool add,
              float* out) {
  for (int i = t * kStrip; i < bytes; i += kThreads * kStrip) {
    // Whole strips only, where there is one: some sums are made twice.
    const int at = add ? i : larger(smaller(i, bytes - kStrip), 0);
    if (at + kStrip <= bytes)
      blend_strip(p + at, stride, rows, weights, add, out + at);
    else
      blend_bytes(p, stride, at, bytes, 1, rows, weights, add, out);
  }
}
HD int blending_threads(int bytes) { return smaller((bytes + kStrip - 1) / kStrip, kThreads); }
#endif

// s.blended = source columns [first, last) summed over the rows under the filter at `centre`.
template <int S>
HD void blend_rows(const Block<kThreads>& block, RowShared& s, const uint8_t* pixels, float centre, int first,
                   int last) {
  const Axis& axis = s.rows;
  const int64_t stride = int64_t{s.record.stride} * S;
  const int top = axis.first(centre), bottom = axis.last(centre), bytes = (last - first) * S;
  for (int row = top; row < bottom; row += kThreads) {
    const int rows = smaller(bottom - row, kThreads);
    block.phase_of(rows, [&](int t) { s.weights[t] = axis.weight(row + t, centre); });
    const uint8_t* p = pixels + offset_of<S>(s.record, first, row);
    const bool add = row > top;
    block.phase_of(blending_threads(bytes),
                   [&](int t) { blend(t, p, stride, bytes, rows, s.weights, add, s.blended); });
  }
}

// sum += the source columns under the filter at cx, of those in [first, last), which `blended` holds; their weights in
// [3].
template <int S>
HD void sum_columns(const Axis& columns, float cx, const float* blended, int first, int last, Sampled& sum) {
  for (int i = larger(columns.first(cx), first); i < smaller(columns.last(cx), last); ++i) {
    const float weight = columns.weight(i, cx);
    for (int c = 0; c < S; ++c) sum[c] += weight * blended[(i - first) * S + c];
    sum[3] += weight;
  }
}
#if !defined(__CUDA_ARCH__)
// From the first source row under a filter to one that a row of output soon will need. A decoded picture lies in no
// near cache, and what is read along a slanted line no processor fetches in time by itself.
HD int rows_ahead(const RowShared& s) {
  constexpr int kFurther = 4;
  return s.record.map[4] < 0 ? -kFurther : s.rows.taps() + kFurther;
}

// The tile's pixels in vectors: sums over N columns of s.blended, in parts of `whole`.
template <int S, int N>
HD void sum_columns(const RowShared& s, const ColumnFilters& f, const Tile& tile, float whole, SampledLane& lanes) {
  for (int t = 0; t < tile.count; ++t) {
    const Four sum = filtered_row<S, N>(s.blended + f.from[t] * S, f.weights, t);
    lanes[t] = sampled(sum / whole, f.fill[t]);
  }
}
template <int S>
HD void sum_columns(const RowShared& s, const ColumnFilters& f, const Tile& tile, float whole, SampledLane& lanes) {
  if (f.count == 2) return sum_columns<S, 2>(s, f, tile, whole, lanes);
  if (f.count == 3) return sum_columns<S, 3>(s, f, tile, whole, lanes);
  if (f.count == 4) return sum_columns<S, 4>(s, f, tile, whole, lanes);
  if (f.count == 6) return sum_columns<S, 6>(s, f, tile, whole, lanes);
  sum_columns<S, kFilterTaps>(s, f, tile, whole, lanes);
}
// Those under a general map, from the picture.
template <int S, int N>
HD void sum_filters(RowShared& s, const Tile& tile, SampledLane& lanes) {
  find_filters<N>(s.filters, s.record, s.columns, s.rows, tile);
  const TileFilters& f = s.filters;
  const int rows = s.rows.taps();
  const int64_t stride = int64_t{s.record.stride} * S, ahead = rows_ahead(s) * stride;
  for (int t = 0; t < tile.count; ++t) {
    const int64_t first = s.record.offset + int64_t{f.from[t]} * S;
    prefetch(tile.pixels, first + ahead);
    const Four sum = filtered<S, N>(tile.pixels + first, stride, f.across + t * N, f.down + t, kThreads, rows);
    lanes[t] = sampled(sum, f.fill[t]);
  }
}
#endif

// The source columns under the tile's filters.
HD void columns_under(const RowShared& s, const Tile& tile, int& begin, int& end) {
  const float left = source_x(s.record, tile.x0, tile.y), right = source_x(s.record, tile.x0 + tile.count - 1, tile.y);
  s.columns.range(left, right, begin, end);
}

HD float row_weight_at(const Axis& rows, float cy) {
  float sum = 0;
  for (int i = rows.first(cy); i < rows.last(cy); ++i) sum += rows.weight(i, cy);
  return sum;
}

#if !defined(__CUDA_ARCH__)
// The filters of the tile's columns: those of the row before, or found now.
HD const ColumnFilters& columns_of(RowShared& s, const Tile& tile, int count) {
  ColumnFilters& filters = s.kept[smaller(tile.number, kKeptTiles - 1)];
  if (filters.are_of(tile)) return filters;
  int first = 0, last = 0;
  columns_under(s, tile, first, last);
  first = smaller(first, static_cast<int>(s.columns.high) - count);
  find_columns(filters, s.record, s.columns, tile, count, first, larger(last, first + count));
  return filters;
}

// Filters of few columns in vectors. False when there are more, or the picture or the room for blended columns is too
// small.
template <int S>
HD bool sample_axis_aligned_in_vectors(const Block<kThreads>& block, RowShared& s, const Tile& tile,
                                       SampledLane& lanes) {
  const int count = summed_columns(s.columns.taps());
  if (!s.columns.has_windows(count)) return false;
  const float cy = s.rows.bordered(source_y(s.record, tile.x0, tile.y));
  if (!s.rows.inside(cy)) {
    for (int t = 0; t < tile.count; ++t) lanes[t] = Sampled{{0, 0, 0, 1}};
    return true;
  }
  const ColumnFilters& filters = columns_of(s, tile, count);
  const int first = filters.first, last = filters.last;
  if (last - first > kSpan) return false;
  const int64_t ahead = offset_of<S>(s.record, first, s.rows.first(cy) + rows_ahead(s));
  for (int i = 0; i < (last - first) * S; i += kCacheLine) prefetch(tile.pixels, ahead + i);
  blend_rows<S>(block, s, tile.pixels, cy, first, last);
  sum_columns<S>(s, filters, tile, 255.F * row_weight_at(s.rows, cy), lanes);
  return true;
}
#endif

// Rows first, then columns, so that a row of output costs a few sweeps over the source rows under it.
template <int S>
HD void sample_axis_aligned(const Block<kThreads>& block, RowShared& s, const Tile& tile, SampledLane& lanes) {
#if !defined(__CUDA_ARCH__)
  if (sample_axis_aligned_in_vectors<S>(block, s, tile, lanes)) return;
#endif
  const RowRecord& r = s.record;
  const Axis &columns = s.columns, &rows = s.rows;
  const float cy = rows.bordered(source_y(r, tile.x0, tile.y));
  block.phase([&](int t) { lanes[t] = Sampled{{0, 0, 0, 0}}; });
  if (rows.inside(cy)) {
    int begin = 0, end = 0;
    columns_under(s, tile, begin, end);
    for (int first = begin; first < end; first += kSpan) {
      const int last = smaller(first + kSpan, end);
      blend_rows<S>(block, s, tile.pixels, cy, first, last);
      block.phase([&](int t) {
        if (t < tile.count)
          sum_columns<S>(columns, columns.bordered(source_x(r, tile.x0 + t, tile.y)), s.blended, first, last, lanes[t]);
      });
    }
  }
  const float row_weight = row_weight_at(rows, cy);
  block.phase([&](int t) {
    if (t >= tile.count) return;
    const bool inside = rows.inside(cy) && columns.inside(columns.bordered(source_x(r, tile.x0 + t, tile.y)));
    const float whole = lanes[t][3] * row_weight * 255.F;
    Sampled& v = lanes[t];
    for (int c = 0; c < S; ++c) v[c] = inside ? v[c] / whole : 0.F;
    v[3] = inside ? 0.F : 1.F;
  });
}

// The filter of one pixel along one axis; with a constant border what is outside the box is fill.
struct Taps {
  int first, last;      // inside the box
  float inside, whole;  // sums of the weights inside the box, and of all
  HD Taps(const Axis& axis, float centre) : first(axis.first(centre)), last(axis.last(centre)), inside(0), whole(1) {
    if (first >= last) return;
    for (int i = first; i < last; ++i) inside += axis.weight(i, centre);
    whole = inside;
    if (!axis.fills()) return;
    for (int i = static_cast<int>(axis.begin(centre)); i < first; ++i) whole += axis.weight(i, centre);
    for (int i = last; i < static_cast<int>(axis.end(centre)); ++i) whole += axis.weight(i, centre);
  }
};

// One pixel under a general map.
template <int S>
HD Sampled sample_affine(const RowShared& s, const uint8_t* pixels, int x, int y) {
  const RowRecord& r = s.record;
  const Axis &columns = s.columns, &rows = s.rows;
  const float cx = columns.bordered(source_x(r, x, y)), cy = rows.bordered(source_y(r, x, y));
  Sampled sum{{0, 0, 0, 0}};
  const Taps across(columns, cx), down(rows, cy);
  for (int j = down.first; j < down.last; ++j) {
    const uint8_t* p = pixels + offset_of<S>(r, across.first, j);
    Sampled line{{0, 0, 0, 0}};
    for (int i = across.first; i < across.last; ++i, p += S) {
      const float weight = columns.weight(i, cx);
      for (int c = 0; c < S; ++c) line[c] += weight * static_cast<float>(p[c]);
    }
    const float weight = rows.weight(j, cy);
    for (int c = 0; c < S; ++c) sum[c] += weight * line[c];
  }
  const float whole = across.whole * down.whole;
  const float per_whole = reciprocal(whole);
  for (int c = 0; c < S; ++c) sum[c] *= per_whole * (1.F / 255);
  sum[3] = 1.F - across.inside * down.inside * per_whole;
  return sum;
}

template <int S>
HD void sample_channels(const Block<kThreads>& block, RowShared& s, const Tile& tile, SampledLane& lanes) {
  if (s.record.axis_aligned) return sample_axis_aligned<S>(block, s, tile, lanes);
#if !defined(__CUDA_ARCH__)
  if (s.rows.taps() <= kFilterTaps && s.rows.has_windows(s.rows.taps())) {
    if (s.columns.has_windows(4)) return sum_filters<S, 4>(s, tile, lanes);
    if (s.columns.has_windows(8)) return sum_filters<S, 8>(s, tile, lanes);
  }
#endif
  block.phase([&](int t) {
    if (t < tile.count) lanes[t] = sample_affine<S>(s, tile.pixels, tile.x0 + t, tile.y);
  });
}

HD_ONCE void sample(const Block<kThreads>& block, RowShared& s, const Tile& tile, SampledLane& lanes) {
  if (s.record.height <= 0 || s.record.width <= 0)
    block.phase([&](int t) { lanes[t] = Sampled{{0, 0, 0, 1}}; });
  else if (s.record.channels == 1)
    sample_channels<1>(block, s, tile, lanes);
  else
    sample_channels<3>(block, s, tile, lanes);
}

}  // namespace convolt
