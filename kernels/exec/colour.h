// Colour arithmetic on pixels in 0..1: one of a GPU's thread, or eight of the CPU (F).
#pragma once

#include "exec/eight.h"

namespace convolt {

template <class F, int C>
struct Colours {
  F v[C];
  HD F& operator[](int c) { return v[c]; }
  HD F operator[](int c) const { return v[c]; }
};

// torchvision's rgb_to_grayscale.
template <class F>
HD F luma(F red, F green, F blue) {
  return 0.2989F * red + 0.587F * green + 0.114F * blue;
}

// RGB with its hue turned by `turn` of a whole circle: through HSV (A. R. Smith, "Color gamut transform pairs",
// SIGGRAPH 1978), as torchvision's adjust_hue. Grey has no hue and stays.
template <class F>
HD Colours<F, 3> turned_hue(const Colours<F, 3>& v, float turn) {
  const F low = smaller(smaller(v[0], v[1]), v[2]), high = larger(larger(v[0], v[1]), v[2]), chroma = high - low;
  const F per_chroma = reciprocal(chroma);
  // In sixths of the circle: 0 red, 2 green, 4 blue.
  const F of_red = (v[1] - v[2]) * per_chroma, of_green = 2.F + (v[2] - v[0]) * per_chroma,
          of_blue = 4.F + (v[0] - v[1]) * per_chroma;
  const F hue = choose(v[0] == high, of_red, choose(v[1] == high, of_green, of_blue)) + 6.F * turn;
  // A channel is as far from `high` as its own place on the circle is from the hue.
  Colours<F, 3> out;
  for (int c = 0; c < 3; ++c) {
    const F apart = hue - 2.F * static_cast<float>(c);
    const F distance = absolute(apart - 6.F * rounded_down(apart * (1.F / 6) + 0.5F));  // 0..3, round the circle
    out[c] = choose(chroma > 0.F, low + chroma * within(2.F - distance, 0.F, 1.F), v[c]);
  }
  return out;
}

}  // namespace convolt
