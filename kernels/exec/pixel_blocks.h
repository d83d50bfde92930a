// Where pixels lie in pictures that are laid out in blocks (stem.h).
#pragma once

#include "exec/hd.h"
#include "stem.h"

namespace convolt {

// Element at which pixel (h, w) of picture n begins; H and W are those of the picture.
HD int64_t pixel_place(const PixelBlocks& l, int height, int width, int64_t n, int h, int w) {
  const int b = l.block;
  const int64_t wide = (n * (height / b) + h / b) * (width / b) + w / b;
  return (wide * b * b + h % b * b + w % b) * l.stored;
}

}  // namespace convolt
