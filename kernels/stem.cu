#include "stem.h"

#include "exec/launch.h"
#include "exec/pixel_blocks.h"

namespace convolt {
namespace {

int extent(const Tensor& t, int i) { return static_cast<int>(t.shape[i]); }

// Row by row of the pictures, four channels at a time where that many are stored. Of three such channels four pixels at
// a time, where blocks have an even side and so hold pairs of them: else a GPU would be busy with where pixels lie.
template <class T, int kPixels>
struct LoadBlocks {
  const StepInput* input;
  T* y;
  int channels, stored, height, width;
  PixelPlaces places;
  Divisor by_packets, by_height;

  LoadBlocks(const StepInput* from, const Tensor& to, const PixelBlocks& l, int picture_height, int picture_width)
      : input(from),
        y(to.as<T>()),
        channels(l.channels),
        stored(l.stored),
        height(picture_height),
        width(picture_width),
        places(l, height, width),
        by_packets(width / kPixels),
        by_height(height) {}

  HD void operator()(int64_t i) const {
    const int64_t row = by_packets.quotient(i), n = by_height.quotient(row);
    const int h = static_cast<int>(row - n * height), w = static_cast<int>(i * kPixels - row * width);
    const float* const from = input->images + i * kPixels * channels;
    T* const to = y + places.row(n, h);
    if constexpr (kPixels == 4) {
      const Floats<12> v = load_four(from);
      unrolled<2>([&](int pair) {
        Floats<8> two;
        for_lanes<8>([&](int j) { two[j] = j % 4 < 3 ? v[(2 * pair + j / 4) * 3 + j % 4] : 0.F; });
        store(to + places.column(w + 2 * pair), two);
      });
    } else {
      T* const pixel = to + places.column(w);
      if (stored == 4) return store(pixel, load_channels<4>(from));
      for (int c = 0; c < stored; ++c) pixel[c] = T(c < channels ? from[c] : 0.F);
    }
  }
  template <int W>
  HD Floats<W> load_channels(const float* from) const {
    Floats<W> v;
    for_lanes<W>([&](int c) { v[c] = c < channels ? from[c] : 0.F; });
    return v;
  }
  // On 16 bytes lie all of them, or none.
  HD static Floats<12> load_four(const float* from) {
    if (reinterpret_cast<uintptr_t>(from) % 16 == 0) return load<12>(from);
    Floats<12> v;
    for_lanes<12>([&](int j) { v[j] = from[j]; });
    return v;
  }
};

// The windows of y are pictures in blocks, without a border, in which those of w begin at `shift`.
struct Windows {
  PixelBlocks layout;
  StemShift shift;
  int kh, kw, wide_h, wide_w;  // of w, and of y
  PixelPlaces places;
  HD int64_t place(int64_t o, int r, int s) const {
    return places.row(o, r + shift.down) + places.column(s + shift.right);
  }
};

// Tap by tap of w: what y has of it.
template <class T>
struct Taps {
  const T* y;
  T* w;
  Windows k;
  HD void operator()(int64_t tap) const {
    const int64_t row = tap / k.kw, o = row / k.kh;
    const int r = static_cast<int>(row - o * k.kh), s = static_cast<int>(tap - row * k.kw);
    const T* const pixel = y + k.place(o, r, s);
    for (int c = 0; c < k.layout.channels; ++c) w[tap * k.layout.channels + c] = pixel[c];
  }
};

// Each element of y asks which tap it is, if any.
template <class T>
struct Widen {
  const T* w;
  T* y;
  Windows k;
  HD void operator()(int64_t i) const {
    const int b = k.layout.block, stored = k.layout.stored;
    const int64_t pixel = i / stored, window = pixel / (b * b), row = window / k.wide_w, o = row / k.wide_h;
    const int c = static_cast<int>(i - pixel * stored), inside = static_cast<int>(pixel - window * b * b);
    const int r = static_cast<int>(row - o * k.wide_h) * b + inside / b - k.shift.down;
    const int s = static_cast<int>(window - row * k.wide_w) * b + inside % b - k.shift.right;
    const bool exists = c < k.layout.channels && r >= 0 && r < k.kh && s >= 0 && s < k.kw;
    y[i] = exists ? w[((o * k.kh + r) * k.kw + s) * k.layout.channels + c] : T(0.F);
  }
};

Windows windows_of(const Tensor& w, const Tensor& y, const PixelBlocks& layout, StemShift shift) {
  const PixelBlocks borderless{layout.block, layout.channels, layout.stored};
  const int wide_h = extent(y, 1), wide_w = extent(y, 2);
  return {borderless,
          shift,
          extent(w, 1),
          extent(w, 2),
          wide_h,
          wide_w,
          {borderless, wide_h * layout.block, wide_w * layout.block}};
}

}  // namespace

void load_images(Stream s, const StepInput* input, const PixelBlocks& layout, const Tensor& y) {
  const Padding& border = layout.border;
  const int height = (extent(y, 1) - border.vertical()) * layout.block,
            width = (extent(y, 2) - border.horizontal()) * layout.block;
  dispatch_float(y.dtype, "load_images", [&](auto t) {
    using T = decltype(t);
    const int64_t pixels = y.shape[0] * height * width;
    if (layout.channels == 3 && layout.stored == 4 && layout.block % 2 == 0 && width % 4 == 0)
      for_each(s, pixels / 4, LoadBlocks<T, 4>(input, y, layout, height, width), 32);
    else
      for_each(s, pixels, LoadBlocks<T, 1>(input, y, layout, height, width), 8);
  });
}

void stem_weights(Stream s, const Tensor& w, const PixelBlocks& layout, StemShift shift, const Tensor& y) {
  dispatch_float(w.dtype, "stem_weights", [&](auto t) {
    using T = decltype(t);
    for_each(s, y.elements(), Widen<T>{w.as<const T>(), y.as<T>(), windows_of(w, y, layout, shift)});
  });
}

void stem_weights_backward(Stream s, const Tensor& dy, const PixelBlocks& layout, StemShift shift, const Tensor& dw) {
  dispatch_float(dw.dtype, "stem_weights_backward", [&](auto t) {
    using T = decltype(t);
    for_each(s, dw.shape[0] * dw.shape[1] * dw.shape[2],
             Taps<T>{dy.as<const T>(), dw.as<T>(), windows_of(dw, dy, layout, shift)});
  });
}

}  // namespace convolt
