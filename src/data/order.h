// The samples of a training in the order of its epochs.
#pragma once

#include <cstdint>
#include <vector>

#include "convolt/dataset.h"
#include "convolt/loader.h"

namespace convolt {

// The samples of each class that has any, class by class.
std::vector<std::vector<int64_t>> samples_of_classes(const Dataset& data);

// What a position of an epoch shows.
struct Shown {
  int64_t sample = 0;
  // Under which number its augmentation is drawn: its own where it is shown for the first time in the epoch, else one
  // that no other has, so that it never looks the same twice.
  uint64_t drawn_as = 0;
  friend bool operator==(const Shown&, const Shown&) = default;
};

// A pure function of (seed, epoch, position) and of the labels or weights of the data set, which is read once and must
// outlive it. Thread-safe.
class Order {
public:
  // Each sample is shown at `repeats` positions one after the other.
  Order(const Dataset& data, Sampler sampler, uint64_t seed, int repeats = 1);
  // position: 0 .. data.size() - 1, or above.
  Shown operator()(uint32_t epoch, int64_t position) const;

private:
  Shown once(uint32_t epoch, int64_t position) const;
  Shown balanced(uint32_t epoch, int64_t position) const;
  Shown weighted(uint32_t epoch, int64_t position) const;

  Sampler sampler_;
  uint64_t seed_;
  int64_t size_, repeats_;
  std::vector<std::vector<int64_t>> classes_;  // balanced: the samples of each class that has any
  std::vector<double> below_;                  // weighted: the sum of all weights up to and with each sample's
};

}  // namespace convolt
