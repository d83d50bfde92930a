// What a training writes about itself for people and programs to read: metrics.jsonl, metrics.csv, times.jsonl,
// bad.jsonl, tensorboard/.
#pragma once

#include <optional>
#include <set>
#include <string>

#include "convolt/trainer.h"
#include "io/metrics_log.h"
#include "io/tensorboard.h"

namespace convolt {

// Not thread-safe. Throws Error with path and reason when a file cannot be written.
class RunLog {
public:
  // Makes `folder` where it is missing. Starts anew, or goes on after a step: what was written about later ones is
  // dropped, and what was written about the epoch that ends there if that is open still.
  RunLog(const std::string& folder, std::optional<int64_t> after_step, bool epoch_open, bool tensorboard);

  // metrics.jsonl: step, epoch, loss, top1, lr, and what is not 0 of gradient_norm and bad_steps, in f16
  // loss_scale and overflows.
  void progress(const TrainProgress& p);
  // metrics.jsonl and metrics.csv: step, epoch, lr, train_*, val_* where there is a validation, best. times.jsonl,
  // which two trainings never have alike: step, epoch, seconds, and of DataTimes data_wait, read, decode, copy.
  void epoch(const EpochSummary& s);

  // bad.jsonl: name and reason of each, beside those that were known before, sorted; no file where there are none.
  void bad_samples(const std::vector<BadSample>& samples);

  bool draws() const { return events_.has_value(); }
  // TensorBoard only, where draws(): pictures as the network sees them, and a histogram of each trainable parameter.
  void picture(int64_t step, const EncodedPicture& picture);
  void weights(int64_t step, const Params& params);

private:
  std::string folder_;
  std::set<std::string> bad_;  // lines of bad.jsonl
  MetricsLog lines_, times_;
  MetricsTable table_;
  std::optional<EventFile> events_;
};

}  // namespace convolt
