#include "mix.h"

#include "exec/launch.h"

namespace convolt {
namespace {

// Where in the picture an element of a row lies.
struct PixelFinder {
  Divisor by_stored, by_area, by_columns, by_block;
  int stored, area, columns, block, top, left;

  PixelFinder(const Tensor& y, const PixelBlocks& l)
      : PixelFinder(static_cast<int>(l.channels > 0 ? l.stored : y.shape[3]), l.block, static_cast<int>(y.shape[2]),
                    l.border) {}
  PixelFinder(int stored_, int block_, int columns_, const Padding& border)
      : by_stored(stored_),
        by_area(block_ * block_),
        by_columns(columns_),
        by_block(block_),
        stored(stored_),
        area(block_ * block_),
        columns(columns_),
        block(block_),
        top(border.top),
        left(border.left) {}

  // In a block of pixels, of which a row of the picture has `columns`; blocks are counted as they are stored.
  HD int64_t block_of(int64_t pixel) const { return area == 1 ? pixel : by_area.quotient(pixel); }
  // Whether some of the pixels of `first` to `last` may be inside: by the lines that they lie in.
  HD bool meets(const RowMix& mix, int64_t first, int64_t last) const {
    const auto line = [&](int64_t pixel) {
      return (static_cast<int>(by_columns.quotient(block_of(pixel))) - top) * block - mix.box[1];
    };
    return (line(last) + block > 0) & (line(first) < mix.box[3]);
  }
  // Pixels are counted as they are stored; those of the border lie outside every box.
  HD bool inside(const RowMix& mix, int64_t pixel) const {
    const int64_t wide = block_of(pixel), wide_row = by_columns.quotient(wide);
    const int in_block = static_cast<int>(pixel - wide * area);
    const int row = area == 1 ? 0 : static_cast<int>(by_block.quotient(in_block));
    const int h = (static_cast<int>(wide_row) - top) * block + row - mix.box[1];
    const int w = (static_cast<int>(wide - wide_row * columns) - left) * block + in_block - row * block - mix.box[0];
    return (w >= 0) & (w < mix.box[2]) & (h >= 0) & (h < mix.box[3]);
  }

  // A bit for each of the elements from i on.
  template <int W>
  HD unsigned inside(const RowMix& mix, int i) const {
    int64_t pixel = by_stored.quotient(i);
    if (!meets(mix, pixel, by_stored.quotient(i + W - 1))) return 0;
    int channel = i - static_cast<int>(pixel) * stored;
    unsigned bits = 0;
    for (int j = 0; j < W;) {
      const int rest = stored - channel, count = rest < W - j ? rest : W - j;
      if (inside(mix, pixel)) bits |= ((1U << count) - 1) << j;
      j += count;
      channel = 0;
      ++pixel;
    }
    return bits;
  }
};

// Both rows of a pair, packet by packet: they are read before either is written.
template <class T>
struct MixPair {
  const StepInput* input;
  T* y;
  int64_t rows, elements;  // of a row
  PixelFinder pixels;

  struct Place {
    T *first, *last;
    RowMix of_first, of_last;
  };
  HD Place at(int64_t n) const {
    Place p{y + n * elements, y + (rows - 1 - n) * elements, {}, {}};
    if (input->mixes != nullptr) {
      p.of_first = input->mixes[n];
      p.of_last = input->mixes[rows - 1 - n];
    }
    return p;
  }
  HD static bool has_box(const RowMix& mix) { return mix.box[2] > 0; }
  HD static bool blends(const RowMix& mix) { return !has_box(mix) && mix.part < 1.F; }

  template <int W>
  HD void run(const Place& p, int i) const {
    if (has_box(p.of_first) || has_box(p.of_last)) return exchange<W>(p, i);
    const bool first = blends(p.of_first), last = blends(p.of_last);
    if (!first && !last) return;
    const Floats<W> a = load_ahead<W>(p.first + i), b = load_ahead<W>(p.last + i);
    if (first) store(p.first + i, blended(p.of_first, a, b));
    if (last) store(p.last + i, blended(p.of_last, b, a));
  }
  template <int W>
  HD static Floats<W> blended(const RowMix& mix, const Floats<W>& own, const Floats<W>& other) {
    Floats<W> v;
    const float part = mix.part, rest = 1.F - part;
    for_lanes<W>([&](int j) { v[j] = part * own[j] + rest * other[j]; });
    return v;
  }

  // Where one of the two takes a box of the other; most elements lie outside.
  template <int W>
  HD void exchange(const Place& p, int i) const {
    const unsigned first = changed<W>(p.of_first, i), last = changed<W>(p.of_last, i);
    if ((first | last) == 0) return;
    const Floats<W> a = load<W>(p.first + i), b = load<W>(p.last + i);
    if (first != 0) store(p.first + i, exchanged(p.of_first, a, b, first));
    if (last != 0) store(p.last + i, exchanged(p.of_last, b, a, last));
  }
  // A bit for each of the elements from i on that the mixture changes.
  template <int W>
  HD unsigned changed(const RowMix& mix, int i) const {
    if (has_box(mix)) return pixels.template inside<W>(mix, i);
    return blends(mix) ? ~0U : 0U;
  }
  template <int W>
  HD static Floats<W> exchanged(const RowMix& mix, const Floats<W>& own, const Floats<W>& other, unsigned taken) {
    if (!has_box(mix)) return blended(mix, own, other);
    Floats<W> v;
    for_lanes<W>([&](int j) { v[j] = (taken >> j & 1U) != 0 ? other[j] : own[j]; });
    return v;
  }
};

}  // namespace

void mix(Stream s, const MixArgs& args) {
  const Shape& shape = args.y.shape;
  const int64_t stored = args.blocks.channels > 0 ? args.blocks.block * args.blocks.block * args.blocks.stored : 0;
  if (shape.rank() != 4 || (stored > 0 && shape[3] != stored))
    throw ShapeError("mix takes pictures [N, H, W, C], found " + shape.to_string());
  if (args.y.elements() == 0) return;
  const int64_t rows = shape[0], elements = args.y.elements() / rows;
  if (elements > INT32_MAX)
    throw ShapeError("mix takes pictures of fewer than 2^31 elements, found " + shape.to_string());
  dispatch_float(args.y.dtype, "mix", [&](auto t) {
    using T = decltype(t);
    for_each_channel_packet<T>(s, rows / 2, static_cast<int>(elements),
                               MixPair<T>{args.input, args.y.as<T>(), rows, elements, {args.y, args.blocks}});
  });
}

}  // namespace convolt
