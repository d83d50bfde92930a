// Repeated timings and what they come to.
#pragma once

#include <functional>
#include <vector>

namespace convolt::bench {

// Of times in milliseconds, or of any other numbers. The percentiles lie between the two nearest samples.
struct Summary {
  int n = 0;
  double median = 0, p10 = 0, p90 = 0, min = 0;
};
Summary summary_of(std::vector<double> values);

// How often: `samples` rounds, fewer where they take longer than `seconds`, but at least three.
struct Sampling {
  int samples = 50;
  double seconds = 0.5;
};

// Each take once for warmth, then round after round all of them in turn, so that a slow moment of the machine strikes
// all: what the takes returned, [take][round].
std::vector<std::vector<double>> in_turn(const Sampling& sampling, const std::vector<std::function<double()>>& takes);

}  // namespace convolt::bench
