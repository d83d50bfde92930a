#include "stem.h"

#include "exec/launch.h"
#include "exec/pixel_blocks.h"

namespace convolt {
namespace {

int extent(const Tensor& t, int i) { return static_cast<int>(t.shape[i]); }

template <class T>
struct LoadBlocks {
  const StepInput* input;
  T* y;
  PixelBlocks layout;
  int height, width;
  Divisor by_width, by_height;
  HD void operator()(int64_t pixel) const {
    const int64_t row = by_width.quotient(pixel), n = by_height.quotient(row);
    const int h = static_cast<int>(row - n * height), w = static_cast<int>(pixel - row * width);
    T* const to = y + pixel_place(layout, height, width, n, h, w);
    for (int c = 0; c < layout.stored; ++c)
      to[c] = T(c < layout.channels ? input->images[pixel * layout.channels + c] : 0.F);
  }
};

// The windows of y are pictures in blocks, without a border, in which those of w begin at `shift`.
struct Windows {
  PixelBlocks layout;
  StemShift shift;
  int kh, kw, wide_h, wide_w;  // of w, and of y
  HD int64_t place(int64_t o, int r, int s) const {
    return pixel_place(layout, wide_h * layout.block, wide_w * layout.block, o, r + shift.down, s + shift.right);
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
  return {borderless, shift, extent(w, 1), extent(w, 2), extent(y, 1), extent(y, 2)};
}

}  // namespace

void load_images(Stream s, const StepInput* input, const PixelBlocks& layout, const Tensor& y) {
  const Padding& border = layout.border;
  const int height = (extent(y, 1) - border.vertical()) * layout.block,
            width = (extent(y, 2) - border.horizontal()) * layout.block;
  dispatch_float(y.dtype, "load_images", [&](auto t) {
    using T = decltype(t);
    for_each(s, y.shape[0] * height * width,
             LoadBlocks<T>{input, y.as<T>(), layout, height, width, Divisor(width), Divisor(height)}, 8);
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
