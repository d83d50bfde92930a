#include "bench/step_row.h"

#include <fmt/format.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <ranges>

#include "bench/memory.h"

namespace convolt::bench {
namespace {

using Clock = std::chrono::steady_clock;
double milliseconds(Clock::duration d) { return std::chrono::duration<double, std::milli>(d).count(); }

// A batch of drawn pictures of the first ten classes at most.
class Resident {
public:
  Resident(Context& context, const Plan& plan, int64_t channels)
      : images_(filled(context, DType::f32, plan.options().batch * plan.height() * plan.width() * channels)) {
    const int64_t batch = plan.options().batch;
    std::vector<int32_t> labels;
    for (int64_t i = 0; i < batch; ++i)
      labels.push_back(static_cast<int32_t>(i % std::min<int64_t>(10, plan.classes())));
    labels_ = uploaded(context, labels);
    weights_ = uploaded(context, std::vector<float>(static_cast<size_t>(batch), 1.F));
    input.images = images_.as<float>();
    input.labels = labels_.as<int32_t>();
    input.weights = weights_.as<float>();
    input.weight_sum = static_cast<float>(batch);
    input.learning_rate = 1e-4F;
  }
  StepInput input;

private:
  Buffer images_, labels_, weights_;
};

// A plan with all that it needs to run.
class Step {
public:
  Step(Context& context, const ModelInfo& model, const StepOptions& o)
      : model_(model), o_(o), size_(o.size > 0 ? o.size : model.size), queue_(context.compute()) {
    build_model(graph_, model, {.classes = 0, .height = size_, .width = size_, .channels = model.channels});
    params_.emplace(context, graph_, 0);
    optimizer_.emplace(*params_, o.optimizer);
    plan_.emplace(graph_, *params_,
                  PlanOptions{.batch = o.batch,
                              .dtype = o.dtype,
                              .tf32 = o.tf32,
                              .training = true,
                              .optimizer = &*optimizer_,
                              .kernels = o.kernels,
                              .memory_budget = o.memory_budget});
    batch_.emplace(context, *plan_, model.channels);
    // So small that no update is skipped for an overflow: one that is would be timed as quick.
    if (o.dtype == DType::f16) plan_->set_status({.loss_scale = 1024});
  }
  // Where memory is short a plan recomputes by itself.
  bool recomputes() const { return plan_->describe().find("pass recompute: ") != std::string::npos; }
  double step() {
    const auto start = Clock::now();
    for (int i = 0; i < o_.steps; ++i) run();
    queue_.synchronize();
    return milliseconds(Clock::now() - start) / o_.steps;
  }
  double host() {
    const auto start = Clock::now();
    run();
    const auto end = Clock::now();
    queue_.synchronize();
    return milliseconds(end - start);
  }
  Row row(const Summary& step, const Summary& host) const {
    return {.name = model_.name,
            .dtype = o_.tf32 ? "tf32" : std::string(name_of(o_.dtype)),
            .shape = fmt::format(
                "n{} {}x{}x{}{}{}{}{}{}", o_.batch, size_, size_, model_.channels,
                o_.optimizer.kind == OptimizerKind::sgd ? "" : fmt::format(", {}", name_of(o_.optimizer.kind)),
                o_.optimizer.ema_decay > 0 ? ", average" : "", clip_norm_of(o_.optimizer) > 0 ? ", clipped" : "",
                o_.kernels.deterministic ? ", deterministic" : "",
                o_.memory_budget ? fmt::format(", within {} bytes", *o_.memory_budget) : ""),
            .bytes = plan_->bytes_per_step(),
            .flops = plan_->flops_per_step(),
            .images = static_cast<double>(o_.batch),
            .memory = plan_->slab_bytes() + params_->bytes() + optimizer_->bytes(),
            .timings = {{"step", step}, {.name = "host", .ms = host, .part = true}}};
  }

private:
  void run() {
    plan_->run(batch_->input);
    ++batch_->input.step;
  }

  const ModelInfo& model_;
  const StepOptions& o_;
  const int size_;
  Queue& queue_;
  Graph graph_;
  std::optional<Params> params_;
  std::optional<Optimizer> optimizer_;
  std::optional<Plan> plan_;
  std::optional<Resident> batch_;
};

}  // namespace

std::vector<Row> time_steps(Context& context, const ModelInfo& model, const std::vector<StepOptions>& options,
                            const Sampling& sampling) {
  std::vector<std::unique_ptr<Step>> steps;
  for (const StepOptions& o : std::views::reverse(options)) try {
      auto step = std::make_unique<Step>(context, model, o);
      if (steps.empty() || !step->recomputes()) steps.insert(steps.begin(), std::move(step));
    } catch (const OutOfMemoryError&) {
      if (steps.empty()) throw;
    }
  std::vector<std::function<double()>> takes;
  for (const auto& step : steps) {
    takes.emplace_back([step = step.get()] { return step->step(); });
    takes.emplace_back([step = step.get()] { return step->host(); });
  }
  const auto times = in_turn(sampling, takes);
  std::vector<Row> rows;
  for (size_t i = 0; i < steps.size(); ++i)
    rows.push_back(steps[i]->row(summary_of(times[2 * i]), summary_of(times[2 * i + 1])));
  return rows;
}

}  // namespace convolt::bench
