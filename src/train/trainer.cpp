#include "convolt/trainer.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <filesystem>

#include "conv/conv.h"
#include "io/metrics_log.h"
#include "step_state.h"
#include "train/batch_input.h"

namespace convolt {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

PlanOptions plan_options(const TrainOptions& o, Sgd& sgd) {
  PlanOptions p;
  p.batch = o.batch;
  p.dtype = o.dtype;
  p.tf32 = o.tf32;
  p.training = true;
  p.height = o.augment.height;
  p.width = o.augment.width;
  p.loss = o.loss;
  p.optimizer = &sgd;
  p.augment = o.augment;
  return p;
}

// The teacher looks at the very pictures of the step: augmentation is a pure function of the batch's records.
PlanOptions teacher_options(const TrainOptions& o) {
  PlanOptions p;
  p.batch = o.batch;
  p.dtype = o.dtype;
  p.tf32 = o.tf32;
  p.height = o.augment.height;
  p.width = o.augment.width;
  p.augment = o.augment;
  p.expose_logits = true;
  return p;
}

LoaderOptions loader_options(const TrainOptions& o, int64_t first_step) {
  LoaderOptions l;
  l.batch = o.batch;
  l.threads = o.workers;
  l.training = true;
  l.seed = o.seed;
  l.max_side = o.max_side;
  l.augment = o.augment;
  l.first_step = first_step;
  return l;
}

EvalOptions eval_options(const TrainOptions& o) {
  EvalOptions e;
  e.batch = o.batch;
  e.workers = o.workers;
  e.dtype = o.dtype;
  e.tf32 = o.tf32;
  e.max_side = o.max_side;
  e.preprocessing = o.preprocessing;
  return e;
}

MeterValues operator-(const MeterValues& a, const MeterValues& b) {
  return {a.loss - b.loss, a.weight - b.weight, a.top1 - b.top1, a.top5 - b.top5};
}

class Training {
public:
  Training(const Graph& graph, Params& params, const Dataset& data, const Dataset* validation, const ModelCard& card,
           const TrainOptions& options, const TrainObserver& observer)
      : graph_(graph),
        params_(params),
        data_(data),
        card_(card),
        o_(options),
        observer_(observer),
        sgd_(params, options.sgd),
        plan_(graph, params, plan_options(options, sgd_)) {
    if (o_.loss.distill_alpha > 0) hire_teacher();
    if (!o_.resume.empty()) resume();
    loader_ = Loader::create(params.context(), data, loader_options(o_, state_.step));
    if (validation != nullptr) evaluator_.emplace(graph, params, *validation, eval_options(o_));
    const int64_t per_epoch = loader_->steps_per_epoch();
    total_steps_ = o_.steps > 0 ? o_.steps : per_epoch * o_.epochs;
    o_.schedule.total_steps = total_steps_;
    o_.schedule.warmup_steps = std::llround(o_.warmup_epochs * static_cast<double>(per_epoch));
    o_.schedule.step_size = std::max<int64_t>(1, std::llround(o_.step_epochs * static_cast<double>(per_epoch)));
    open_log();
  }

  TrainResult run(const std::atomic<int>* interrupt) {
    const int64_t per_epoch = loader_->steps_per_epoch();
    start_ = epoch_start_ = report_time_ = Clock::now();
    first_step_ = report_step_ = state_.step;
    while (state_.step < total_steps_) {
      step();
      const bool epoch_ends = state_.step % per_epoch == 0 || state_.step == total_steps_;
      if (state_.step % o_.log_every == 0 && !epoch_ends) plan_.request_meters(state_.step);
      while (const auto reading = plan_.poll_meters()) report(*reading);
      if (epoch_ends) end_epoch();
      const bool stop = interrupt != nullptr && interrupt->load() != 0;
      if (stop || (o_.checkpoint_every > 0 && state_.step % o_.checkpoint_every == 0 && !epoch_ends)) save_last();
      if (stop && state_.step < total_steps_) return result(true);
    }
    return result(false);
  }

private:
  void hire_teacher() {
    if (o_.teacher == nullptr || o_.teacher_params == nullptr)
      throw UsageError("distillation needs a teacher: its graph and its weights");
    teacher_.emplace(*o_.teacher, *o_.teacher_params, teacher_options(o_));
    if (teacher_->classes() != plan_.classes())
      throw UsageError(fmt::format("the teacher knows {} classes, the student {}; distillation needs the same",
                                   teacher_->classes(), plan_.classes()));
  }

  // With the teacher's step queued before the student's.
  StepInput prepared_input(const Batch& batch) {
    StepInput input = input_of(batch);
    input.seed = o_.seed;
    if (teacher_) {
      teacher_->run(input);
      input.teacher = teacher_->device_logits();
    }
    return input;
  }

  void step() {
    Batch batch;
    loader_->next(batch);
    StepInput input = prepared_input(batch);
    const auto rate = static_cast<float>(learning_rate(o_.schedule, state_.step));
    for (float& r : input.learning_rate) r = rate;
    plan_.run(input);
    loader_->release(batch);
    ++state_.step;
  }

  void report(const MeterReading& r) {
    if (r.first_bad_step >= 0) fail_non_finite(r.first_bad_step);
    const MeterValues since = r.values - reported_;
    reported_ = r.values;
    TrainProgress p;
    p.step = r.step;
    p.total_steps = total_steps_;
    p.steps_per_epoch = loader_->steps_per_epoch();
    p.epoch = (r.step - 1) / p.steps_per_epoch;
    p.epochs = (total_steps_ + p.steps_per_epoch - 1) / p.steps_per_epoch;
    p.step_in_epoch = r.step - p.epoch * p.steps_per_epoch;
    p.loss = since.weight > 0 ? since.loss / since.weight : 0;
    p.top1 = since.weight > 0 ? since.top1 / since.weight : 0;
    p.learning_rate = learning_rate(o_.schedule, r.step - 1);
    const double elapsed = seconds_since(report_time_);
    if (elapsed > 0) p.images_per_second = static_cast<double>((r.step - report_step_) * o_.batch) / elapsed;
    p.seconds_left =
        seconds_since(start_) / static_cast<double>(r.step - first_step_) * static_cast<double>(total_steps_ - r.step);
    report_time_ = Clock::now();
    report_step_ = r.step;
    if (log_)
      log_->append({{"step", p.step}, {"epoch", p.epoch}, {"loss", p.loss}, {"top1", p.top1}, {"lr", p.learning_rate}});
    if (observer_.progress) observer_.progress(p);
  }

  void end_epoch() {
    const MeterReading reading = [&] {
      MeterReading r = plan_.meters();
      r.step = state_.step;
      return r;
    }();
    while (const auto earlier = plan_.poll_meters()) report(*earlier);
    report(reading);
    const MeterValues m = reading.values - epoch_base_;
    EpochSummary s;
    s.step = state_.step;
    s.epoch = (state_.step - 1) / loader_->steps_per_epoch();
    s.train_loss = m.weight > 0 ? m.loss / m.weight : 0;
    s.train_top1 = m.weight > 0 ? m.top1 / m.weight : 0;
    if (evaluator_) s.validation = evaluator_->run();
    s.best = !s.validation || s.validation->top1 > state_.best_top1;
    if (s.validation && s.best) state_.best_top1 = s.validation->top1;
    if (s.best) state_.best_step = state_.step;
    s.seconds = seconds_since(epoch_start_);
    epoch_start_ = report_time_ = Clock::now();
    if (state_.step % loader_->steps_per_epoch() == 0) epoch_base_ = reading.values;
    log_epoch(s);
    // `best` first: a run cut off between the two goes on from `last` and decides about the epoch again, the same way.
    if (s.best && !o_.output_dir.empty()) save_checkpoint(path("best.safetensors"), params_, card_);
    save_last();
    if (observer_.epoch) observer_.epoch(s);
  }

  void log_epoch(const EpochSummary& s) {
    if (!log_) return;
    nlohmann::ordered_json line{
        {"step", s.step}, {"epoch", s.epoch}, {"train_loss", s.train_loss}, {"train_top1", s.train_top1}};
    if (s.validation) {
      line["val_loss"] = s.validation->loss;
      line["val_top1"] = s.validation->top1;
      line["val_top5"] = s.validation->top5;
      line["val_samples"] = s.validation->samples;
      line["val_skipped"] = s.validation->skipped;
    }
    log_->append(line);
  }

  std::string path(const char* file) const { return (std::filesystem::path(o_.output_dir) / file).string(); }

  void save_last() {
    const MeterReading now = plan_.meters();
    if (now.first_bad_step >= 0) fail_non_finite(now.first_bad_step);
    if (o_.output_dir.empty()) return;
    while (const auto reading = plan_.poll_meters()) report(*reading);  // all have arrived
    const StepStatus status = plan_.status();
    state_.loss_scale = status.loss_scale;
    state_.good_steps = status.good_steps;
    state_.skipped_steps = status.skipped_steps;
    state_.meters = now.values;
    state_.reported = reported_;
    state_.epoch_base = epoch_base_;
    state_.batches_tracked = params_.batches_tracked;
    state_.device = device_text();
    save_checkpoint(path("last.safetensors"), params_, card_, &sgd_, &state_);
  }

  std::string device_text() const {
    return params_.context().device().to_string() + ": " + params_.context().conv().describe();
  }

  void resume() {
    state_ = load_training(o_.resume, params_, sgd_);
    if (state_.device != device_text() && observer_.warning)
      observer_.warning("resuming on '" + device_text() + "' what was trained on '" + state_.device +
                        "': the training goes on, but not to the same bits");
    StepStatus status = plan_.status();
    status.loss_scale = o_.dtype == DType::f16 ? state_.loss_scale : 1;
    status.good_steps = state_.good_steps;
    status.skipped_steps = state_.skipped_steps;
    plan_.set_status(status);
    plan_.set_meters(state_.meters);
    reported_ = state_.reported;
    epoch_base_ = state_.epoch_base;
  }

  void open_log() {
    if (o_.output_dir.empty()) return;
    std::error_code error;
    std::filesystem::create_directories(o_.output_dir, error);
    if (error) throw Error("cannot make the output folder '" + o_.output_dir + "': " + error.message());
    log_.emplace(o_.resume.empty() ? MetricsLog::create(path("metrics.jsonl"))
                                   : MetricsLog::resume(path("metrics.jsonl"), state_.step));
  }

  // The batch of a step is a pure function: decode it again and look at every op.
  [[noreturn]] void fail_non_finite(int64_t bad_step) {
    const auto loader = Loader::create(params_.context(), data_, loader_options(o_, bad_step));
    Batch batch;
    loader->next(batch);
    const std::string where = plan_.find_non_finite(prepared_input(batch));
    throw NonFiniteError(fmt::format(
        "the loss of step {} is not finite, first seen in {}; the weights are those before that step; try a lower "
        "--lr, warm-up (--lr-warmup-epochs) or --dtype f32",
        bad_step, where.empty() ? "the loss itself" : where));
  }

  TrainResult result(bool interrupted) {
    TrainResult r;
    r.steps = state_.step;
    r.interrupted = interrupted;
    r.best_top1 = state_.best_top1;
    r.bad_samples = loader_->bad_samples();
    if (evaluator_)
      for (BadSample& b : evaluator_->bad_samples()) r.bad_samples.push_back(std::move(b));
    r.seconds = seconds_since(start_);
    return r;
  }

  const Graph& graph_;
  Params& params_;
  const Dataset& data_;
  ModelCard card_;
  TrainOptions o_;
  const TrainObserver& observer_;
  Sgd sgd_;
  Plan plan_;
  std::optional<Plan> teacher_;
  std::unique_ptr<Loader> loader_;
  std::optional<Evaluator> evaluator_;
  std::optional<MetricsLog> log_;
  TrainingState state_;
  int64_t total_steps_ = 0, first_step_ = 0, report_step_ = 0;
  MeterValues reported_, epoch_base_;
  Clock::time_point start_, epoch_start_, report_time_;
};

}  // namespace

TrainResult train(const Graph& graph, Params& params, const Dataset& data, const Dataset* validation,
                  const ModelCard& card, const TrainOptions& options, const TrainObserver& observer,
                  const std::atomic<int>* interrupt) {
  if (options.log_every < 1)
    throw UsageError("--log-every must be at least 1, found " + std::to_string(options.log_every));
  if (options.steps == 0 && options.epochs < 1)
    throw UsageError("--epochs must be at least 1, found " + std::to_string(options.epochs));
  return Training(graph, params, data, validation, card, options, observer).run(interrupt);
}

}  // namespace convolt
