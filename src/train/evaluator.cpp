#include <chrono>

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
  l.max_side = o.max_side;
  l.augment = o.preprocessing;
  return l;
}

}  // namespace

Evaluator::Evaluator(const Graph& graph, Params& params, const Dataset& data, const EvalOptions& options)
    : plan_(graph, params,
            inference_plan(options.preprocessing, options.batch, options.dtype, options.tf32, options.kernels)),
      loader_(Loader::create(params.context(), data, loader_options(options))) {}

EvalResult Evaluator::run(const std::function<void(int64_t, const float*, bool)>& on_logits) {
  const auto start = std::chrono::steady_clock::now();
  plan_.set_meters({});
  EvalResult result;
  Batch batch;
  while (loader_->next(batch)) {
    plan_.run(input_of(batch));
    for (int i = 0; i < plan_.options().batch; ++i)
      result.skipped += batch.samples[i] >= 0 && batch.skipped[i] != 0 ? 1 : 0;
    if (on_logits) {
      const std::vector<float> logits = plan_.logits();
      for (int i = 0; i < plan_.options().batch; ++i)
        if (batch.samples[i] >= 0)
          on_logits(batch.samples[i], logits.data() + i * plan_.classes(), batch.skipped[i] != 0);
    }
    loader_->release(batch);
  }
  const MeterValues m = plan_.meters().values;
  loader_->restart();
  result.samples = static_cast<int64_t>(m.weight);
  result.correct = m.top1;
  if (m.weight > 0) {
    result.loss = m.loss / m.weight;
    result.top1 = m.top1 / m.weight;
    result.top5 = m.top5 / m.weight;
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace convolt
