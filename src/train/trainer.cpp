#include "convolt/trainer.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <filesystem>

#include "conv/conv.h"
#include "io/metrics_log.h"

namespace convolt {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

PlanOptions plan_options(const TrainOptions& o, Optimizer& optimizer) {
  PlanOptions p;
  p.batch = o.batch;
  p.dtype = o.dtype;
  p.tf32 = o.tf32;
  p.training = true;
  p.height = o.augment.height;
  p.width = o.augment.width;
  p.loss = o.loss;
  p.optimizer = &optimizer;
  p.accumulate = o.accumulate;
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

// first_step: an update, as everywhere here; the loader counts micro-batches.
LoaderOptions loader_options(const TrainOptions& o, int64_t first_step) {
  LoaderOptions l;
  l.batch = o.batch;
  l.threads = o.workers;
  l.training = true;
  l.seed = o.seed;
  l.max_side = o.max_side;
  l.augment = o.augment;
  l.group = o.accumulate;
  l.first_step = first_step * o.accumulate;
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
        optimizer_(params, options.optimizer),
        plan_(graph, params, plan_options(options, optimizer_)) {
    if (o_.loss.distill_alpha > 0) hire_teacher();
    if (!o_.resume.empty()) resume();
    loader_ = Loader::create(params.context(), data, loader_options(o_, state_.step));
    if (validation != nullptr) evaluator_.emplace(graph, trained(), *validation, eval_options(o_));
    per_epoch_ = loader_->steps_per_epoch() / o_.accumulate;
    total_steps_ = o_.steps > 0 ? o_.steps : per_epoch_ * o_.epochs;
    plan_schedule();
    open_log();
  }

  TrainResult run(const std::atomic<int>* interrupt) {
    start_ = epoch_start_ = report_time_ = Clock::now();
    first_step_ = report_step_ = state_.step;
    while (state_.step < total_steps_) {
      step();
      const bool epoch_ends = state_.step % per_epoch_ == 0 || state_.step == total_steps_;
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
    StepInput input = step_input(batch);
    if (teacher_) {
      teacher_->run(input);
      input.teacher = teacher_->device_logits();
    }
    return input;
  }

  // What is evaluated and handed on: the average where there is one.
  Params& trained() { return optimizer_.average() != nullptr ? *optimizer_.average() : params_; }

  // Epochs become steps.
  void plan_schedule() {
    const auto steps = [&](double epochs) { return std::llround(epochs * static_cast<double>(per_epoch_)); };
    ScheduleOptions& s = o_.schedule;
    s.total_steps = total_steps_;
    s.warmup_steps = steps(o_.warmup_epochs);
    s.cooldown_steps = steps(o_.cooldown_epochs);
    s.step_size = std::max<int64_t>(1, steps(o_.step_epochs));
    s.milestones.clear();
    for (const double epoch : o_.milestone_epochs) s.milestones.push_back(steps(epoch));
    if (s.warmup_steps + s.cooldown_steps > total_steps_)
      throw UsageError(
          fmt::format("the warm-up ({} steps) and the cool-down ({}) are longer than the training ({}); shorten them",
                      s.warmup_steps, s.cooldown_steps, total_steps_));
  }

  double rate_of(int64_t step) const { return learning_rate(o_.schedule, step, state_.plateau); }

  void step() {
    for (int i = 0; i < o_.accumulate; ++i) {
      Batch batch;
      loader_->next(batch);
      StepInput input = prepared_input(batch);
      input.learning_rate = static_cast<float>(rate_of(state_.step));
      plan_.run(input);
      loader_->release(batch);
    }
    ++state_.step;
  }

  StepInput step_input(const Batch& batch) const {
    StepInput input = input_of(batch);
    input.step = batch.step / o_.accumulate;
    input.seed = o_.seed;
    return input;
  }

  void report(const MeterReading& r) {
    if (r.first_bad_step >= 0) fail_non_finite(r.first_bad_step);
    const MeterValues since = r.values - reported_;
    reported_ = r.values;
    TrainProgress p;
    p.step = r.step;
    p.total_steps = total_steps_;
    p.steps_per_epoch = per_epoch_;
    p.epoch = (r.step - 1) / p.steps_per_epoch;
    p.epochs = (total_steps_ + p.steps_per_epoch - 1) / p.steps_per_epoch;
    p.step_in_epoch = r.step - p.epoch * p.steps_per_epoch;
    p.loss = since.weight > 0 ? since.loss / since.weight : 0;
    p.top1 = since.weight > 0 ? since.top1 / since.weight : 0;
    p.learning_rate = rate_of(r.step - 1);
    if (clips()) p.gradient_norm = static_cast<double>(r.gradient_norm);
    const double elapsed = seconds_since(report_time_);
    if (elapsed > 0)
      p.images_per_second = static_cast<double>((r.step - report_step_) * o_.batch * o_.accumulate) / elapsed;
    p.seconds_left =
        seconds_since(start_) / static_cast<double>(r.step - first_step_) * static_cast<double>(total_steps_ - r.step);
    report_time_ = Clock::now();
    report_step_ = r.step;
    log_progress(p);
    if (observer_.progress) observer_.progress(p);
  }

  bool clips() const { return o_.optimizer.clip_norm > 0 || o_.optimizer.clip_adaptive > 0; }

  void log_progress(const TrainProgress& p) {
    if (!log_) return;
    nlohmann::ordered_json line{
        {"step", p.step}, {"epoch", p.epoch}, {"loss", p.loss}, {"top1", p.top1}, {"lr", p.learning_rate}};
    if (clips()) line["gradient_norm"] = p.gradient_norm;
    log_->append(line);
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
    s.epoch = (state_.step - 1) / per_epoch_;
    s.train_loss = m.weight > 0 ? m.loss / m.weight : 0;
    s.train_top1 = m.weight > 0 ? m.top1 / m.weight : 0;
    if (evaluator_) s.validation = evaluator_->run();
    s.best = !s.validation || s.validation->top1 > state_.best_top1;
    if (s.validation && s.best) state_.best_top1 = s.validation->top1;
    if (s.best) state_.best_step = state_.step;
    follow_plateau(s);
    s.seconds = seconds_since(epoch_start_);
    epoch_start_ = report_time_ = Clock::now();
    if (state_.step % per_epoch_ == 0) epoch_base_ = reading.values;
    log_epoch(s);
    // `best` first: a run cut off between the two goes on from `last` and decides about the epoch again, the same way.
    if (s.best && !o_.output_dir.empty()) save_checkpoint(path("best.safetensors"), trained(), card_);
    save_last();
    if (observer_.epoch) observer_.epoch(s);
  }

  void follow_plateau(const EpochSummary& s) {
    if (o_.schedule.kind != ScheduleOptions::Kind::plateau || state_.step % per_epoch_ != 0) return;
    const double loss = s.validation ? s.validation->loss : s.train_loss;
    const double top1 = s.validation ? s.validation->top1 : s.train_top1;
    observe(o_.schedule, state_.plateau, o_.schedule.of_accuracy ? top1 : loss);
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
    save_checkpoint(path("last.safetensors"), params_, card_, &optimizer_, &state_);
  }

  std::string device_text() const {
    return params_.context().device().to_string() + ": " + params_.context().conv().describe();
  }

  void resume() {
    state_ = load_training(o_.resume, params_, optimizer_);
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
    std::string where;
    for (int i = 0; i < o_.accumulate && where.empty(); ++i) {
      Batch batch;
      loader->next(batch);
      StepInput input = prepared_input(batch);
      input.first_row = int64_t{i} * o_.batch;
      where = plan_.find_non_finite(input);
      loader->release(batch);
    }
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
  Optimizer optimizer_;
  Plan plan_;
  std::optional<Plan> teacher_;
  std::unique_ptr<Loader> loader_;
  std::optional<Evaluator> evaluator_;
  std::optional<MetricsLog> log_;
  TrainingState state_;
  int64_t per_epoch_ = 0, total_steps_ = 0, first_step_ = 0, report_step_ = 0;
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
  if (options.accumulate < 1)
    throw UsageError("--accum must be at least 1, found " + std::to_string(options.accumulate));
  return Training(graph, params, data, validation, card, options, observer).run(interrupt);
}

}  // namespace convolt
