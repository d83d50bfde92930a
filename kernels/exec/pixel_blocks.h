// Where pixels lie in pictures that are laid out in blocks (stem.h).
#pragma once

#include "exec/launch.h"
#include "stem.h"

namespace convolt {

// For pictures of height x width pixels.
class PixelPlaces {
public:
  PixelPlaces(const PixelBlocks& l, int height, int width)
      : block_(l.block),
        stored_(l.stored),
        rows_(height / l.block + l.border.vertical()),
        columns_(width / l.block + l.border.horizontal()),
        top_(l.border.top),
        left_(l.border.left),
        by_block_(l.block) {}

  // The element at which pixel (h, 0) of picture n begins,
  HD int64_t row(int64_t n, int h) const {
    const int wide = static_cast<int>(by_block_.quotient(h));
    const int64_t first = ((n * rows_ + wide + top_) * columns_ + left_) * block_ + h - wide * block_;
    return first * block_ * stored_;
  }
  // and how far behind it pixel (h, w).
  HD int column(int w) const {
    const int wide = static_cast<int>(by_block_.quotient(w));
    return (wide * block_ * (block_ - 1) + w) * stored_;
  }

private:
  int block_, stored_, rows_, columns_, top_, left_;
  Divisor by_block_;
};

}  // namespace convolt
