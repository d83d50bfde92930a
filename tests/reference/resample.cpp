#include "reference/resample.h"

#include <algorithm>
#include <cmath>

#include "reference/arrays.h"

namespace convolt::reference {
namespace {

struct Tap {
  int64_t pixel;
  double weight;
};
std::vector<Tap> taps(int64_t i, int64_t from, int64_t to, bool bilinear) {
  const double scale = static_cast<double>(from) / static_cast<double>(to), place = static_cast<double>(i);
  if (!bilinear) return {{static_cast<int64_t>(std::floor(place * scale + 1e-9)), 1}};
  const double centre = std::max((place + 0.5) * scale - 0.5, 0.0), below = std::floor(centre);
  const int64_t first = static_cast<int64_t>(below), second = std::min(first + 1, from - 1);
  return {{first, 1 - (centre - below)}, {second, centre - below}};
}

// f(index in x, index in y, weight) for each product.
template <class F>
void for_each_tap(const Shape& x, int64_t h, int64_t w, bool bilinear, F f) {
  const Shape y{x[0], h, w, x[3]};
  for (int64_t n = 0; n < x[0]; ++n)
    for (int64_t i = 0; i < h; ++i)
      for (int64_t j = 0; j < w; ++j)
        for (const Tap& row : taps(i, x[1], h, bilinear))
          for (const Tap& column : taps(j, x[2], w, bilinear))
            for (int64_t c = 0; c < x[3]; ++c)
              f(at(x, n, row.pixel, column.pixel, c), at(y, n, i, j, c), row.weight * column.weight);
}

// f(index in x, index in the padded y) for each pixel.
template <class F>
void for_each_inner(const Shape& x, const Padding& p, F f) {
  const Shape y{x[0], x[1] + p.vertical(), x[2] + p.horizontal(), x[3]};
  for (int64_t n = 0; n < x[0]; ++n)
    for (int64_t h = 0; h < x[1]; ++h)
      for (int64_t w = 0; w < x[2]; ++w)
        for (int64_t c = 0; c < x[3]; ++c) f(at(x, n, h, w, c), at(y, n, h + p.top, w + p.left, c));
}

}  // namespace

std::vector<double> pad(const std::vector<double>& x, const Shape& shape, const Padding& padding, double value) {
  const Shape padded{shape[0], shape[1] + padding.vertical(), shape[2] + padding.horizontal(), shape[3]};
  std::vector<double> y(static_cast<size_t>(padded.elements()), value);
  for_each_inner(shape, padding, [&](size_t ix, size_t iy) { y[iy] = x[ix]; });
  return y;
}

std::vector<double> pad_backward(const std::vector<double>& dy, const Shape& shape, const Padding& padding) {
  std::vector<double> dx = zeros(shape);
  for_each_inner(shape, padding, [&](size_t ix, size_t iy) { dx[ix] = dy[iy]; });
  return dx;
}

std::vector<double> resample(const std::vector<double>& x, const Shape& shape, int64_t h, int64_t w, bool bilinear) {
  std::vector<double> y = zeros({shape[0], h, w, shape[3]});
  for_each_tap(shape, h, w, bilinear, [&](size_t ix, size_t iy, double weight) { y[iy] += x[ix] * weight; });
  return y;
}

std::vector<double> resample_backward(const std::vector<double>& dy, const Shape& shape, int64_t h, int64_t w,
                                      bool bilinear) {
  std::vector<double> dx = zeros(shape);
  for_each_tap(shape, h, w, bilinear, [&](size_t ix, size_t iy, double weight) { dx[ix] += dy[iy] * weight; });
  return dx;
}

}  // namespace convolt::reference
