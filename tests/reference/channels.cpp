#include "reference/channels.h"

#include <cstddef>

namespace convolt::reference {
namespace {

size_t index(int64_t i) { return static_cast<size_t>(i); }

// f(index in x, index in the shuffled y) for each element.
template <class F>
void for_each_shuffled(int64_t elements, int64_t channels, int64_t groups, F f) {
  const int64_t per_group = channels / groups;
  for (int64_t row = 0; row < elements / channels; ++row)
    for (int64_t g = 0; g < groups; ++g)
      for (int64_t j = 0; j < per_group; ++j)
        f(index(row * channels + g * per_group + j), index(row * channels + j * groups + g));
}

// The index in b of each element of a.
size_t factor_of(size_t i, int64_t pixels, int64_t channels) {
  return i / index(pixels * channels) * index(channels) + i % index(channels);
}

}  // namespace

std::vector<double> concat(const std::vector<std::vector<double>>& parts, const std::vector<int64_t>& channels) {
  std::vector<double> y;
  for (size_t row = 0; row < parts[0].size() / index(channels[0]); ++row)
    for (size_t i = 0; i < parts.size(); ++i)
      for (size_t c = 0; c < index(channels[i]); ++c) y.push_back(parts[i][row * index(channels[i]) + c]);
  return y;
}

std::vector<double> slice_channels(const std::vector<double>& x, int64_t channels, int64_t first, int64_t count) {
  std::vector<double> y;
  for (size_t i = 0; i < x.size(); ++i) {
    const int64_t c = static_cast<int64_t>(i) % channels;
    if (c >= first && c < first + count) y.push_back(x[i]);
  }
  return y;
}

std::vector<double> slice_channels_backward(const std::vector<double>& dy, int64_t channels, int64_t first,
                                            int64_t count) {
  std::vector<double> dx(dy.size() / index(count) * index(channels));
  for (size_t i = 0; i < dy.size(); ++i)
    dx[i / index(count) * index(channels) + index(first) + i % index(count)] = dy[i];
  return dx;
}

std::vector<double> channel_shuffle(const std::vector<double>& x, int64_t channels, int64_t groups) {
  std::vector<double> y(x.size());
  for_each_shuffled(static_cast<int64_t>(x.size()), channels, groups, [&](size_t ix, size_t iy) { y[iy] = x[ix]; });
  return y;
}

std::vector<double> channel_shuffle_backward(const std::vector<double>& dy, int64_t channels, int64_t groups) {
  std::vector<double> dx(dy.size());
  for_each_shuffled(static_cast<int64_t>(dy.size()), channels, groups, [&](size_t ix, size_t iy) { dx[ix] = dy[iy]; });
  return dx;
}

std::vector<double> mul(const std::vector<double>& a, const std::vector<double>& b, int64_t pixels, int64_t channels) {
  std::vector<double> y = a;
  for (size_t i = 0; i < y.size(); ++i) y[i] *= b[factor_of(i, pixels, channels)];
  return y;
}

MulGradients mul_backward(const std::vector<double>& dy, const std::vector<double>& a, const std::vector<double>& b,
                          int64_t pixels, int64_t channels) {
  MulGradients g{std::vector<double>(a.size()), std::vector<double>(b.size())};
  for (size_t i = 0; i < a.size(); ++i) {
    const size_t k = factor_of(i, pixels, channels);
    g.da[i] = dy[i] * b[k];
    g.db[k] += dy[i] * a[i];
  }
  return g;
}

}  // namespace convolt::reference
