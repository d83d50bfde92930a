// 8-bit pictures of C channels resampled at places that a map says.
#pragma once

#include "exec/axis.h"
#include "exec/colour.h"

namespace convolt {

// Of values in 0..255 and beyond.
HD uint8_t level_down(float v) { return static_cast<uint8_t>(smaller(larger(v, 0.F), 255.F)); }
HD uint8_t level_nearest(float v) { return level_down(v + 0.5F); }

// Continuous: pixel (i, j) has its centre at (i + 0.5, j + 0.5).
struct Spot {
  float x, y;
};

// The bilinear mean of the four pixels around a place; those outside the picture are fill.
template <int C>
HD Floats<C> bilinear(const uint8_t* picture, int height, int width, Spot at, const uint8_t* fill) {
  // A place far outside, or none (NaN), becomes one just outside.
  const float u = smaller(larger(at.x - 0.5F, -2.F), static_cast<float>(width) + 1.F);
  const float v = smaller(larger(at.y - 0.5F, -2.F), static_cast<float>(height) + 1.F);
  const int left = static_cast<int>(floorf(u)), top = static_cast<int>(floorf(v));
  const float right_part = u - static_cast<float>(left), lower_part = v - static_cast<float>(top);
  Floats<C> sum{};
  for (int j = 0; j < 2; ++j)
    for (int i = 0; i < 2; ++i) {
      const int x = left + i, y = top + j;
      const bool inside = x >= 0 && x < width && y >= 0 && y < height;
      const uint8_t* const pixel = inside ? picture + (y * width + x) * C : fill;
      const float weight = (i == 0 ? 1.F - right_part : right_part) * (j == 0 ? 1.F - lower_part : lower_part);
      for (int c = 0; c < C; ++c) sum[c] += weight * static_cast<float>(pixel[c]);
    }
  return sum;
}

// The uniform cubic B-spline's weights of four knots in a row, at part t of the way from the second to the third.
HD Floats<4> spline_weights(float t) {
  const float u = 1.F - t;
  return {{u * u * u * (1.F / 6), (t * t * (3.F * t - 6.F) + 4.F) * (1.F / 6),
           (t * (t * (3.F - 3.F * t) + 3.F) + 1.F) * (1.F / 6), t * t * t * (1.F / 6)}};
}

}  // namespace convolt
