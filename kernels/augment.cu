#include "augment.h"

#include "exec/colour.h"
#include "exec/normals.h"
#include "exec/pixel_blocks.h"
#include "exec/sample.h"
#include "exec/warp_picture.h"

namespace convolt {
namespace {

template <class F, int C>
HD Colours<F, 1> grey_of(const Colours<F, C>& v) {
  if constexpr (C == 3) return {{luma(v[0], v[1], v[2])}};
  return {{v[0]}};
}

template <class F, int C>
HD void clip(Colours<F, C>& v) {
  for (int c = 0; c < C; ++c) v[c] = smaller(larger(v[c], F(0.F)), F(1.F));
}
// torchvision's _blend: from `other` at factor 0 over the value at 1 to beyond it.
template <class F, int C>
HD void blend_towards(Colours<F, C>& v, F other, float factor) {
  if (factor == 1.F) return;
  for (int c = 0; c < C; ++c) v[c] = factor * v[c] + (1.F - factor) * other;
  clip(v);
}

#if !defined(__CUDA_ARCH__)
// The pixels of a tile, one behind the other.
template <class V>
struct Line;
template <int C>
struct Line<Colours<Eight, C>> {
  float v[kThreads * C + 1];  // the last pixel is stored with a fourth number
  HD void put(int t, const Colours<Eight, C>& pixels) {
    if constexpr (C == 1) return convolt::put(v + t, pixels[0]);
    Eight four[4] = {pixels[0], pixels[C / 2], pixels[C - 1], pixels[C - 1]};
    transpose_halves(four);
    for (int i = 0; i < 4; ++i) _mm_storeu_ps(v + (t + i) * C, _mm256_castps256_ps128(four[i].v));
    for (int i = 0; i < 4; ++i) _mm_storeu_ps(v + (t + 4 + i) * C, _mm256_extractf128_ps(four[i].v, 1));
  }
};
// level_nearest() of 255 times each.
HD void put_levels(const float* line, int count, uint8_t* out) {
  int i = 0;
  for (; i + 8 <= count; i += 8) store8(out + i, fused(255.F, eight(line + i), 0.5F).v);
  for (; i < count; ++i) out[i] = level_down(fused(255.F, line[i], 0.5F));
}
#endif

// A row of the output: of which picture, and where in it.
struct OutputRow {
  int picture, row;
};

// What all launches know. C is the number of output channels. A block makes kRows rows of a picture, one after the
// other, since what they share takes a while to find; there are fewer than 2^31 blocks.
template <int C>
struct Rows {
  static constexpr int kRows = 8;
  static constexpr int kBlocksPerProcessor = 8;  // left alone, the compiler spills for more
  const StepInput* input;
  int height, width;
  Reading reading;
  Floats<C> fill;
  const uint8_t* drafts;  // what programmes made of pictures, u8 [N, H, W, C]; null: nothing

  // Sampled pixels in the output's channels.
  template <class F>
  HD Colours<F, C> colours(const Colours<F, 4>& sampled, const RowRecord& r) const {
    Colours<F, C> v;
    const bool grey = r.channels == 1;
    if constexpr (C == 3)
      v = {{sampled[0], grey ? sampled[0] : sampled[1], grey ? sampled[0] : sampled[2]}};
    else
      v = {{grey ? sampled[0] : luma(sampled[0], sampled[1], sampled[2])}};
    for (int c = 0; c < C; ++c) v[c] = v[c] + sampled[3] * fill[c];
    if (reading.interpolation == AugmentOptions::Interpolation::bicubic) clip(v);
    return v;
  }
  template <class F>
  HD Colours<F, C> bright(const Colours<F, 4>& sampled, const RowRecord& r) const {
    Colours<F, C> v = colours(sampled, r);
    blend_towards(v, F(0.F), r.brightness);
    return v;
  }

  HD bool is_drafted(int n) const { return drafts != nullptr && input->records[n].programme.count > 0; }
  HD const uint8_t* pixels(int n) const { return is_drafted(n) ? drafts : input->pixels; }
  // The record, and where the picture is sampled: a draft is copied as it is.
  HD void begin(const Block<kThreads>& block, RowShared& s, int n) const {
    begin_row(block, s, *input, n, height, width, reading);
    if (!is_drafted(n)) return;
    block.phase([&](int t) {
      if (t > 0) return;
      RowRecord& r = s.record;
      r.offset = int64_t{n} * height * width * C;
      r.height = height;
      r.width = r.stride = width;
      r.channels = C;
      r.axis_aligned = 1;
      for (int i = 0; i < 6; ++i) r.map[i] = i == 0 || i == 4 ? 1.F : 0.F;
      r.box[0] = r.box[1] = 0;
      r.box[2] = static_cast<float>(width);
      r.box[3] = static_cast<float>(height);
      s.columns = Axis::of(1, 0, 0, r.box[2], reading);
      s.rows = Axis::of(0, 1, 0, r.box[3], reading);
    });
  }

  HD int bands() const { return (height + kRows - 1) / kRows; }
  HD int picture(const Block<kThreads>& block) const { return static_cast<int>(block.index) / bands(); }
  // each(row) for the rows of a block.
  template <class F>
  HD void for_each_row(const Block<kThreads>& block, F each) const {
    const int n = picture(block), first = (static_cast<int>(block.index) - n * bands()) * kRows;
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
    for (int row = first; row < smaller(first + kRows, height); ++row) each(OutputRow{unknown(n), row});
  }
  HD int64_t index(const OutputRow& r) const { return int64_t{r.picture} * height + r.row; }

  // each(tile, lanes) for every tile of a row of what begins at `from`, sampled.
  template <class F>
  HD void for_each_tile(const Block<kThreads>& block, RowShared& s, const uint8_t* from, const OutputRow& r,
                        F each) const {
    SampledLane lanes;
    const int tiles = (width + kThreads - 1) / kThreads, step = (width + tiles - 1) / tiles;
    for (int i = 0; i < tiles; ++i) {
      const int x0 = i * step;
      const Tile tile{from, r.picture, i, x0, r.row, smaller(step, width - x0)};
      sample(block, s, tile, lanes);
      each(tile, lanes);
    }
  }
#if !defined(__CUDA_ARCH__)
  // use(tile, line) for every tile, the line being finish(sampled) of its pixels, which are made eight at a time.
  template <class F, class U>
  HD void for_each_line(const Block<kThreads>& block, RowShared& s, const uint8_t* from, const OutputRow& r, F finish,
                        U use) const {
    Line<decltype(finish(eight_of(nullptr)))> line;
    for_each_tile(block, s, from, r, [&](const Tile& tile, SampledLane& lanes) {
      for (int t = tile.count; t % 8 != 0; ++t) lanes[t] = Sampled{};
      for (int t = 0; t < tile.count; t += 8) line.put(t, finish(eight_of(&lanes[t])));
      use(tile, line.v);
    });
  }
#endif
  // put(t, x, finish(sampled)) for every pixel of the row, in a phase of its own for each tile.
  template <class F, class P>
  HD void for_each_pixel(const Block<kThreads>& block, RowShared& s, const uint8_t* from, const OutputRow& r, F finish,
                         P put) const {
#if defined(__CUDA_ARCH__)
    for_each_tile(block, s, from, r, [&](const Tile& tile, SampledLane& lanes) {
      block.phase([&](int t) {
        if (t < tile.count) put(t, tile.x0 + t, finish(lanes[t]));
      });
    });
#else
    for_each_line(block, s, from, r, finish, [&](const Tile& tile, const float* line) {
      decltype(finish(Sampled{})) v;
      for (int t = 0; t < tile.count; ++t, line += sizeof v / sizeof(float)) {
        std::memcpy(&v, line, sizeof v);
        put(t, tile.x0 + t, v);
      }
    });
#endif
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

// First launch of programmes: what they begin with, in bytes.
template <int C>
struct DraftRow {
  using Shared = RowShared;
  static constexpr int kBlocksPerProcessor = Rows<C>::kBlocksPerProcessor;
  Rows<C> rows;
  uint8_t* drafts;
  HD void operator()(const Block<kThreads>& block, Shared& s) const {
    const int n = rows.picture(block);
    if (rows.input->records[n].programme.count == 0) return;
    rows.begin(block, s, n);
    rows.for_each_row(block, [&](const OutputRow& row) {
      uint8_t* const to = drafts + rows.index(row) * rows.width * C;
      const uint8_t* const from = rows.input->pixels;
      const auto finish = [&](const auto& sampled) { return rows.colours(sampled, s.record); };
#if !defined(__CUDA_ARCH__)
      if constexpr (C == 3)
        return rows.for_each_line(block, s, from, row, finish, [&](const Tile& tile, const float* line) {
          put_levels(line, tile.count * C, to + tile.x0 * C);
        });
#endif
      rows.for_each_pixel(block, s, from, row, finish, [&](int, int x, const Colours<float, C>& v) {
        for (int c = 0; c < C; ++c) to[x * C + c] = level_nearest(255.F * v[c]);
      });
    });
  }
};

// First launch of contrast: sums[n, y] = the greys of a row.
template <int C>
struct SumGreys {
  using Shared = RowShared;
  static constexpr int kBlocksPerProcessor = Rows<C>::kBlocksPerProcessor;
  Rows<C> rows;
  float* sums;
  HD void operator()(const Block<kThreads>& block, Shared& s) const {
    const int n = rows.picture(block);
    if (rows.input->records[n].contrast == 1.F) return;
    rows.begin(block, s, n);
    rows.for_each_row(block, [&](const OutputRow& row) {
      block.phase([&](int t) { s.tree[t] = 0; });
      rows.for_each_pixel(
          block, s, rows.pixels(n), row, [&](const auto& v) { return grey_of(rows.bright(v, s.record)); },
          [&](int t, int, const Colours<float, 1>& grey) { s.tree[t] += grey[0]; });
      const float sum = tree_sum(block, s.tree);
      block.phase([&](int t) {
        if (t == 0) sums[rows.index(row)] = sum;
      });
    });
  }
};

template <class T, int C>
struct AugmentRow {
  using Shared = RowShared;
  static constexpr int kBlocksPerProcessor = Rows<C>::kBlocksPerProcessor;
  Rows<C> rows;
  Floats<C> mean, inverse_std;
  const float* sums;  // null: no contrast
  Result<T> y;
  int stored;  // channels of a pixel laid out in blocks; 0: plain
  PixelPlaces places;

  HD T* place(const OutputRow& row) const {
    return y.data + (stored == 0 ? rows.index(row) * rows.width * C : places.row(row.picture, row.row));
  }
  HD T* place(T* row, int x) const { return row + (stored == 0 ? x * C : places.column(x)); }
  // What fills a pixel of three channels up, four at a time.
  HD void store_padded(T* out, float a, float b, float c) const {
    store(out, Floats<4>{{a, b, c, 0.F}});
    for (int i = 4; i < stored; i += 4) store(out + i, Floats<4>{});
  }

  HD void put(T* out, const Colours<float, C>& v) const {
    if (stored > 0) return store_padded(out, v[0], C == 3 ? v[C / 2] : 0.F, C == 3 ? v[C - 1] : 0.F);
    for (int c = 0; c < C; ++c) out[c] = T(v[c]);
  }
  // Over the erased pixels of the row: in the loop before, it would take registers of every pixel.
  HD void put_noise(const Block<kThreads>& block, const RowRecord& r, const OutputRow& row, T* to) const {
    block.phase([&](int t) {
      for (int x = r.erase[0] + t; x < r.erase[0] + r.erase[2]; x += kThreads) {
        const Floats<3> noise = normals(philox(r.erase_key, static_cast<uint64_t>(row.row * rows.width + x), 0));
        Colours<float, C> v;
        for (int c = 0; c < C; ++c) v[c] = noise[c];
        put(place(to, x), v);
      }
    });
  }

  HD float mean_grey(const Block<kThreads>& block, Shared& s, int64_t n) const {
    block.phase([&](int t) {
      s.tree[t] = 0;
      for (int i = t; i < rows.height; i += kThreads) s.tree[t] += sums[n * rows.height + i];
    });
    return tree_sum(block, s.tree) / (static_cast<float>(rows.height) * static_cast<float>(rows.width));
  }

  // What the record says of a picture's colours, of whose greys `grey` is the mean.
  template <class F>
  HD Colours<F, C> finished(const Colours<F, 4>& sampled, const RowRecord& r, bool contrast, float grey) const {
    Colours<F, C> v = rows.bright(sampled, r);
    if (contrast) blend_towards(v, F(grey), r.contrast);
    if constexpr (C == 3) {
      blend_towards(v, grey_of(v)[0], r.saturation);
      if (r.hue != 0.F) v = turned_hue(v, r.hue);
      if (r.to_grey) blend_towards(v, grey_of(v)[0], 0.F);
    }
    for (int c = 0; c < C; ++c) v[c] = (v[c] - mean[c]) * inverse_std[c];
    return v;
  }

#if !defined(__CUDA_ARCH__)
  HD void put_line(const float* line, const Tile& tile, T* to) const {
    if (stored > 0) {
      Colours<float, C> v;
      for (int t = 0; t < tile.count; ++t) {
        std::memcpy(&v, line + t * C, sizeof v);
        put(place(to, tile.x0 + t), v);
      }
      return;
    }
    T* const out = place(to, tile.x0);
    const bool aligned = reinterpret_cast<uintptr_t>(out) % (8 * sizeof(T)) == 0;
    const Result<T> result{out, y.past_caches && aligned};
    int i = 0;
    for (; i + 8 <= tile.count * C; i += 8) store(result + i, load<8>(line + i));
    for (; i < tile.count * C; ++i) out[i] = T(line[i]);
  }
#endif

  HD void operator()(const Block<kThreads>& block, Shared& s) const {
    const int n = rows.picture(block);
    rows.begin(block, s, n);
    const bool contrast = sums && s.record.contrast != 1.F;
    const float grey = contrast ? mean_grey(block, s, n) : 0.F;
    rows.for_each_row(block, [&](const OutputRow& row) { make_row(block, s, row, contrast, grey); });
  }
  HD void make_row(const Block<kThreads>& block, Shared& s, const OutputRow& row, bool contrast, float grey) const {
    const RowRecord& r = s.record;
    const uint8_t* const from = rows.pixels(row.picture);
    const bool erased_row = row.row >= r.erase[1] && row.row < r.erase[1] + r.erase[3];
    const auto finish = [&](const auto& sampled) { return finished(sampled, r, contrast, grey); };
#if !defined(__CUDA_ARCH__)
    if (!erased_row)
      return rows.for_each_line(block, s, from, row, finish,
                                [&](const Tile& tile, const float* line) { put_line(line, tile, place(row)); });
#endif
    rows.for_each_pixel(block, s, from, row, finish, [&](int, int x, Colours<float, C> v) {
      const bool erased = erased_row && x >= r.erase[0] && x < r.erase[0] + r.erase[2];
      for (int c = 0; c < C; ++c) v[c] = erased ? r.erase_value[c] : v[c];
      put(place(place(row), x), v);
    });
    if (erased_row && r.erase_key != 0) put_noise(block, r, row, place(row));
  }
};

template <class T, int C>
void augment_of(Stream s, const AugmentArgs& args) {
  const Shape& shape = args.y.shape;
  const PixelBlocks& l = args.blocks;
  const int height = (static_cast<int>(shape[1]) - l.border.vertical()) * l.block,
            width = (static_cast<int>(shape[2]) - l.border.horizontal()) * l.block;
  AugmentRow<T, C> kernel{{args.input, height, width, {args.interpolation, args.border}, {}, nullptr},
                          {},
                          {},
                          nullptr,
                          result_of<T>(s, args.y, {}),
                          l.channels > 0 ? l.stored : 0,
                          {l, height, width}};
  for (int c = 0; c < C; ++c) {
    kernel.rows.fill[c] = args.fill[c];
    kernel.mean[c] = args.mean[c];
    kernel.inverse_std[c] = 1.F / args.std[c];
  }
  const int64_t blocks = shape[0] * kernel.rows.bands();
  if (args.drafts.bytes) {
    for_each_block<kThreads>(s, blocks, DraftRow<C>{kernel.rows, args.drafts.bytes});
    PictureOpsArgs ops{args.input, shape[0], height, width, C, args.drafts, {}};
    std::copy(args.fill, args.fill + 3, ops.fill);
    run_picture_ops(s, ops);
    kernel.rows.drafts = args.drafts.bytes;
  }
  if (args.contrast) {
    kernel.sums = args.grey_sums;
    for_each_block<kThreads>(s, blocks, SumGreys<C>{kernel.rows, args.grey_sums});
  }
  for_each_block<kThreads>(s, blocks, kernel);
}

}  // namespace

void augment(Stream s, const AugmentArgs& args) {
  const PixelBlocks& blocks = args.blocks;
  const int64_t channels = blocks.channels > 0 ? blocks.channels : args.y.shape[-1];
  if (args.y.shape.rank() != 4 || (channels != 1 && channels != 3) ||
      (blocks.channels > 0 &&
       (blocks.stored % 4 != 0 || args.y.shape[3] != blocks.block * blocks.block * blocks.stored)))
    throw ShapeError("augment writes [N, H, W, 1] or [N, H, W, 3], found " + args.y.shape.to_string());
  if (args.contrast && !args.grey_sums)
    throw UsageError("augment with contrast needs grey_sums, f32 [N, H], found none");
  if (args.y.elements() == 0) return;
  dispatch_float(args.y.dtype, "augment", [&](auto t) {
    using T = decltype(t);
    if (channels == 1) return augment_of<T, 1>(s, args);
    augment_of<T, 3>(s, args);
  });
}

}  // namespace convolt
