// The training loop: batches in, weights, metrics and checkpoints out.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "convolt/autotune.h"
#include "convolt/checkpoint.h"
#include "convolt/context.h"
#include "convolt/dataset.h"
#include "convolt/loader.h"
#include "convolt/plan.h"
#include "convolt/schedule.h"

namespace convolt {

// What an evaluation found.
struct EvalResult {
  int64_t samples = 0;        // that counted
  int64_t skipped = 0;        // could not be read
  double loss = 0;            // mean
  double top1 = 0, top5 = 0;  // fractions
  double correct = 0;         // samples whose top-1 is right
  double seconds = 0;         // of wall time
  bool complete = true;       // false: it was ended before the last picture
};

// How a network is evaluated.
struct EvalOptions {
  // As those of PlanOptions and LoaderOptions (whose `threads` are the workers).
  int batch = 128;
  int workers = 2;
  DType dtype = DType::f32;
  bool tf32 = false;
  DecodeOptions decode;
  Decoder decoder = Decoder::automatic;
  int64_t loader_memory = 0;
  bool resident = false;
  BadSamplePolicy bad_samples = BadSamplePolicy::skip;
  // What each picture's logits are the mean of (test-time augmentation). 1: itself. 2: itself and its mirror image. 5:
  // crops in the corners and the centre of the resized picture, torchvision's FiveCrop; 10: these, and those of its
  // mirror image, its TenCrop. 6: as 2, which counts half, and both once more moved by a pixel towards either end of
  // the diagonal (K. Jordan, arXiv 2404.00498). What moves in is the picture's border, as preprocessing.border has it.
  int views = 1;
  // What is done to the pictures.
  AugmentOptions preprocessing;
  KernelOptions kernels;  // how convolutions and linear layers get theirs
};

// Evaluates a network on a data set: every readable sample counts once. Reusable: plan and loader are made once.
class Evaluator {
public:
  // Throws what Plan and Loader throw. Params and data set must outlive it.
  Evaluator(const Graph& graph, Params& params, const Dataset& data, const EvalOptions& options);
  // on_logits: called with (sample index, K logits, skipped) in order of the data set; may be empty. goes_on: called
  // after each batch with the number of samples handed over so far; false ends the evaluation; may be empty.
  EvalResult run(const std::function<void(int64_t, const float*, bool)>& on_logits = {},
                 const std::function<bool(int64_t)>& goes_on = {});
  std::vector<BadSample> bad_samples() const { return loader_->bad_samples(); }
  // Those of its plan.
  const KernelChoices& kernels() const { return plan_.kernels(); }

private:
  void count_host(EvalResult& result) const;

  const Dataset* data_;
  int views_, threads_;
  Plan plan_;
  std::unique_ptr<Loader> loader_;
  bool broken_off_ = false;      // the last run did not come to its end
  std::vector<float> seen_;      // more than one view: the mean logits of this run,
  std::vector<int32_t> labels_;  // and the labels, -1 for what was skipped
};

// What tells which epoch is the best: a number of the validation.
enum class BestMetric : uint8_t { top1, top5, loss };
// "top1", "top5", "loss".
std::string_view name_of(BestMetric metric);

// How a network is trained.
struct TrainOptions {
  int epochs = 10;    // passes over the data set
  int64_t steps = 0;  // stop after so many updates in all; 0: after the epochs
  // As those of LoaderOptions (whose `threads` are the workers) and PlanOptions; how weights are updated.
  int batch = 128;
  int workers = 2;
  DType dtype = DType::f32;
  bool tf32 = false;
  // How convolutions and linear layers get their kernels. A training that goes on keeps those that its checkpoint
  // names.
  KernelOptions kernels;
  // As PlanOptions', of the training's plan with parameters and optimizer; validation and loader come on top.
  std::optional<int64_t> memory_budget;
  OptimizerOptions optimizer;
  int accumulate = 1;  // micro-batches of `batch` in an update
  // total_steps, warmup_steps, cooldown_steps, step_size and milestones are filled in from the epochs below.
  ScheduleOptions schedule;
  double warmup_epochs = 0, cooldown_epochs = 0;
  double step_epochs = 30;               // step; exponential: the epochs in which the rate falls by gamma
  std::vector<double> milestone_epochs;  // multistep, counted from the end of the warm-up
  LossOptions loss;                      // of labels; validation reports plain cross-entropy whatever is trained
  // With loss.distill_alpha > 0: the teacher's network and weights, in the same Context, with as many classes. It is
  // evaluated on each batch as the student sees it, augmentation included. Must outlive the training.
  const Graph* teacher = nullptr;
  Params* teacher_params = nullptr;
  AugmentOptions augment;
  // Smaller training pictures in the first epochs. The batch stays; each size has a plan, compiled before the first
  // step in the memory of the largest. For square pictures and networks that take any size.
  SizeRamp sizes;
  MixOptions mixing;                     // of training pictures and labels
  AugmentOptions preprocessing;          // of validation, prediction: geometry none or resize_centre_crop
  int views = 1;                         // of validation, as EvalOptions'
  DecodeOptions decode;                  // training and validation
  Decoder decoder = Decoder::automatic;  // training and validation
  int64_t loader_memory = 0;             // LoaderOptions::memory, of the training and of the validation each
  bool resident = false;                 // training and validation set stay in device memory, decoded
  Sampler sampler = Sampler::shuffle;    // which samples an epoch shows
  int repeats = 1;                       // how often each, as LoaderOptions'
  BadSamplePolicy bad_samples = BadSamplePolicy::replace;
  double max_bad = 1;  // the part of the training samples that may be bad; a larger one is a DataError
  uint64_t seed = 0;
  int64_t checkpoint_every = 0;  // steps; 0: at the end of each epoch only
  BestMetric best_metric = BestMetric::top1;
  int keep = 0;        // so many of the best epochs keep a checkpoint of their own; needs validation
  int early_stop = 0;  // the training ends after so many epochs without a better one; 0: never; needs validation
  int log_every = 10;  // steps
  bool tensorboard = false;
  std::string output_dir;  // empty: nothing is written
  std::string profile;     // a file for a trace of the time, as Chrome and Perfetto show it; empty: none
  std::string resume;      // a checkpoint to go on from; empty: from the start
};

// What the steps of a training waited for, as parts of their time (0 .. 1), validation and checkpoints left out.
struct DataTimes {
  double waited = 0;  // for a batch
  // A decode thread: for samples from their source, for decoding them, for copies to the device to end.
  double read = 0, decode = 0, copy = 0;
};

// Progress of a training, on the calling thread.
struct TrainProgress {
  // Counts so far, and what they go up to.
  int64_t step = 0, total_steps = 0;
  int64_t epoch = 0, epochs = 0;
  int64_t step_in_epoch = 0, steps_per_epoch = 0;
  double loss = 0, top1 = 0;     // mean since the last report
  double learning_rate = 0;      // of the last update
  double gradient_norm = 0;      // of the last update, before clipping; 0 without clipping
  int64_t bad_steps = 0;         // skipped in all, since their loss was not finite
  double loss_scale = 0;         // by now; 0 where none is used: all types but f16
  int64_t overflows = 0;         // updates skipped in all, since a gradient overflowed under the loss scale
  double images_per_second = 0;  // since the last report
  double seconds_left = 0;       // estimated from the time since the start, validations included
};
// What an epoch came to. `seconds` of wall time, validation included.
struct EpochSummary {
  // Epoch (from 0) and updates so far; means over the epoch; the validation, if there is one; whether it was the best.
  int64_t epoch = 0, step = 0;
  double train_loss = 0, train_top1 = 0;
  double learning_rate = 0;  // of the last step
  std::optional<EvalResult> validation;
  bool best = false;  // by the metric; without validation always
  double seconds = 0;
  DataTimes data;
};
// Whom train() tells, on its own thread; each may be empty.
struct TrainObserver {
  // Once, when everything is made and before the first step, if there is one left to do; every log_every steps; while
  // an epoch is validated: pictures so far, of how many; after each epoch; what should be known and ends nothing.
  std::function<void()> begin;
  // Where there is an output_dir: when no other training can write into it any more, and it still is as that one left
  // it. For checks of what the options were made from; what it throws ends the training before it has changed anything.
  std::function<void()> locked;
  std::function<void(const TrainProgress&)> progress;
  std::function<void(int64_t, int64_t)> validating;
  std::function<void(const EpochSummary&)> epoch;
  std::function<void(const std::string&)> warning;
};

// How a training ended.
struct TrainResult {
  int64_t steps = 0;                   // updates done
  bool interrupted = false;            // stopped by the flag; saved
  bool stopped_early = false;          // by early_stop
  double best_top1 = -1;               // of the best epoch in validation; -1 without one
  std::vector<BadSample> bad_samples;  // of training and validation
  double seconds = 0;                  // of wall time
  DataTimes data;                      // what the steps waited for
};

// Trains `graph` (as `card` describes it; one that names no network is made by card_of() where checkpoints are written)
// from initialised Params. `interrupt`, when it becomes non-zero, ends the training after the step handed over last,
// which reports of progress lag behind, with a checkpoint; also within a validation, which the resumed training does
// again. Steps are updates. With ema_decay it is the average that is
// validated and saved as best. Data sets must outlive the call; validation may be null (then best = last).
//
// Writes into output_dir, each file whole or not at all: last.safetensors, best.safetensors, best-<step>-<value>.
// safetensors (`keep`), metrics.jsonl, metrics.csv (a row for each epoch), times.jsonl and tensorboard/. One that does
// not resume removes the checkpoints, bad.jsonl, report.html and events that an earlier training left there. One that
// goes on from another folder's last.safetensors takes over the best.safetensors beside it. The folder is locked: Error
// where another training writes into it.
//
// Throws whatever the parts throw, the last checkpoint being intact; NonFiniteError naming step and layer where a loss
// is not finite and the optimizer's policy is to stop, or after 10 bad steps in a row with another one: then
// <output_dir>/non_finite-step-<n>/ holds the pictures of the batch and batch.json their names; NonFiniteError too for
// weights that are not finite when they are saved, or at the end. DataError when no picture of the validation set can
// be read, and when the classes of the data are not those that the checkpoint was trained on. UsageError for options
// out of range, and for a card that says other classes or channels than the graph.
TrainResult train(const Graph& graph, Params& params, const Dataset& data, const Dataset* validation,
                  const ModelCard& card, const TrainOptions& options, const TrainObserver& observer = {},
                  const std::atomic<int>* interrupt = nullptr);

}  // namespace convolt
