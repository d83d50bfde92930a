#include "reference/norm.h"

#include <cmath>
#include <map>

namespace convolt::reference {
namespace {

// The elements of each set, in order.
std::vector<std::vector<size_t>> sets_of(size_t elements, const NormParams& p) {
  const size_t channels = p.gamma.size(), pixels = static_cast<size_t>(p.pixels);
  const size_t width = channels / static_cast<size_t>(p.groups);
  std::map<std::pair<size_t, size_t>, std::vector<size_t>> sets;  // by picture and group
  for (size_t i = 0; i < elements; ++i) sets[{i / channels / pixels, i % channels / width}].push_back(i);
  std::vector<std::vector<size_t>> list;
  for (const auto& [key, set] : sets) list.push_back(set);
  return list;
}

struct Moments {
  double mean = 0, deviation = 0;
};
Moments moments(const std::vector<double>& x, const std::vector<size_t>& set, double eps) {
  const double n = static_cast<double>(set.size());
  Moments m;
  double variance = 0;
  for (const size_t i : set) m.mean += x[i] / n;
  for (const size_t i : set) variance += std::pow(x[i] - m.mean, 2) / n;
  m.deviation = std::sqrt(variance + eps);
  return m;
}

}  // namespace

std::vector<double> norm(const std::vector<double>& x, const NormParams& p) {
  std::vector<double> y(x.size());
  for (const auto& set : sets_of(x.size(), p)) {
    const Moments m = moments(x, set, p.eps);
    for (const size_t i : set) {
      const size_t c = i % p.gamma.size();
      y[i] = (x[i] - m.mean) / m.deviation * p.gamma[c] + p.beta[c];
    }
  }
  return y;
}

NormGradients norm_backward(const std::vector<double>& dy, const std::vector<double>& x, const NormParams& p) {
  const size_t channels = p.gamma.size();
  NormGradients g{std::vector<double>(x.size()), std::vector<double>(channels), std::vector<double>(channels)};
  for (const auto& set : sets_of(x.size(), p)) {
    const Moments m = moments(x, set, p.eps);
    const double n = static_cast<double>(set.size());
    double dvariance = 0, dmean = 0;
    for (const size_t i : set) {
      const size_t c = i % channels;
      g.dgamma[c] += dy[i] * (x[i] - m.mean) / m.deviation;
      g.dbeta[c] += dy[i];
      dvariance += dy[i] * p.gamma[c] * (x[i] - m.mean) * -0.5 * std::pow(m.deviation, -3);
      dmean -= dy[i] * p.gamma[c] / m.deviation;
    }
    for (const size_t i : set)
      g.dx[i] = dy[i] * p.gamma[i % channels] / m.deviation + dvariance * 2 * (x[i] - m.mean) / n + dmean / n;
  }
  return g;
}

}  // namespace convolt::reference
