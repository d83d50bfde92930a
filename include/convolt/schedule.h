// Learning-rate schedules, a pure function of the step.
#pragma once

#include <cstdint>

namespace convolt {

struct ScheduleOptions {
  enum class Kind : uint8_t { constant, step, cosine } kind = Kind::cosine;
  double base = 0.1;  // after warm-up
  int64_t total_steps = 1;
  int64_t warmup_steps = 0;  // linear from base * warmup_factor
  double warmup_factor = 0.01;
  int64_t step_size = 1;  // step: steps between decays, counted from the end of the warm-up
  double gamma = 0.1;     // step: factor of each decay
  double minimum = 0;     // cosine: the last value
};

// The rate of step `step` (from 0). Cosine: minimum + (base - minimum) (1 + cos(pi t)) / 2 with t from 0 at the end of
// the warm-up to 1 after the last step (I. Loshchilov, F. Hutter, arXiv 1608.03983, without restarts).
double learning_rate(const ScheduleOptions& options, int64_t step);

}  // namespace convolt
