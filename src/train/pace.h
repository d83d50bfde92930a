// How fast a training goes, and how long it will take.
#pragma once

#include <chrono>

#include "convolt/trainer.h"

namespace convolt {

class Pace {
public:
  // Pictures of an update, and of the validation of each epoch, 0 for none.
  Pace(int64_t pictures, int64_t validated) : pictures_(pictures), validated_(validated) {}

  // Now the updates behind `step` begin; of a training, and behind the validation of an epoch.
  void begin(int64_t step);
  void go_on(int64_t step);
  void add_validation(double seconds);

  // Of training, since the report before, or over a while: readings may arrive several at once.
  double images_per_second(int64_t step);
  // Of what is left of the training when it has come to `p`, validations included.
  double seconds_left(const TrainProgress& p) const;
  double seconds() const;  // since begin()

private:
  using Clock = std::chrono::steady_clock;
  int64_t pictures_, validated_;
  int64_t first_step_ = 0, report_step_ = 0;
  Clock::time_point start_, report_time_;
  double images_per_second_ = 0;
  int validations_ = 0;
  double validating_ = 0;  // seconds
};

}  // namespace convolt
