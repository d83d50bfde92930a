// Pixels of a picture of any size under a map and an antialiased filter: where the augmentation's output comes from.
#pragma once

#include "augment.h"
#include "exec/block.h"
#include "exec/filter.h"

namespace convolt {

// A block makes one row of one output picture, in tiles of at most this many pixels, one for each thread.
constexpr int kThreads = 128;
// Source pixels of a tile whose columns are blended at a time.
constexpr int kSpan = 1024;

// Comparisons, because fminf and fmaxf are calls on the CPU (for their treatment of NaN).
template <class N>
HD N smaller(N a, N b) {
  return a < b ? a : b;
}
template <class N>
HD N larger(N a, N b) {
  return a > b ? a : b;
}

// Filters of the distance d >= 0, in units of the filter's scale; of one distance or of a vector of them.
template <class D>
HD D tent(D d) {
  return larger(1.F - d, D{});
}
// R. Keys, "Cubic convolution interpolation", IEEE TASSP 1981, with a = -1/2.
template <class D>
HD D keys_cubic(D d) {
  return d < 1.F ? (1.5F * d - 2.5F) * d * d + 1.F : d < 2.F ? ((-0.5F * d + 2.5F) * d - 4.F) * d + 2.F : D{};
}

// How the source is read, the same for the whole batch.
struct Reading {
  AugmentOptions::Interpolation interpolation;
  AugmentOptions::Border border;
};

// The filter along one axis of the source, widened by max(scale, 1), cut at the box.
struct Axis {
  float support, inverse, low, high, turns;  // turns: back and forth between the outermost pixels, in 1 / pixels
  Reading reading;
  // The scale is how fast the coordinate changes, the norm of its row (a, b) of the map.
  static HD Axis of(float a, float b, float box_low, float box_high, Reading reading) {
    const float scale = larger(sqrtf(a * a + b * b), 1.F);
    using enum AugmentOptions::Interpolation;
    const float support = reading.interpolation == nearest    ? 0.5F
                          : reading.interpolation == bilinear ? scale
                                                              : 2.F * scale;
    return {support, 1.F / scale, box_low, box_high, 0.5F / (box_high - box_low - 1.F), reading};
  }
  HD bool inside(float centre) const { return centre >= low && centre < high; }
  // The source pixels under the filter, [first, last) inside the box, as Pillow's precompute_coeffs counts them; before
  // they are cut, [begin, end).
  HD float begin(float centre) const { return floorf(centre - support + 0.5F); }
  HD float end(float centre) const { return floorf(centre + support + 0.5F); }
  HD int first(float centre) const { return clamped(begin(centre)); }
  HD int last(float centre) const { return clamped(end(centre)); }
  HD float weight(int pixel, float centre) const {
    using enum AugmentOptions::Interpolation;
    const float d = fabsf(static_cast<float>(pixel) + 0.5F - centre) * inverse;
    if (reading.interpolation == bilinear) return tent(d);
    if (reading.interpolation == nearest) return 1.F;
    return keys_cubic(d);
  }
#if !defined(__CUDA_ARCH__)
  // Pixels under the filter, at most.
  HD int taps() const { return static_cast<int>(ceilf(2.F * support)); }
  // For eight pixels at once, or eight weights of one. An offset is the centre of the first pixel under the filter less
  // the filter's own.
  HD Eight begins(Eight centres) const { return _mm256_floor_ps(centres - support + 0.5F); }
  // Whether all of a filter, and what filtered() touches beside it, lies between two columns or rows.
  HD EightInts whole_between(Eight begins, float first, float last) const {
    return (begins >= first) & (begins + static_cast<float>(filter_reach(taps())) <= last);
  }
  HD Eight weights_at(Eight offsets) const {
    using enum AugmentOptions::Interpolation;
    const Eight d = larger(offsets, -offsets) * inverse;
    return reading.interpolation == bilinear ? tent(d) : keys_cubic(d);
  }
  HD Eight weights(float offset) const {
    if (reading.interpolation == AugmentOptions::Interpolation::nearest) return kFirst;
    return weights_at(kIota + offset);
  }
  HD Eight sums_of_weights(Eight offsets) const {
    if (reading.interpolation == AugmentOptions::Interpolation::nearest) return Eight{} + 1.F;
    Eight sum{};
    for (int i = 0, n = taps(); i < n; ++i) sum += weights_at(offsets + static_cast<float>(i));
    return sum;
  }
#endif
  HD bool fills() const { return reading.border == AugmentOptions::Border::constant; }
  // Where a centre outside the box is read instead.
  HD float bordered(float centre) const {
    if (fills() || inside(centre)) return centre;
    const float last = high - low - 1.F;  // from the first pixel's centre to the last one's
    float p = centre - low - 0.5F;
    if (reading.border == AugmentOptions::Border::reflect && last > 0) {
      p -= floorf(p * turns) * 2.F * last;
      if (p > last) p = 2.F * last - p;
    }
    return low + 0.5F + smaller(larger(p, 0.F), last);
  }
  // The source pixels under the filters of all centres between two, the first and the last of a tile.
  HD void range(float from, float to, int& begin, int& end) const {
    if (reading.border == AugmentOptions::Border::reflect && !(inside(from) && inside(to))) {
      begin = static_cast<int>(low);
      end = static_cast<int>(high);
      return;
    }
    const float a = bordered(from), b = bordered(to);
    begin = smaller(first(a), first(b));
    end = larger(last(a), last(b));
  }
  // In float first: a far-off position must not overflow the integer.
  HD int clamped(float position) const { return static_cast<int>(smaller(larger(position, low), high)); }
};

// N is a number, or a vector of them.
template <class N>
HD N source_x(const SampleRecord& r, N x, float y) {
  return r.map[0] * (x + 0.5F) + r.map[1] * (y + 0.5F) + r.map[2];
}
template <class N>
HD N source_y(const SampleRecord& r, N x, float y) {
  return r.map[3] * (x + 0.5F) + r.map[4] * (y + 0.5F) + r.map[5];
}
HD float source_x(const SampleRecord& r, int x, int y) {
  return source_x(r, static_cast<float>(x), static_cast<float>(y));
}
HD float source_y(const SampleRecord& r, int x, int y) {
  return source_y(r, static_cast<float>(x), static_cast<float>(y));
}

#if !defined(__CUDA_ARCH__)
// The filters of a tile that lie wholly inside the box: their pixels are summed in vectors. Those of eight pixels are
// found at once.
struct alignas(32) WholeFilters {
  float across[kThreads], down[kThreads];  // for Axis::weights
  float whole[kThreads];                   // sum of the weights
  int32_t from[kThreads];                  // the filter's first pixel; below 0: not such a filter
};
#endif

// What the threads of a block share. The record and the axes lie here and not in registers, where they would be alive
// through the whole kernel.
struct RowShared {
  SampleRecord record;
  Axis columns, rows;        // of the source
  float blended[kSpan * 3];  // source pixels of the tile, summed over the rows under the filter
  float weights[kThreads];   // of those rows
  float tree[kThreads];
#if !defined(__CUDA_ARCH__)
  WholeFilters filters;
#endif
};

HD void begin_row(const Block<kThreads>& block, RowShared& s, const SampleRecord& record, Reading reading) {
  block.phase([&](int t) {
    if (t > 0) return;
    s.record = record;
    s.columns = Axis::of(record.map[0], record.map[1], record.box[0], record.box[2], reading);
    s.rows = Axis::of(record.map[3], record.map[4], record.box[1], record.box[3], reading);
  });
}

// A sampled pixel: its source channels in 0..1, and in [3] the part of it that is fill.
using Sampled = Floats<4>;
using SampledLane = Lane<Sampled, kThreads>;
#if !defined(__CUDA_ARCH__)
HD Sampled sampled(__m128 channels, float last) {
  Sampled v;
  _mm_storeu_ps(v.v, _mm_insert_ps(channels, _mm_set_ss(last), 0x30));
  return v;
}
#endif

// `count` output pixels of row y from x0, of a picture in `pixels`.
struct Tile {
  const uint8_t* pixels;
  int x0, y, count;
};

// Pixel (0, 0) may be no address, so all is added up before it becomes one.
template <int S>
HD const uint8_t* pixel_at(const SampleRecord& r, const uint8_t* pixels, int column, int row) {
  return pixels + (r.offset + (int64_t{row} * r.stride + column) * S);
}

// Bytes of a source row that a thread blends at a time: on the GPU neighbouring threads read neighbouring bytes.
#if defined(__CUDA_ARCH__)
constexpr int kStrip = 1;
#else
constexpr int kStrip = 32;
#endif

// out[j] = (add ? out[j] : 0) + the sum over `rows` source rows of weights[k] * p[k][j], for `bytes` bytes of each row.
HD void blend(const uint8_t* p, int64_t stride, int bytes, int rows, const float* weights, bool add, float* out) {
#if !defined(__CUDA_ARCH__)
  if (bytes == kStrip) return blend_strip(p, stride, rows, weights, add, out);
#endif
  for (int j = 0; j < bytes; ++j) {
    float sum = add ? out[j] : 0.F;
    for (int k = 0; k < rows; ++k) sum += weights[k] * static_cast<float>(p[k * stride + j]);
    out[j] = sum;
  }
}

// s.blended = source columns [first, last) summed over the rows under the filter at `centre`.
template <int S>
HD void blend_rows(const Block<kThreads>& block, RowShared& s, const uint8_t* pixels, float centre, int first,
                   int last) {
  const Axis& axis = s.rows;
  const int64_t stride = int64_t{s.record.stride} * S;
  const int top = axis.first(centre), bottom = axis.last(centre), bytes = (last - first) * S;
  for (int row = top; row < bottom; row += kThreads) {
    const int rows = smaller(bottom - row, kThreads);
    block.phase([&](int t) {
      if (t < rows) s.weights[t] = axis.weight(row + t, centre);
    });
    const uint8_t* p = pixel_at<S>(s.record, pixels, first, row);
    block.phase([&](int t) {
      for (int i = t * kStrip; i < bytes; i += kThreads * kStrip)
        blend(p + i, stride, smaller(kStrip, bytes - i), rows, s.weights, row > top, s.blended + i);
    });
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
// Finds the filters of a tile whose columns lie in [first, last); the map is axis-aligned.
HD void find_columns(RowShared& s, const Tile& tile, int first, int last) {
  const Axis& columns = s.columns;
  const float from = larger(columns.low, static_cast<float>(first));
  const float to = smaller(columns.high, static_cast<float>(last));
  for (int t = 0; t < tile.count; t += 8) {
    const Eight centres = source_x(s.record, kIota + static_cast<float>(tile.x0 + t), static_cast<float>(tile.y));
    const Eight begins = columns.begins(centres), offsets = begins + 0.5F - centres;
    const EightInts inside = columns.taps() <= kFilterTaps ? columns.whole_between(begins, from, to) : EightInts{};
    put(s.filters.across + t, offsets);
    put(s.filters.whole + t, columns.sums_of_weights(offsets));
    const EightInts column = __builtin_convertvector(inside ? begins : Eight{}, EightInts);
    put(s.filters.from + t, inside ? column - first : EightInts{} - 1);
  }
}
// Finds the filters of a tile under a general map.
HD void find_filters(RowShared& s, const Tile& tile) {
  const Axis &columns = s.columns, &rows = s.rows;
  const bool few = larger(columns.taps(), rows.taps()) <= kFilterTaps;
  for (int t = 0; t < tile.count; t += 8) {
    const Eight x = kIota + static_cast<float>(tile.x0 + t);
    const Eight cx = source_x(s.record, x, static_cast<float>(tile.y));
    const Eight cy = source_y(s.record, x, static_cast<float>(tile.y));
    const Eight left = columns.begins(cx), top = rows.begins(cy), across = left + 0.5F - cx, down = top + 0.5F - cy;
    const EightInts inside =
        few ? columns.whole_between(left, columns.low, columns.high) & rows.whole_between(top, rows.low, rows.high)
            : EightInts{};
    put(s.filters.across + t, across);
    put(s.filters.down + t, down);
    put(s.filters.whole + t, columns.sums_of_weights(across) * rows.sums_of_weights(down));
    const EightInts row = __builtin_convertvector(inside ? top : Eight{}, EightInts);
    const EightInts column = __builtin_convertvector(inside ? left : Eight{}, EightInts);
    put(s.filters.from + t, inside ? row * s.record.stride + column : EightInts{} - 1);
  }
}

// The pixels of those filters: of a tile of an axis-aligned map, from s.blended, and with the sum of the weights in
// [3]; of a tile of a general one, from the picture.
template <int S>
HD void sum_whole_columns(RowShared& s, const Tile& tile, int first, int last, SampledLane& lanes) {
  find_columns(s, tile, first, last);
  const WholeFilters& f = s.filters;
  const Axis columns = s.columns;
  const int across = columns.taps();
  for (int t = 0; t < tile.count; ++t)
    if (f.from[t] >= 0)
      lanes[t] = sampled(filtered_row<S>(s.blended + f.from[t] * S, columns.weights(f.across[t]), across), f.whole[t]);
}
template <int S>
HD void sum_whole_filters(RowShared& s, const Tile& tile, SampledLane& lanes) {
  find_filters(s, tile);
  const WholeFilters& f = s.filters;
  const Axis columns = s.columns, rows = s.rows;
  const int across = columns.taps(), down = rows.taps();
  const int64_t stride = int64_t{s.record.stride} * S;
  for (int t = 0; t < tile.count; ++t)
    if (f.from[t] >= 0) {
      const uint8_t* p = tile.pixels + (s.record.offset + int64_t{f.from[t]} * S);
      const Four sum = filtered<S>(p, stride, columns.weights(f.across[t]), across, rows.weights(f.down[t]), down);
      lanes[t] = sampled(sum * (1.F / (255.F * f.whole[t])), 0.F);
    }
}
#endif

// Rows first, then columns, so that a row of output costs a few sweeps over the source rows under it.
template <int S>
HD void sample_axis_aligned(const Block<kThreads>& block, RowShared& s, const Tile& tile, SampledLane& lanes) {
  const SampleRecord& r = s.record;
  const Axis &columns = s.columns, &rows = s.rows;
  const float cy = rows.bordered(source_y(r, tile.x0, tile.y));
  block.phase([&](int t) { lanes[t] = Sampled{{0, 0, 0, 0}}; });
  if (rows.inside(cy)) {
    const float left = source_x(r, tile.x0, tile.y), right = source_x(r, tile.x0 + tile.count - 1, tile.y);
    int begin = 0, end = 0;
    columns.range(left, right, begin, end);
    for (int first = begin; first < end; first += kSpan) {
      const int last = smaller(first + kSpan, end);
      blend_rows<S>(block, s, tile.pixels, cy, first, last);
#if !defined(__CUDA_ARCH__)
      sum_whole_columns<S>(s, tile, first, last, lanes);
#endif
      block.phase([&](int t) {
        if (t >= tile.count) return;
#if !defined(__CUDA_ARCH__)
        if (s.filters.from[t] >= 0) return;
#endif
        sum_columns<S>(columns, columns.bordered(source_x(r, tile.x0 + t, tile.y)), s.blended, first, last, lanes[t]);
      });
    }
  }
  float row_weight = 0;
  for (int i = rows.first(cy); i < rows.last(cy); ++i) row_weight += rows.weight(i, cy);
  block.phase([&](int t) {
    if (t >= tile.count) return;
    const bool inside = rows.inside(cy) && columns.inside(columns.bordered(source_x(r, tile.x0 + t, tile.y)));
    const float whole = lanes[t][3] * row_weight * 255.F;
    Sampled& v = lanes[t];
#if defined(__CUDA_ARCH__)
    for (int c = 0; c < S; ++c) v[c] = inside ? v[c] / whole : 0.F;
#else
    for_lanes<4>([&](int c) { v[c] = inside ? v[c] / whole : 0.F; });  // one division of four numbers
#endif
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
  const SampleRecord& r = s.record;
  const Axis &columns = s.columns, &rows = s.rows;
  const float cx = columns.bordered(source_x(r, x, y)), cy = rows.bordered(source_y(r, x, y));
  Sampled sum{{0, 0, 0, 0}};
  const Taps across(columns, cx), down(rows, cy);
  for (int j = down.first; j < down.last; ++j) {
    const uint8_t* p = pixel_at<S>(r, pixels, across.first, j);
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
  sum_whole_filters<S>(s, tile, lanes);
#endif
  block.phase([&](int t) {
#if !defined(__CUDA_ARCH__)
    if (t < tile.count && s.filters.from[t] >= 0) return;
#endif
    if (t < tile.count) lanes[t] = sample_affine<S>(s, tile.pixels, tile.x0 + t, tile.y);
  });
}

HD void sample(const Block<kThreads>& block, RowShared& s, const Tile& tile, SampledLane& lanes) {
  if (s.record.height <= 0 || s.record.width <= 0)
    block.phase([&](int t) { lanes[t] = Sampled{{0, 0, 0, 1}}; });
  else if (s.record.channels == 1)
    sample_channels<1>(block, s, tile, lanes);
  else
    sample_channels<3>(block, s, tile, lanes);
}

}  // namespace convolt
