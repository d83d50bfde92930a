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

  // Pixels are counted as they are stored; those of the border lie outside every box.
  HD bool inside(const RowMix& mix, int64_t pixel) const {
    const int64_t wide = by_area.quotient(pixel), wide_row = by_columns.quotient(wide);
    const int in_block = static_cast<int>(pixel - wide * area), row = static_cast<int>(by_block.quotient(in_block));
    const int h = (static_cast<int>(wide_row) - top) * block + row - mix.box[1];
    const int w = (static_cast<int>(wide - wide_row * columns) - left) * block + in_block - row * block - mix.box[0];
    return (w >= 0) & (w < mix.box[2]) & (h >= 0) & (h < mix.box[3]);
  }

  // A bit for each of the elements from i on.
  template <int W>
  HD unsigned inside(const RowMix& mix, int i) const {
    int64_t pixel = by_stored.quotient(i);
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
  HD static bool changes(const RowMix& mix) { return (mix.part < 1.F) | (mix.box[2] > 0); }

  template <int W>
  HD void run(const Place& p, int i) const {
    const bool first = changes(p.of_first), last = changes(p.of_last);
    if (!first && !last) return;
    const Floats<W> a = load_ahead<W>(p.first + i), b = load_ahead<W>(p.last + i);
    if (first) store(p.first + i, mixed(p.of_first, a, b, i));
    if (last) store(p.last + i, mixed(p.of_last, b, a, i));
  }

  template <int W>
  HD Floats<W> mixed(const RowMix& mix, const Floats<W>& own, const Floats<W>& other, int i) const {
    Floats<W> v;
    if (mix.box[2] == 0) {
      const float part = mix.part, rest = 1.F - part;
      for_lanes<W>([&](int j) { v[j] = part * own[j] + rest * other[j]; });
      return v;
    }
    const unsigned taken = pixels.template inside<W>(mix, i);
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
