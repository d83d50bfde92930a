#include "reference/pooling.h"

#include <cmath>

#include "reference/arrays.h"

namespace convolt::reference {
namespace {

// f(index in x, index in y, position in the window) for every element of every window that lies inside the picture.
template <class F>
void for_each_window_element(const Shape& x, const PoolWindow& k, F f) {
  const Shape y = pooled_shape(x, k);
  for (int64_t n = 0; n < y[0]; ++n)
    for (int64_t oh = 0; oh < y[1]; ++oh)
      for (int64_t ow = 0; ow < y[2]; ++ow)
        for (int64_t c = 0; c < y[3]; ++c)
          for (int r = 0; r < k.kernel_h; ++r)
            for (int s = 0; s < k.kernel_w; ++s) {
              const int64_t h = oh * k.stride_h - k.pad.top + r, w = ow * k.stride_w - k.pad.left + s;
              if (h >= 0 && h < x[1] && w >= 0 && w < x[2])
                f(at(x, n, h, w, c), at(y, n, oh, ow, c), r * k.kernel_w + s);
            }
}

// f(index in x, index in y) for every pair that slice_pad connects.
template <class F>
void for_each_kept(const Shape& x, int64_t channels, int stride, int channels_before, F f) {
  const Shape y{x[0], (x[1] + stride - 1) / stride, (x[2] + stride - 1) / stride, channels};
  for (int64_t n = 0; n < x[0]; ++n)
    for (int64_t h = 0; h < x[1]; h += stride)
      for (int64_t w = 0; w < x[2]; w += stride)
        for (int64_t c = 0; c < x[3]; ++c)
          if (c + channels_before >= 0 && c + channels_before < channels)
            f(at(x, n, h, w, c), at(y, n, h / stride, w / stride, c + channels_before));
}

// f(index in x, index in y, weight) for every pair that an adaptive mean to [N, h, w, C] connects.
template <class F>
void for_each_averaged(const Shape& x, int64_t h, int64_t w, F f) {
  const Shape y{x[0], h, w, x[3]};
  const auto bounds = [](int64_t i, int64_t from, int64_t to) {
    const double step = static_cast<double>(from) / static_cast<double>(to), at_start = static_cast<double>(i) * step;
    return std::pair{static_cast<int64_t>(std::floor(at_start + 1e-9)),
                     static_cast<int64_t>(std::ceil(at_start + step - 1e-9))};
  };
  for (int64_t n = 0; n < x[0]; ++n)
    for (int64_t oh = 0; oh < h; ++oh)
      for (int64_t ow = 0; ow < w; ++ow) {
        const auto [top, bottom] = bounds(oh, x[1], h);
        const auto [left, right] = bounds(ow, x[2], w);
        const double weight = 1 / static_cast<double>((bottom - top) * (right - left));
        for (int64_t r = top; r < bottom; ++r)
          for (int64_t s = left; s < right; ++s)
            for (int64_t c = 0; c < x[3]; ++c) f(at(x, n, r, s, c), at(y, n, oh, ow, c), weight);
      }
}

// Windows that a padded extent holds, counted one by one; in ceil mode also one that sticks out behind the padding, if
// it does not start there.
int64_t windows(int64_t extent, int before, int after, int kernel, int stride, bool ceil_mode) {
  int64_t n = 0;
  for (int64_t start = -before;; start += stride, ++n) {
    const bool fits = start + kernel <= extent + after;
    const bool sticks_out =
        n == 0 ? extent + before + after + stride > kernel : start - stride + kernel < extent + after && start < extent;
    if (!fits && !(ceil_mode && sticks_out)) return n;
  }
}

// The divisor of the average at each output: elements of the window in the padded picture, or in the picture.
std::vector<double> divisors(const Shape& x, const PoolWindow& k) {
  const int above = k.count_include_pad ? k.pad.top : 0, left = k.count_include_pad ? k.pad.left : 0;
  const int64_t bottom = x[1] + (k.count_include_pad ? k.pad.bottom : 0),
                right = x[2] + (k.count_include_pad ? k.pad.right : 0);
  const Shape y = pooled_shape(x, k);
  std::vector<double> counts = zeros(y);
  for (size_t i = 0; i < counts.size(); ++i) {
    const int64_t pixel = static_cast<int64_t>(i) / y[3], oh = pixel / y[2] % y[1], ow = pixel % y[2];
    for (int r = 0; r < k.kernel_h; ++r)
      for (int s = 0; s < k.kernel_w; ++s) {
        const int64_t h = oh * k.stride_h - k.pad.top + r, w = ow * k.stride_w - k.pad.left + s;
        counts[i] += h >= -above && h < bottom && w >= -left && w < right;
      }
  }
  return counts;
}

}  // namespace

Shape pooled_shape(const Shape& x, const PoolWindow& k) {
  return {x[0], windows(x[1], k.pad.top, k.pad.bottom, k.kernel_h, k.stride_h, k.ceil_mode),
          windows(x[2], k.pad.left, k.pad.right, k.kernel_w, k.stride_w, k.ceil_mode), x[3]};
}

MaxPooled max_pool(const std::vector<double>& x, const Shape& shape, const PoolWindow& window) {
  const auto outputs = static_cast<size_t>(pooled_shape(shape, window).elements());
  MaxPooled r{std::vector<double>(outputs), std::vector<double>(outputs, -1)};
  for_each_window_element(shape, window, [&](size_t ix, size_t iy, int position) {
    const bool larger = x[ix] > r.y[iy] || (std::isnan(x[ix]) && !std::isnan(r.y[iy]));
    if (r.index[iy] >= 0 && !larger) return;
    r.y[iy] = x[ix];
    r.index[iy] = position;
  });
  return r;
}

std::vector<double> max_pool_backward(const std::vector<double>& dy, const std::vector<double>& x, const Shape& shape,
                                      const PoolWindow& window) {
  const MaxPooled pooled = max_pool(x, shape, window);
  std::vector<double> dx = zeros(shape);
  for_each_window_element(shape, window, [&](size_t ix, size_t iy, int position) {
    if (pooled.index[iy] == position) dx[ix] += dy[iy];
  });
  return dx;
}

std::vector<double> avg_pool(const std::vector<double>& x, const Shape& shape, const PoolWindow& window) {
  std::vector<double> y = zeros(pooled_shape(shape, window));
  const std::vector<double> counts = divisors(shape, window);
  for_each_window_element(shape, window, [&](size_t ix, size_t iy, int) { y[iy] += x[ix] / counts[iy]; });
  return y;
}

std::vector<double> avg_pool_backward(const std::vector<double>& dy, const Shape& shape, const PoolWindow& window) {
  std::vector<double> dx = zeros(shape);
  const std::vector<double> counts = divisors(shape, window);
  for_each_window_element(shape, window, [&](size_t ix, size_t iy, int) { dx[ix] += dy[iy] / counts[iy]; });
  return dx;
}

std::vector<double> global_avg_pool(const std::vector<double>& x, const Shape& shape) {
  const auto h = static_cast<int>(shape[1]), w = static_cast<int>(shape[2]);
  return avg_pool(x, shape, {.kernel_h = h, .kernel_w = w, .stride_h = h, .stride_w = w});
}

std::vector<double> global_avg_pool_backward(const std::vector<double>& dy, const Shape& shape) {
  const auto h = static_cast<int>(shape[1]), w = static_cast<int>(shape[2]);
  return avg_pool_backward(dy, shape, {.kernel_h = h, .kernel_w = w, .stride_h = h, .stride_w = w});
}

std::vector<double> adaptive_avg_pool(const std::vector<double>& x, const Shape& shape, int64_t h, int64_t w) {
  std::vector<double> y = zeros({shape[0], h, w, shape[3]});
  for_each_averaged(shape, h, w, [&](size_t ix, size_t iy, double weight) { y[iy] += x[ix] * weight; });
  return y;
}

std::vector<double> adaptive_avg_pool_backward(const std::vector<double>& dy, const Shape& shape, int64_t h,
                                               int64_t w) {
  std::vector<double> dx = zeros(shape);
  for_each_averaged(shape, h, w, [&](size_t ix, size_t iy, double weight) { dx[ix] += dy[iy] * weight; });
  return dx;
}

std::vector<double> slice_pad(const std::vector<double>& x, const Shape& shape, int64_t channels, int stride,
                              int channels_before) {
  std::vector<double> y =
      zeros({shape[0], (shape[1] + stride - 1) / stride, (shape[2] + stride - 1) / stride, channels});
  for_each_kept(shape, channels, stride, channels_before, [&](size_t ix, size_t iy) { y[iy] = x[ix]; });
  return y;
}

std::vector<double> slice_pad_backward(const std::vector<double>& dy, const Shape& shape, int64_t channels, int stride,
                                       int channels_before) {
  std::vector<double> dx = zeros(shape);
  for_each_kept(shape, channels, stride, channels_before, [&](size_t ix, size_t iy) { dx[ix] = dy[iy]; });
  return dx;
}

}  // namespace convolt::reference
