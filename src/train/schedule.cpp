#include "convolt/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace convolt {

double learning_rate(const ScheduleOptions& o, int64_t step) {
  if (step < o.warmup_steps) {
    const double t = static_cast<double>(step) / static_cast<double>(o.warmup_steps);
    return o.base * (o.warmup_factor + (1 - o.warmup_factor) * t);
  }
  const int64_t since = step - o.warmup_steps;
  switch (o.kind) {
    case ScheduleOptions::Kind::constant:
      return o.base;
    case ScheduleOptions::Kind::step:
      return o.base * std::pow(o.gamma, static_cast<double>(since / std::max<int64_t>(1, o.step_size)));
    case ScheduleOptions::Kind::cosine: {
      const double t = std::min(
          1.0, static_cast<double>(since) / static_cast<double>(std::max<int64_t>(1, o.total_steps - o.warmup_steps)));
      return o.minimum + (o.base - o.minimum) * (1 + std::cos(std::numbers::pi * t)) / 2;
    }
  }
  return o.base;
}

}  // namespace convolt
