#include "augment.h"

#include "exec/block.h"
#include "exec/colour.h"
#include "exec/filter.h"

namespace convolt {
namespace {

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
  // The source pixels under the filter, [first, last), as Pillow's precompute_coeffs counts them.
  HD float begin(float centre) const { return floorf(centre - support + 0.5F); }
  HD int first(float centre) const { return clamped(begin(centre)); }
  HD int last(float centre) const { return clamped(floorf(centre + support + 0.5F)); }
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
  // For eight pixels at once, or eight weights of one. `offset` is what first weight's distance comes from: the centre
  // of the first pixel under the filter less the filter's.
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

// `count` output pixels of row y from x0, of the picture at `pixels`.
struct Tile {
  const uint8_t* pixels;
  int x0, y, count;
};

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
  const int64_t stride = int64_t{s.record.width} * S;
  const int top = axis.first(centre), bottom = axis.last(centre), bytes = (last - first) * S;
  for (int row = top; row < bottom; row += kThreads) {
    const int rows = smaller(bottom - row, kThreads);
    block.phase([&](int t) {
      if (t < rows) s.weights[t] = axis.weight(row + t, centre);
    });
    const uint8_t* p = pixels + row * stride + int64_t{first} * S;
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
  const float from = larger(columns.low, static_cast<float>(first)),
              to = smaller(columns.high, static_cast<float>(last));
  for (int t = 0; t < tile.count; t += 8) {
    const Eight centres = source_x(s.record, kIota + static_cast<float>(tile.x0 + t), static_cast<float>(tile.y));
    const Eight begins = columns.begins(centres), offsets = begins + 0.5F - centres;
    const EightInts inside = columns.taps() <= kFilterTaps ? columns.whole_between(begins, from, to) : EightInts{};
    put(s.filters.across + t, offsets);
    put(s.filters.whole + t, columns.sums_of_weights(offsets));
    put(s.filters.from + t, inside ? __builtin_convertvector(begins, EightInts) - first : EightInts{} - 1);
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
    const EightInts from =
        __builtin_convertvector(top, EightInts) * s.record.width + __builtin_convertvector(left, EightInts);
    put(s.filters.from + t, inside ? from : EightInts{} - 1);
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
  const int64_t stride = int64_t{s.record.width} * S;
  for (int t = 0; t < tile.count; ++t)
    if (f.from[t] >= 0) {
      const uint8_t* p = tile.pixels + int64_t{f.from[t]} * S;
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
    for (int i = static_cast<int>(floorf(centre - axis.support + 0.5F)); i < first; ++i)
      whole += axis.weight(i, centre);
    for (int i = last; i < static_cast<int>(floorf(centre + axis.support + 0.5F)); ++i) whole += axis.weight(i, centre);
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
    const uint8_t* p = pixels + (int64_t{j} * r.width + across.first) * S;
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

HD float grey_of(const Floats<3>& v) { return luma(v[0], v[1], v[2]); }
HD float grey_of(const Floats<1>& v) { return v[0]; }

// torchvision's _blend: from `other` at factor 0 over the value at 1 to beyond it.
template <int C>
HD void blend_towards(Floats<C>& v, float other, float factor) {
  if (factor == 1.F) return;
  for (int c = 0; c < C; ++c) v[c] = smaller(larger(factor * v[c] + (1.F - factor) * other, 0.F), 1.F);
}

// What both launches know. C is the number of output channels.
template <int C>
struct Rows {
  const StepInput* input;
  int height, width;
  Reading reading;
  Floats<C> fill;

  // The sampled pixel in the output's channels, after brightness.
  HD Floats<C> bright(const Sampled& sampled, const SampleRecord& r) const {
    Floats<C> v;
    const bool grey = r.channels == 1;
    if constexpr (C == 3)
      v = {{sampled[0], grey ? sampled[0] : sampled[1], grey ? sampled[0] : sampled[2]}};
    else
      v = {{grey ? sampled[0] : luma(sampled[0], sampled[1], sampled[2])}};
    if (sampled[3] != 0)
      for (int c = 0; c < C; ++c) v[c] += sampled[3] * fill[c];
    if (reading.interpolation == AugmentOptions::Interpolation::bicubic)
      for (int c = 0; c < C; ++c) v[c] = smaller(larger(v[c], 0.F), 1.F);
    blend_towards(v, 0.F, r.brightness);
    return v;
  }

  // The row of the output that a block makes: of which picture, and where in it. There are fewer than 2^31 blocks.
  HD int picture(const Block<kThreads>& block) const { return static_cast<int>(block.index) / height; }
  HD int row(const Block<kThreads>& block) const { return static_cast<int>(block.index) % height; }

  // each(t, x, sampled) for every pixel of row y, in a phase of its own for each tile.
  template <class F>
  HD void for_each_pixel(const Block<kThreads>& block, RowShared& s, int y, F each) const {
    SampledLane lanes;
    const int tiles = (width + kThreads - 1) / kThreads, step = (width + tiles - 1) / tiles;
    for (int x0 = 0; x0 < width; x0 += step) {
      const Tile tile{input->pixels + s.record.offset, x0, y, smaller(step, width - x0)};
      sample(block, s, tile, lanes);
      block.phase([&](int t) {
        if (t < tile.count) each(t, x0 + t, lanes[t]);
      });
    }
  }
};

// The sum of tree[0..kThreads): a fixed order, the same on every device.
HD float tree_sum(const Block<kThreads>& block, float* tree) {
  for (int width = kThreads / 2; width > 0; width /= 2)
    block.phase([&](int t) {
      if (t < width) tree[t] += tree[t + width];
    });
  return tree[0];
}

// First launch of contrast: sums[n, y] = the greys of a row.
template <int C>
struct SumGreys {
  using Shared = RowShared;
  Rows<C> rows;
  float* sums;
  HD void operator()(const Block<kThreads>& block, Shared& s) const {
    const SampleRecord& record = rows.input->records[rows.picture(block)];
    if (record.contrast == 1.F) return;
    begin_row(block, s, record, rows.reading);
    block.phase([&](int t) { s.tree[t] = 0; });
    rows.for_each_pixel(block, s, rows.row(block),
                        [&](int t, int, const Sampled& v) { s.tree[t] += grey_of(rows.bright(v, s.record)); });
    const float sum = tree_sum(block, s.tree);
    block.phase([&](int t) {
      if (t == 0) sums[block.index] = sum;
    });
  }
};

template <class T, int C>
struct AugmentRow {
  using Shared = RowShared;
  Rows<C> rows;
  Floats<C> mean, inverse_std;
  const float* sums;  // null: no contrast
  T* y;

  HD float mean_grey(const Block<kThreads>& block, Shared& s, int64_t n) const {
    block.phase([&](int t) {
      s.tree[t] = 0;
      for (int i = t; i < rows.height; i += kThreads) s.tree[t] += sums[n * rows.height + i];
    });
    return tree_sum(block, s.tree) / (static_cast<float>(rows.height) * static_cast<float>(rows.width));
  }

#if !defined(__CUDA_ARCH__)
  // The three channels at once, where nothing but normalisation is left to do.
  static bool keeps_colours(const SampleRecord& r) {
    return r.channels == 3 && r.brightness == 1.F && r.saturation == 1.F && r.hue == 0.F && !r.to_grey;
  }
  HD void store_sampled(const Block<kThreads>& block, Shared& s, int row) const {
    const Four fill{rows.fill[0], rows.fill[1], rows.fill[2]}, centre{mean[0], mean[1], mean[2]};
    const Four scale{inverse_std[0], inverse_std[1], inverse_std[2]};
    const bool overshoots = rows.reading.interpolation == AugmentOptions::Interpolation::bicubic;
    T* const out = y + block.index * rows.width * C;
    rows.for_each_pixel(block, s, row, [&](int, int x, const Sampled& sampled) {
      Four v = four(sampled.v);
      v += v[3] * fill;
      if (overshoots) v = smaller(larger(v, Four{}), Four{} + 1.F);
      v = (v - centre) * scale;
      for (int c = 0; c < 3; ++c) out[x * 3 + c] = T(v[c]);
    });
  }
#endif

  HD void operator()(const Block<kThreads>& block, Shared& s) const {
    const int n = rows.picture(block), row = rows.row(block);
    begin_row(block, s, rows.input->records[n], rows.reading);
    const SampleRecord& r = s.record;
    const bool contrast = sums && r.contrast != 1.F;
    const float grey = contrast ? mean_grey(block, s, n) : 0.F;
    const bool erased_row = row >= r.erase[1] && row < r.erase[1] + r.erase[3];
#if !defined(__CUDA_ARCH__)
    if constexpr (C == 3)
      if (!contrast && !erased_row && keeps_colours(r)) return store_sampled(block, s, row);
#endif
    rows.for_each_pixel(block, s, row, [&](int, int x, const Sampled& sampled) {
      Floats<C> v = rows.bright(sampled, r);
      if (contrast) blend_towards(v, grey, r.contrast);
      if constexpr (C == 3) {
        blend_towards(v, grey_of(v), r.saturation);
        if (r.hue != 0.F) v = turned_hue(v, r.hue);
        if (r.to_grey) blend_towards(v, grey_of(v), 0.F);
      }
      const bool erased = erased_row && x >= r.erase[0] && x < r.erase[0] + r.erase[2];
      T* out = y + (block.index * rows.width + x) * C;
      for (int c = 0; c < C; ++c) out[c] = T(erased ? 0.F : (v[c] - mean[c]) * inverse_std[c]);
    });
  }
};

template <class T, int C>
void augment_of(Stream s, const AugmentArgs& args) {
  const Shape& shape = args.y.shape;
  AugmentRow<T, C> kernel{
      {args.input, static_cast<int>(shape[1]), static_cast<int>(shape[2]), {args.interpolation, args.border}, {}},
      {},
      {},
      nullptr,
      args.y.as<T>()};
  for (int c = 0; c < C; ++c) {
    kernel.rows.fill[c] = args.fill[c];
    kernel.mean[c] = args.mean[c];
    kernel.inverse_std[c] = 1.F / args.std[c];
  }
  const int64_t blocks = shape[0] * shape[1];
  if (args.contrast) {
    kernel.sums = args.grey_sums;
    for_each_block<kThreads>(s, blocks, SumGreys<C>{kernel.rows, args.grey_sums});
  }
  for_each_block<kThreads>(s, blocks, kernel);
}

}  // namespace

void augment(Stream s, const AugmentArgs& args) {
  if (args.y.shape.rank() != 4 || (args.y.shape[3] != 1 && args.y.shape[3] != 3))
    throw ShapeError("augment writes [N, H, W, 1] or [N, H, W, 3], found " + args.y.shape.to_string());
  if (args.contrast && !args.grey_sums)
    throw UsageError("augment with contrast needs grey_sums, f32 [N, H], found none");
  if (args.y.elements() == 0) return;
  dispatch_float(args.y.dtype, "augment", [&](auto t) {
    using T = decltype(t);
    if (args.y.shape[3] == 1) return augment_of<T, 1>(s, args);
    augment_of<T, 3>(s, args);
  });
}

}  // namespace convolt
