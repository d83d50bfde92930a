// Colour arithmetic on pixels in 0..1.
#pragma once

#include "exec/types.h"

namespace convolt {

// 1 / x within 2 units in the last place: on a GPU the exact division is a call, around which registers spill.
HD float reciprocal(float x) {
#if defined(__CUDA_ARCH__)
  return __fdividef(1.F, x);
#else
  return 1.F / x;
#endif
}

// torchvision's rgb_to_grayscale.
HD float luma(float red, float green, float blue) { return 0.2989F * red + 0.587F * green + 0.114F * blue; }

// RGB with its hue turned by `turn` of a whole circle: through HSV (A. R. Smith, "Color gamut transform pairs",
// SIGGRAPH 1978), as torchvision's adjust_hue. Grey has no hue and stays.
HD Floats<3> turned_hue(const Floats<3>& v, float turn) {
  const float low = v[0] < v[1] ? (v[0] < v[2] ? v[0] : v[2]) : (v[1] < v[2] ? v[1] : v[2]);
  const float high = v[0] > v[1] ? (v[0] > v[2] ? v[0] : v[2]) : (v[1] > v[2] ? v[1] : v[2]);
  const float chroma = high - low;
  if (!(chroma > 0)) return v;
  // In sixths of the circle: 0 red, 2 green, 4 blue.
  float hue = 0;
  const float per_chroma = reciprocal(chroma);
  if (v[0] == high)
    hue = (v[1] - v[2]) * per_chroma;
  else if (v[1] == high)
    hue = 2.F + (v[2] - v[0]) * per_chroma;
  else
    hue = 4.F + (v[0] - v[1]) * per_chroma;
  hue += 6.F * turn;
  // A channel is as far from `high` as its own place on the circle is from the hue.
  Floats<3> out;
  for (int c = 0; c < 3; ++c) {
    float distance = hue - 2.F * static_cast<float>(c);
    distance = fabsf(distance - 6.F * floorf(distance * (1.F / 6) + 0.5F));  // 0..3, round the circle
    const float part = distance <= 1.F ? 1.F : distance >= 2.F ? 0.F : 2.F - distance;
    out[c] = low + chroma * part;
  }
  return out;
}

}  // namespace convolt
