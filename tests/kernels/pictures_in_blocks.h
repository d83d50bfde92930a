// Layouts of pictures in blocks, and pictures laid out so by the definition.
#pragma once

#include <vector>

#include "stem.h"

namespace convolt::test {

inline const PixelBlocks kLayouts[] = {
    {1, 3, 8}, {2, 3, 4}, {2, 1, 4}, {4, 3, 4}, {1, 1, 8}, {2, 3, 4, {2, 2, 1, 1}}, {4, 1, 4, {1, 0, 0, 2}}};

// v[N, H, W, channels] in blocks, by the definition.
inline std::vector<double> in_blocks(const std::vector<double>& v, const PixelBlocks& l, int n, int h, int w) {
  const int b = l.block;
  std::vector<double> out;
  for (int i = 0; i < n; ++i)
    for (int wide_h = -l.border.top; wide_h < h / b + l.border.bottom; ++wide_h)
      for (int wide_w = -l.border.left; wide_w < w / b + l.border.right; ++wide_w)
        for (int dh = 0; dh < b; ++dh)
          for (int dw = 0; dw < b; ++dw)
            for (int c = 0; c < l.stored; ++c) {
              const int row = wide_h * b + dh, column = wide_w * b + dw;
              const bool exists = c < l.channels && row >= 0 && row < h && column >= 0 && column < w;
              out.push_back(exists ? v[static_cast<size_t>(((i * h + row) * w + column) * l.channels + c)] : 0);
            }
  return out;
}
// Where they go: all zeros.
inline Shape wide_shape(const PixelBlocks& l, int n, int h, int w) {
  return {n, h / l.block + l.border.vertical(), w / l.block + l.border.horizontal(), l.block * l.block * l.stored};
}

}  // namespace convolt::test
