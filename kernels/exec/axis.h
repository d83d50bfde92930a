// Where an output pixel lies in the source, and the antialiased filter there along one axis.
#pragma once

#include "augment.h"
#include "exec/filter.h"

namespace convolt {

// A block makes one row of one output picture, in tiles of at most this many pixels, one for each thread.
constexpr int kThreads = 128;

// Filters of the distance d >= 0, in units of the filter's scale; of one distance or of a vector of them.
template <class D>
HD D tent(D d) {
  return larger(1.F - d, D{});
}
// R. Keys, "Cubic convolution interpolation", IEEE TASSP 1981, with a = -1/2.
template <class D>
HD D keys_cubic(D d) {
  return choose(d < 1.F, (1.5F * d - 2.5F) * d * d + 1.F,
                choose(d < 2.F, ((-0.5F * d + 2.5F) * d - 4.F) * d + 2.F, D{}));
}

// How the source is read, the same for the whole batch.
struct Reading {
  AugmentOptions::Interpolation interpolation;
  AugmentOptions::Border border;
};

// The filter along one axis of the source, widened by max(scale, 1), cut at the box.
struct Axis {
  float support, inverse, low, high, turns;  // turns: back and forth between the outermost pixels, in 1 / pixels
  Reading reading;
  // The scale is how fast the coordinate changes, the norm of its row (a, b) of the map.
  static HD Axis of(float a, float b, float box_low, float box_high, Reading reading) {
    const float scale = larger(sqrtf(a * a + b * b), 1.F);
    using enum AugmentOptions::Interpolation;
    const float support = reading.interpolation == nearest    ? 0.5F
                          : reading.interpolation == bilinear ? scale
                                                              : 2.F * scale;
    return {support, 1.F / scale, box_low, box_high, 0.5F / (box_high - box_low - 1.F), reading};
  }
  HD bool inside(float centre) const { return centre >= low && centre < high; }
  // The source pixels under the filter, [first, last) inside the box, as Pillow's precompute_coeffs counts them; before
  // they are cut, [begin, end).
  template <class D>
  HD D begin(D centre) const {
    return rounded_down(centre - support + 0.5F);
  }
  HD float end(float centre) const { return floorf(centre + support + 0.5F); }
  HD int first(float centre) const { return clamped(begin(centre)); }
  HD int last(float centre) const { return clamped(end(centre)); }
  HD float weight(int pixel, float centre) const {
    using enum AugmentOptions::Interpolation;
    const float d = fabsf(static_cast<float>(pixel) + 0.5F - centre) * inverse;
    if (reading.interpolation == bilinear) return tent(d);
    if (reading.interpolation == nearest) return 1.F;
    return keys_cubic(d);
  }
#if !defined(__CUDA_ARCH__)
  // Pixels under the filter, at most.
  HD int taps() const { return static_cast<int>(ceilf(2.F * support)); }
  // For eight centres at once.
  HD Eight::Mask inside(Eight centres) const { return (centres >= low) & (centres < high); }
  // Where `count` pixels in a row begin, all of them of [from, to), that hold what of a filter lies there.
  HD Eight windows(Eight centres, float from, float to, int count) const {
    return smaller(larger(begin(centres), Eight(from)), Eight(to - static_cast<float>(count)));
  }
  // Whether the box has so many, and a filter has no more.
  HD bool has_windows(int count) const { return taps() <= count && high - low >= static_cast<float>(count); }
  HD Eight bordered(Eight centres) const {
    if (fills() || all(inside(centres))) return centres;
    float each[8];
    put(each, centres);
    for (float& centre : each) centre = bordered(centre);
    return eight(each);
  }
  // The weights of a pixel each, so far from the filters' centres.
  HD Eight weights_at(Eight distances) const {
    using enum AugmentOptions::Interpolation;
    if (reading.interpolation == nearest) return choose((distances > -0.5F) & (distances <= 0.5F), 1.F, 0.F);
    const Eight d = absolute(distances) * inverse;
    return reading.interpolation == bilinear ? tent(d) : keys_cubic(d);
  }
  // The sum of the weights of `count` pixels in a row, the first of them so far from the centres.
  HD Eight sums_of_weights(Eight distances, int count) const {
    Eight sum{};
    for (int i = 0; i < count; ++i) sum += weights_at(distances + static_cast<float>(i));
    return sum;
  }
#endif
  HD bool fills() const { return reading.border == AugmentOptions::Border::constant; }
  // Where a centre outside the box is read instead.
  HD float bordered(float centre) const {
    if (fills() || inside(centre)) return centre;
    const float last = high - low - 1.F;  // from the first pixel's centre to the last one's
    float p = centre - low - 0.5F;
    if (reading.border == AugmentOptions::Border::reflect && last > 0) {
      p -= floorf(p * turns) * 2.F * last;
      if (p > last) p = 2.F * last - p;
    }
    return low + 0.5F + smaller(larger(p, 0.F), last);
  }
  // The source pixels under the filters of all centres between two, the first and the last of a tile.
  HD void range(float from, float to, int& begin, int& end) const {
    if (reading.border == AugmentOptions::Border::reflect && !(inside(from) && inside(to))) {
      begin = static_cast<int>(low);
      end = static_cast<int>(high);
      return;
    }
    const float a = bordered(from), b = bordered(to);
    begin = smaller(first(a), first(b));
    end = larger(last(a), last(b));
  }
  // In float first: a far-off position must not overflow the integer.
  HD int clamped(float position) const { return static_cast<int>(smaller(larger(position, low), high)); }
};

// N is a number, or a vector of them.
template <class N>
HD N source_x(const RowRecord& r, N x, float y) {
  return r.map[0] * (x + 0.5F) + r.map[1] * (y + 0.5F) + r.map[2];
}
template <class N>
HD N source_y(const RowRecord& r, N x, float y) {
  return r.map[3] * (x + 0.5F) + r.map[4] * (y + 0.5F) + r.map[5];
}
HD float source_x(const RowRecord& r, int x, int y) {
  return source_x(r, static_cast<float>(x), static_cast<float>(y));
}
HD float source_y(const RowRecord& r, int x, int y) {
  return source_y(r, static_cast<float>(x), static_cast<float>(y));
}

// `count` output pixels of row y from x0, of a picture in `pixels`; which picture of the batch, and which tile of the
// row.
struct Tile {
  const uint8_t* pixels;
  int picture, number, x0, y, count;
};

}  // namespace convolt
