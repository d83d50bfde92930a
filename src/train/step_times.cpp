#include "train/step_times.h"

#include <algorithm>

#include "io/atomic_file.h"

namespace convolt {

StepTimes::StepTimes(std::string profile, int workers) : profile_(std::move(profile)), workers_(workers) {
  if (profile_.empty()) return;
  check_writable(profile_);
  steps_ = &trace_.emplace().track("training");
}

DataTimes StepTimes::since_last(const LoaderTimes& loader) {
  now_.loader = loader;
  const DataTimes times = between(last_, now_);
  last_ = now_;
  return times;
}

DataTimes StepTimes::of_all(const LoaderTimes& loader) const { return between({}, {loader, now_.steps}); }

// Batches are made ready during validation, too: hence at most 1.
DataTimes StepTimes::between(const Spent& before, const Spent& after) const {
  const auto share = [&](double LoaderTimes::*of, int threads) {
    const double all = (after.steps - before.steps) * threads;
    return all > 0 ? std::min(1.0, (after.loader.*of - before.loader.*of) / all) : 0;
  };
  return {share(&LoaderTimes::waited, 1), share(&LoaderTimes::read, workers_), share(&LoaderTimes::decode, workers_),
          share(&LoaderTimes::copy, workers_)};
}

void StepTimes::write_profile() {
  if (!trace_) return;
  AtomicFile file(profile_);
  file.write(trace_->json());
  file.commit();
}

}  // namespace convolt
