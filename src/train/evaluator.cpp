#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <span>

#include "convolt/evaluation.h"
#include "convolt/trainer.h"
#include "train/derived_options.h"

namespace convolt {
namespace {

LoaderOptions loader_options(const EvalOptions& o) {
  LoaderOptions l;
  l.batch = o.batch;
  l.threads = o.workers;
  l.training = false;
  l.bad_samples = o.bad_samples;
  l.decode = o.decode;
  l.resident = o.resident;
  l.augment = o.preprocessing;
  return l;
}

struct View {
  int x = 0, y = 0;
  bool mirrored = false;
  float weight = 1;  // all together 1
};

std::span<const View> views_of(int count) {
  static constexpr View kOne[] = {{}};
  static constexpr View kTwo[] = {{0, 0, false, 0.5F}, {0, 0, true, 0.5F}};
  static constexpr View kSix[] = {{0, 0, false, 0.25F},   {0, 0, true, 0.25F},   {-1, -1, false, 0.125F},
                                  {-1, -1, true, 0.125F}, {1, 1, false, 0.125F}, {1, 1, true, 0.125F}};
  if (count == 1) return kOne;
  if (count == 2) return kTwo;
  if (count == 6) return kSix;
  throw UsageError(fmt::format("a picture is evaluated in 1, 2 or 6 views, found {}", count));
}

}  // namespace

Evaluator::Evaluator(const Graph& graph, Params& params, const Dataset& data, const EvalOptions& options)
    : data_(&data),
      views_(static_cast<int>(views_of(options.views).size())),
      threads_(options.workers),
      plan_(graph, params,
            inference_plan(options.preprocessing, options.batch, options.dtype, options.tf32, options.kernels)),
      loader_(Loader::create(params.context(), data, loader_options(options))) {}

// The mean over the views.
std::vector<float> Evaluator::logits_of(StepInput input) {
  std::vector<float> mean(static_cast<size_t>(plan_.options().batch * plan_.classes()));
  for (const View& view : views_of(views_)) {
    input.view_x = view.x;
    input.view_y = view.y;
    input.view_mirrored = view.mirrored ? 1 : 0;
    plan_.run(input);
    const std::vector<float> logits = plan_.logits();
    for (size_t i = 0; i < mean.size(); ++i) mean[i] += view.weight * logits[i];
  }
  return mean;
}

// The device's meters count every view by itself.
void Evaluator::count_host(EvalResult& result) const {
  const Evaluation e = evaluate(seen_, labels_, plan_.classes(), {.threads = threads_});
  result.samples = e.samples;
  result.correct = static_cast<double>(e.top1.hits);
  result.loss = e.plain.loss;
  result.top1 = e.top1.value();
  result.top5 = e.topk.value();
}

EvalResult Evaluator::run(const std::function<void(int64_t, const float*, bool)>& on_logits) {
  const auto start = std::chrono::steady_clock::now();
  plan_.set_meters({});
  seen_.clear();
  labels_.clear();
  EvalResult result;
  Batch batch;
  while (loader_->next(batch)) {
    std::vector<float> logits;
    if (views_ > 1)
      logits = logits_of(input_of(batch));
    else
      plan_.run(input_of(batch));
    if (views_ == 1 && on_logits) logits = plan_.logits();
    for (int i = 0; i < plan_.options().batch; ++i) {
      if (batch.samples[i] < 0) continue;
      const bool skipped = batch.skipped[i] != 0;
      const float* const row = logits.data() + i * plan_.classes();
      result.skipped += skipped ? 1 : 0;
      if (on_logits) on_logits(batch.samples[i], row, skipped);
      if (views_ == 1) continue;
      seen_.insert(seen_.end(), row, row + plan_.classes());
      labels_.push_back(skipped ? -1 : data_->label(batch.samples[i]));
    }
    loader_->release(batch);
  }
  if (views_ > 1) {
    count_host(result);
  } else if (const MeterValues m = plan_.meters().values; m.weight > 0) {
    result.samples = static_cast<int64_t>(m.weight);
    result.correct = m.top1;
    result.loss = m.loss / m.weight;
    result.top1 = m.top1 / m.weight;
    result.top5 = m.top5 / m.weight;
  }
  loader_->restart();
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace convolt
