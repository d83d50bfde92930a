// Where pixels lie in pictures that are laid out in blocks (stem.h).
#pragma once

#include "exec/hd.h"
#include "stem.h"

namespace convolt {

// Element at which pixel (h, w) of picture n begins; H and W are those of the picture.
HD int64_t pixel_place(const PixelBlocks& l, int height, int width, int64_t n, int h, int w) {
  const int b = l.block;
  const int rows = height / b + l.border.top + l.border.bottom, columns = width / b + l.border.left + l.border.right;
  const int64_t wide = (n * rows + h / b + l.border.top) * columns + w / b + l.border.left;
  return (wide * b * b + h % b * b + w % b) * l.stored;
}

}  // namespace convolt
