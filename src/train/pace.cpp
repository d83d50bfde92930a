#include "train/pace.h"

#include <algorithm>

namespace convolt {
namespace {

double seconds_from(std::chrono::steady_clock::time_point t) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - t).count();
}

}  // namespace

void Pace::begin(int64_t step) {
  first_step_ = step;
  go_on(step);
  start_ = report_time_;
}

void Pace::go_on(int64_t step) {
  report_step_ = step;
  report_time_ = Clock::now();
}

void Pace::add_validation(double seconds) {
  validating_ += seconds;
  ++validations_;
}

double Pace::images_per_second(int64_t step) {
  constexpr double kWhile = 0.1;
  const double elapsed = seconds_from(report_time_);
  if (elapsed < kWhile && images_per_second_ > 0) return images_per_second_;
  images_per_second_ = static_cast<double>((step - report_step_) * pictures_) / std::max(elapsed, 1e-6);
  go_on(step);
  return images_per_second_;
}

double Pace::seconds_left(const TrainProgress& p) const {
  const double per_step = (seconds() - validating_) / static_cast<double>(std::max<int64_t>(1, p.step - first_step_));
  // Until there was one: what looks at a picture takes a third of what learns from it.
  const double validation = validations_ > 0
                                ? validating_ / validations_
                                : per_step / static_cast<double>(pictures_) / 3 * static_cast<double>(validated_);
  return per_step * static_cast<double>(p.total_steps - p.step) + validation * static_cast<double>(p.epochs - p.epoch);
}

double Pace::seconds() const { return seconds_from(start_); }

}  // namespace convolt
