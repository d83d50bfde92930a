// What many samples are given by a policy.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "augment/programme.h"

namespace convolt::test {

using Policy = AugmentOptions::Policy;

inline AugmentOptions with(Policy policy) {
  AugmentOptions o;
  o.height = 96;
  o.width = 128;
  o.geometry = AugmentOptions::Geometry::none;
  o.policy = policy;
  if (policy == Policy::augmix) o.magnitude = 3;
  return o;
}

inline std::vector<DrawnValues> drawn_of(const AugmentOptions& o, const Dice& dice) {
  std::vector<DrawnValues> drawn;
  draw_programme(o, dice, &drawn);
  return drawn;
}

// What 4000 samples are given: how often each operation, and the amounts it was given.
inline std::map<std::string, std::vector<double>> amounts_of(const AugmentOptions& o,
                                                             std::map<std::string, int>& counts) {
  std::map<std::string, std::vector<double>> amounts;
  for (uint64_t sample = 0; sample < 4000; ++sample)
    for (const DrawnValues& d : drawn_of(o, Dice{7, 1, sample})) {
      ++counts[d.operation];
      amounts[d.operation].insert(amounts[d.operation].end(), d.values.begin(), d.values.end());
    }
  return amounts;
}
inline std::set<double> rounded_set(const std::vector<double>& values) {
  std::set<double> found;
  for (const double v : values) found.insert(std::round(v * 1e4) / 1e4);
  return found;
}

}  // namespace convolt::test
