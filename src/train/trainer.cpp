#include "convolt/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "conv/conv.h"
#include "io/atomic_file.h"
#include "io/folder_lock.h"
#include "step_state.h"
#include "train/checkpoint_keeper.h"
#include "train/derived_options.h"
#include "train/pace.h"
#include "train/picture_grid.h"
#include "train/run_log.h"
#include "train/saved_batch.h"
#include "train/step_times.h"
#include "train/training_checks.h"
#include "train/training_plans.h"

namespace convolt {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

MeterValues operator-(const MeterValues& a, const MeterValues& b) {
  return {a.loss - b.loss, a.weight - b.weight, a.top1 - b.top1, a.top5 - b.top5};
}

// A card that names no network gets the graph itself, where checkpoints are to be written.
ModelCard completed(ModelCard card, const Graph& graph, const Dataset& data, const TrainOptions& o) {
  if (!card.model.empty() || !card.network.empty() || o.output_dir.empty()) return card;
  ModelCard made = card_of(graph, o.preprocessing, card.class_names.empty() ? data.class_names() : card.class_names);
  made.configuration = std::move(card.configuration);
  return made;
}

class Training {
public:
  Training(const Graph& graph, Params& params, const Dataset& data, const Dataset* validation, const ModelCard& card,
           const TrainOptions& options, const TrainObserver& observer)
      : graph_(graph),
        params_(params),
        data_(data),
        card_(completed(card, graph, data, options)),
        o_(options),
        observer_(observer),
        optimizer_(params, options.optimizer),
        lock_(o_.output_dir),
        state_(o_.resume.empty() ? TrainingState() : state_to_resume()),
        plans_(graph, params, with_recorded_kernels(), optimizer_, [this](const KernelChoices& k) { record(k); }),
        times_(o_.profile, o_.workers),
        pace_(int64_t{o_.batch} * o_.accumulate, validation != nullptr ? validation->size() : 0),
        validation_size_(validation != nullptr ? validation->size() : 0) {
    keeper_.emplace(o_, card_, state_, validation != nullptr);
    LoaderOptions loading = training_loader(o_, state_.step);
    if (!o_.loss.ignore_index) loading.classes = graph.classes();
    loading.trace = times_.trace();
    loader_ = Loader::create(params.context(), data, loading);
    if (validation != nullptr) {
      evaluator_.emplace(graph, trained(), *validation, validation_of(o_));
      record(evaluator_->kernels());
    }
    per_epoch_ = loader_->steps_per_epoch() / o_.accumulate;
    plans_.show(state_.step / per_epoch_);
    if (!o_.resume.empty()) resume();
    total_steps_ = o_.steps > 0 ? o_.steps : per_epoch_ * o_.epochs;
    o_.schedule = schedule_in_steps(o_, per_epoch_, total_steps_);
    for (const double epochs : optimizer_.own_epochs())
      own_schedules_.push_back(shortened(o_.schedule, epochs, per_epoch_));
    if (!o_.output_dir.empty()) open_folder();
  }

  // What cannot be read is on record also where it ends the training.
  TrainResult run(const std::atomic<int>* interrupt) {
    try {
      const TrainResult result = run_steps(interrupt);
      times_.write_profile();
      return result;
    } catch (const DataError&) {
      if (log_) log_->bad_samples(bad_samples());
      throw;
    }
  }

private:
  TrainingState state_to_resume() {
    check_classes(o_.resume, card_);
    return load_training(o_.resume, params_, optimizer_);
  }

  void open_folder() {
    make_output_folder(o_.output_dir);
    if (!lock_.held()) lock_ = FolderLock(o_.output_dir);
    if (observer_.locked) observer_.locked();
    keeper_->clear_leftovers();
    if (o_.resume.empty())
      keeper_->forget();
    else
      keeper_->take_over_best();
    log_.emplace(o_.output_dir, o_.resume.empty() ? std::nullopt : std::optional(state_.step), state_.epoch_open,
                 o_.tensorboard);
  }

  bool is_over() const { return state_.step >= total_steps_ || keeper_->out_of_patience(); }

  TrainResult run_steps(const std::atomic<int>* interrupt) {
    interrupt_ = interrupt;
    if (!is_over() || state_.epoch_open) {
      if (observer_.begin) observer_.begin();
    } else if (observer_.warning) {
      observer_.warning(fmt::format("nothing is left to train: the checkpoint is of step {} of {}{}", state_.step,
                                    total_steps_, state_.step < total_steps_ ? ", stopped early" : ""));
    }
    epoch_start_ = saved_ = Clock::now();
    first_step_ = state_.step;
    pace_.begin(state_.step);
    if (state_.epoch_open && !close_epoch()) return result(true);
    while (!is_over()) {
      times_.step([&] { step(); });
      const bool epoch_ends = state_.step % per_epoch_ == 0 || state_.step == total_steps_;
      if (state_.step % o_.log_every == 0 && !epoch_ends) plan().request_meters(state_.step);
      while (const auto reading = plan().poll_meters()) report(*reading);
      if (epoch_ends && !end_epoch()) return result(true);
      const bool stop = is_interrupted();
      if (stop || (o_.checkpoint_every > 0 && state_.step % o_.checkpoint_every == 0 && !epoch_ends)) save_last();
      if (stop && state_.step < total_steps_) return result(true);
    }
    if (o_.output_dir.empty()) check_weights();
    return result(false);
  }

  bool is_interrupted() const { return interrupt_ != nullptr && interrupt_->load() != 0; }

  // The options of the training's plans: what the checkpoint names is chosen again, and what one plan has chosen by the
  // next.
  const TrainOptions& with_recorded_kernels() {
    if (!o_.kernels.warning) o_.kernels.warning = observer_.warning;
    record(state_.kernels);
    return o_;
  }
  void record(const KernelChoices& chosen) {
    for (const auto& [shape, kernel] : chosen) o_.kernels.recorded[shape] = state_.kernels[shape] = kernel;
  }

  // What is evaluated and handed on: the average where there is one.
  Params& trained() { return optimizer_.average() != nullptr ? *optimizer_.average() : params_; }

  double rate_of(int64_t step) const { return learning_rate(o_.schedule, step, state_.plateau); }

  // Of a group that ends early: 0 from there on.
  double own_rate_of(int64_t step, const ScheduleOptions& own) const {
    return step < own.total_steps ? learning_rate(own, step, state_.plateau) : 0;
  }

  Plan& plan() { return plans_.now(); }

  void step() {
    plans_.show(state_.step / per_epoch_);
    for (int i = 0; i < o_.accumulate; ++i) {
      Batch batch;
      times_.timed("wait for batch", [&] { loader_->next(batch); });
      if (log_ && log_->draws() && state_.step == first_step_ && i == 0)
        log_->picture(state_.step + 1,
                      picture_grid(params_.context(), at_epoch(o_.augment, o_.sizes, batch.epoch), batch));
      StepInput input = plans_.input_of_step(step_input(batch));
      input.learning_rate = static_cast<float>(rate_of(state_.step));
      for (size_t k = 0; k < own_schedules_.size(); ++k)
        input.own_rates[k] = static_cast<float>(own_rate_of(state_.step, own_schedules_[k]));
      times_.timed("wait for device", [&] { plan().wait_for_place(); });
      times_.timed("submit", [&] { plan().run(input); });
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

  // Throws where a loss that is not finite ends the training.
  void check_finite(const MeterReading& r) {
    constexpr int kMostInARow = 10;
    if (o_.optimizer.bad_steps == BadStepPolicy::stop) {
      if (r.first_bad_step >= 0)
        fail_non_finite(r.first_bad_step,
                        fmt::format("{} of step {}", o_.dtype == DType::f16 ? "the loss or a gradient" : "the loss",
                                    r.first_bad_step));
      return;
    }
    if (r.bad_in_a_row >= kMostInARow)
      fail_non_finite(r.last_bad_step, fmt::format("the loss or a gradient of step {}, and of {} steps before it,",
                                                   r.last_bad_step, r.bad_in_a_row - 1));
    if (r.bad_steps > state_.bad_steps && observer_.warning)
      observer_.warning(fmt::format(
          "skipped {} {} up to step {}, since the loss or a gradient was not finite{}", r.bad_steps - state_.bad_steps,
          r.bad_steps - state_.bad_steps == 1 ? "step" : "steps", r.last_bad_step,
          r.rate_factor < 1 ? fmt::format("; the learning rate is now {} of the schedule's", r.rate_factor) : ""));
    state_.bad_steps = r.bad_steps;
    state_.rate_factor = r.rate_factor;
  }

  void report(const MeterReading& r) {
    check_finite(r);
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
    p.learning_rate = rate_of(r.step - 1) * static_cast<double>(r.rate_factor);
    p.bad_steps = r.bad_steps;
    if (o_.dtype == DType::f16) p.loss_scale = static_cast<double>(r.loss_scale);
    p.overflows = r.skipped_steps;
    if (clips()) p.gradient_norm = static_cast<double>(r.gradient_norm);
    p.images_per_second = pace_.images_per_second(r.step);
    p.seconds_left = pace_.seconds_left(p);
    if (log_) log_->progress(p);
    if (observer_.progress) observer_.progress(p);
  }

  bool clips() const { return clip_norm_of(o_.optimizer) > 0 || o_.optimizer.clip_adaptive > 0; }

  MeterReading meters_now() {
    MeterReading r = plan().meters();
    r.step = state_.step;
    return r;
  }

  // False where its validation was interrupted.
  bool end_epoch() {
    const MeterReading reading = meters_now();
    while (const auto earlier = plan().poll_meters()) report(*earlier);
    report(reading);
    state_.epoch_open = true;
    // A process may be killed while it validates: what took long to train is safe before that.
    constexpr double kLong = 30;
    if (evaluator_ && seconds_since(saved_) > kLong) save_last();
    return close_epoch();
  }

  bool close_epoch() {
    const MeterReading reading = meters_now();
    const MeterValues m = reading.values - epoch_base_;
    EpochSummary s;
    s.step = state_.step;
    s.epoch = (state_.step - 1) / per_epoch_;
    s.train_loss = m.weight > 0 ? m.loss / m.weight : 0;
    s.train_top1 = m.weight > 0 ? m.top1 / m.weight : 0;
    s.learning_rate = rate_of(state_.step - 1) * static_cast<double>(reading.rate_factor);
    s.data = times_.since_last(loader_->times());
    try {
      if (evaluator_) times_.timed("validation", [&] { s.validation = validate(); });
    } catch (const DataError&) {
      save_last();
      throw;
    }
    if (s.validation && !s.validation->complete) {
      save_last();
      return false;
    }
    state_.epoch_open = false;
    keeper_->judge(s);
    follow_plateau(s);
    s.seconds = seconds_since(epoch_start_);
    epoch_start_ = Clock::now();
    pace_.go_on(state_.step);
    if (state_.step % per_epoch_ == 0) epoch_base_ = reading.values;
    if (log_) {
      log_->epoch(s);
      log_->bad_samples(bad_samples());
    }
    if (log_ && log_->draws()) log_->weights(state_.step, params_);
    // `best` first: a run cut off between the two goes on from `last` and decides about the epoch again, the same way.
    keeper_->save_judged(s, trained());
    save_last();
    if (observer_.epoch) observer_.epoch(s);
    return true;
  }

  EvalResult validate() {
    EvalResult result = evaluator_->run({}, [&](int64_t done) {
      if (observer_.validating) observer_.validating(done, validation_size_);
      return !is_interrupted();
    });
    if (!result.complete) return result;
    pace_.add_validation(result.seconds);
    if (result.samples == 0 && result.skipped > 0) {
      const BadSample first = evaluator_->bad_samples().front();
      throw DataError(fmt::format("{}: {}, and none of the {} other pictures for validation can be read either",
                                  first.name, first.reason, result.skipped - 1));
    }
    if (!std::isfinite(result.loss) && observer_.warning)
      observer_.warning(fmt::format(
          "the loss of the validation after step {} is not finite: the network's outputs are of no use", state_.step));
    return result;
  }

  void follow_plateau(const EpochSummary& s) {
    if (o_.schedule.kind != ScheduleOptions::Kind::plateau || state_.step % per_epoch_ != 0) return;
    if (state_.step <= o_.schedule.warmup_steps) return;  // of rates that are not the schedule's yet
    const double loss = s.validation ? s.validation->loss : s.train_loss;
    const double top1 = s.validation ? s.validation->top1 : s.train_top1;
    observe(o_.schedule, state_.plateau, o_.schedule.of_accuracy ? top1 : loss);
  }

  void save_last() {
    const MeterReading now = plan().meters();
    while (const auto reading = plan().poll_meters()) report(*reading);  // all have arrived
    check_finite(now);
    if (o_.output_dir.empty()) return;
    const StepStatus status = plan().status();
    state_.loss_scale = status.loss_scale;
    state_.good_steps = status.good_steps;
    state_.skipped_steps = status.skipped_steps;
    state_.bad_in_a_row = status.bad_in_a_row;
    state_.meters = now.values;
    state_.reported = reported_;
    state_.epoch_base = epoch_base_;
    state_.batches_tracked = params_.batches_tracked;
    state_.device = device_text();
    keeper_->save_last(params_, optimizer_);
    saved_ = Clock::now();
  }

  // A loss stays finite where a ReLU makes 0 of what is not (docs/numerics.md); checkpoints look for themselves.
  void check_weights() {
    if (const std::string bad = trained().find_non_finite(); !bad.empty())
      throw NonFiniteError(
          fmt::format("the values of '{}' are not finite after step {}; try a lower --lr, warm-up "
                      "(--lr-warmup-epochs) or --dtype f32",
                      bad, state_.step));
  }

  std::string device_text() const {
    return params_.context().device().to_string() + ": " + params_.context().conv().describe() +
           (o_.decoder == Decoder::nvjpeg ? ", JPEGs by nvJPEG" : "");
  }

  void resume() {
    if (state_.device != device_text() && observer_.warning)
      observer_.warning("resuming on '" + device_text() + "' what was trained on '" + state_.device +
                        "': the training goes on, but not to the same bits");
    StepStatus status = plan().status();
    status.loss_scale = o_.dtype == DType::f16 ? state_.loss_scale : 1;
    status.good_steps = state_.good_steps;
    status.skipped_steps = state_.skipped_steps;
    status.bad_steps = state_.bad_steps;
    status.bad_in_a_row = state_.bad_in_a_row;
    status.rate_factor = state_.rate_factor;
    plan().set_status(status);
    plan().set_meters(state_.meters);
    reported_ = state_.reported;
    epoch_base_ = state_.epoch_base;
  }

  // The batch of a step is a pure function: decode it again and look at every op.
  [[noreturn]] void fail_non_finite(int64_t bad_step, const std::string& what) {
    const auto loader = Loader::create(params_.context(), data_, training_loader(o_, bad_step));
    plans_.show(bad_step / per_epoch_);
    std::string where;
    std::vector<int64_t> samples;
    for (int i = 0; i < o_.accumulate && where.empty(); ++i) {
      Batch batch;
      loader->next(batch);
      StepInput input = plans_.input_of_step(step_input(batch));
      input.first_row += int64_t{i} * o_.batch;
      where = plan().find_non_finite(input);
      if (!where.empty()) samples.clear();  // this micro-batch alone
      samples.insert(samples.end(), batch.samples, batch.samples + o_.batch);
      loader->release(batch);
    }
    if (where.empty()) where = "the loss itself";
    throw NonFiniteError(fmt::format(
        "{} is not finite, first seen in {}; the weights are those before that step{}; try a lower --lr, warm-up "
        "(--lr-warmup-epochs) or --dtype f32",
        what, where, saved_batch_text(samples, bad_step, where)));
  }

  std::string saved_batch_text(const std::vector<int64_t>& samples, int64_t step, const std::string& where) {
    if (o_.output_dir.empty()) return "";
    const std::string folder = keeper_->path(fmt::format("non_finite-step-{}", step));
    try {
      save_batch(folder, data_, samples, step, where);
      return "; its pictures are in " + folder;
    } catch (const Error& e) {
      return fmt::format("; its pictures could not be saved ({})", e.what());
    }
  }

  // Of training and validation.
  std::vector<BadSample> bad_samples() const {
    std::vector<BadSample> all = loader_->bad_samples();
    if (evaluator_)
      for (BadSample& b : evaluator_->bad_samples()) all.push_back(std::move(b));
    return all;
  }

  TrainResult result(bool interrupted) {
    TrainResult r;
    r.steps = state_.step;
    r.interrupted = interrupted;
    r.stopped_early = keeper_->out_of_patience();
    r.best_top1 = state_.best_top1;
    r.bad_samples = bad_samples();
    r.seconds = pace_.seconds();
    r.data = times_.of_all(loader_->times());
    return r;
  }

  const Graph& graph_;
  Params& params_;
  const Dataset& data_;
  ModelCard card_;
  TrainOptions o_;
  std::vector<ScheduleOptions> own_schedules_;  // of Optimizer::own_epochs()
  const TrainObserver& observer_;
  Optimizer optimizer_;
  FolderLock lock_;
  TrainingState state_;
  TrainingPlans plans_;
  StepTimes times_;
  std::unique_ptr<Loader> loader_;
  std::optional<Evaluator> evaluator_;
  std::optional<CheckpointKeeper> keeper_;
  std::optional<RunLog> log_;
  Pace pace_;
  const std::atomic<int>* interrupt_ = nullptr;
  int64_t per_epoch_ = 0, total_steps_ = 0, first_step_ = 0;
  const int64_t validation_size_;  // pictures
  MeterValues reported_, epoch_base_;
  Clock::time_point epoch_start_, saved_;
};

}  // namespace

TrainResult train(const Graph& graph, Params& params, const Dataset& data, const Dataset* validation,
                  const ModelCard& card, const TrainOptions& options, const TrainObserver& observer,
                  const std::atomic<int>* interrupt) {
  check_training(options, graph, card);
  return Training(graph, params, data, validation, card, options, observer).run(interrupt);
}

}  // namespace convolt
