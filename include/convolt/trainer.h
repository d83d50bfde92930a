// The training loop: batches in, weights, metrics and checkpoints out.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "convolt/checkpoint.h"
#include "convolt/context.h"
#include "convolt/dataset.h"
#include "convolt/loader.h"
#include "convolt/plan.h"
#include "convolt/schedule.h"

namespace convolt {

struct EvalResult {
  int64_t samples = 0;        // that counted
  int64_t skipped = 0;        // could not be read
  double loss = 0;            // mean
  double top1 = 0, top5 = 0;  // fractions
  double correct = 0;         // samples whose top-1 is right
  double seconds = 0;
};

struct EvalOptions {
  int batch = 128;
  int workers = 2;
  DType dtype = DType::f32;
  bool tf32 = false;
  int max_side = 0;
  AugmentOptions preprocessing;
};

// Evaluates a network on a data set: every readable sample counts once. Reusable: plan and loader are made once.
class Evaluator {
public:
  Evaluator(const Graph& graph, Params& params, const Dataset& data, const EvalOptions& options);
  // on_logits: called with (sample index, K logits, skipped) in order of the data set; may be empty.
  EvalResult run(const std::function<void(int64_t, const float*, bool)>& on_logits = {});
  std::vector<BadSample> bad_samples() const { return loader_->bad_samples(); }

private:
  Plan plan_;
  std::unique_ptr<Loader> loader_;
};

struct TrainOptions {
  int epochs = 10;
  int64_t steps = 0;  // stop after so many steps in all; 0: after the epochs
  int batch = 128;
  int workers = 2;
  DType dtype = DType::f32;
  bool tf32 = false;
  SgdOptions sgd;
  ScheduleOptions schedule;  // total_steps, warmup_steps and step_size are filled in from the epochs below
  double warmup_epochs = 0;
  double step_epochs = 30;
  LossOptions loss;  // of labels; validation reports plain cross-entropy whatever is trained
  // With loss.distill_alpha > 0: the teacher's network and weights, in the same Context, with as many classes. It is
  // evaluated on each batch as the student sees it, augmentation included. Must outlive the training.
  const Graph* teacher = nullptr;
  Params* teacher_params = nullptr;
  AugmentOptions augment;
  AugmentOptions preprocessing;  // of validation, prediction
  int max_side = 0;
  uint64_t seed = 0;
  int64_t checkpoint_every = 0;  // steps; 0: at the end of each epoch only
  int log_every = 10;            // steps
  std::string output_dir;        // empty: nothing is written
  std::string resume;            // a checkpoint to go on from; empty: from the start
};

// Progress of a training, on the calling thread.
struct TrainProgress {
  int64_t step = 0, total_steps = 0;
  int64_t epoch = 0, epochs = 0;
  int64_t step_in_epoch = 0, steps_per_epoch = 0;
  double loss = 0, top1 = 0;  // mean since the last report
  double learning_rate = 0;
  double images_per_second = 0;
  double seconds_left = 0;
};
struct EpochSummary {
  int64_t epoch = 0, step = 0;
  double train_loss = 0, train_top1 = 0;
  std::optional<EvalResult> validation;
  bool best = false;
  double seconds = 0;
};
struct TrainObserver {
  std::function<void(const TrainProgress&)> progress;
  std::function<void(const EpochSummary&)> epoch;
  std::function<void(const std::string&)> warning;
};

struct TrainResult {
  int64_t steps = 0;
  bool interrupted = false;  // stopped by the flag; saved
  double best_top1 = -1;     // of validation; -1 without one
  std::vector<BadSample> bad_samples;
  double seconds = 0;
};

// Trains `graph` (as `card` describes it) from initialised Params. `interrupt`, when it becomes non-zero, ends the
// training after the step in flight, with a checkpoint. Writes <output_dir>/last.safetensors, best.safetensors and
// metrics.jsonl. Throws NonFiniteError naming step and layer, and whatever the parts throw. Data sets must outlive the
// call; validation may be null (then best = last).
TrainResult train(const Graph& graph, Params& params, const Dataset& data, const Dataset* validation,
                  const ModelCard& card, const TrainOptions& options, const TrainObserver& observer = {},
                  const std::atomic<int>* interrupt = nullptr);

}  // namespace convolt
