#include "bench/samples.h"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace convolt::bench {
namespace {

double percentile(const std::vector<double>& sorted, double part) {
  const double at = part * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<size_t>(at);
  return std::lerp(sorted[low], sorted[std::min(low + 1, sorted.size() - 1)], at - static_cast<double>(low));
}

}  // namespace

Summary summary_of(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  return {static_cast<int>(values.size()), percentile(values, 0.5), percentile(values, 0.1), percentile(values, 0.9),
          values.front()};
}

std::vector<std::vector<double>> in_turn(const Sampling& sampling, const std::vector<std::function<double()>>& takes) {
  constexpr int kFewest = 3;
  std::vector<std::vector<double>> taken(takes.size());
  for (const auto& take : takes) take();
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(sampling.seconds);
  for (int round = 0; round < sampling.samples; ++round) {
    if (round >= kFewest && std::chrono::steady_clock::now() >= end) break;
    for (size_t i = 0; i < takes.size(); ++i) taken[i].push_back(takes[i]());
  }
  return taken;
}

}  // namespace convolt::bench
