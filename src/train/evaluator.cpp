#include <chrono>
#include <utility>

#include "convolt/evaluation.h"
#include "convolt/trainer.h"
#include "train/derived_options.h"
#include "train/views.h"

namespace convolt {
namespace {

LoaderOptions loader_options(const EvalOptions& o, int64_t classes) {
  LoaderOptions l;
  l.classes = classes;
  l.batch = o.batch;
  l.threads = o.workers;
  l.training = false;
  l.bad_samples = o.bad_samples;
  l.decode = o.decode;
  l.decode.full_decode |= are_crops(o.views);
  l.decoder = o.decoder;
  l.memory = o.loader_memory;
  l.resident = o.resident;
  l.augment = o.preprocessing;
  return l;
}

// Gives the batch back, also where a callback throws.
class BatchInUse {
public:
  BatchInUse(Loader& loader, const Batch& batch) : loader_(loader), batch_(batch) {}
  ~BatchInUse() {
    try {
      loader_.release(batch_);
    } catch (...) {  // the device's error, which says so to whoever asks it next
    }
  }
  BatchInUse(const BatchInUse&) = delete;
  BatchInUse& operator=(const BatchInUse&) = delete;

private:
  Loader& loader_;
  const Batch& batch_;
};

}  // namespace

Evaluator::Evaluator(const Graph& graph, Params& params, const Dataset& data, const EvalOptions& options)
    : data_(&data),
      views_(checked_views(options.views, options.preprocessing)),
      threads_(options.workers),
      plan_(graph, params,
            inference_plan(options.preprocessing, options.batch, options.dtype, options.tf32, options.kernels)),
      loader_(Loader::create(params.context(), data, loader_options(options, graph.classes()))) {}

// The device's meters count every view by itself.
void Evaluator::count_host(EvalResult& result) const {
  const Evaluation e = evaluate(seen_, labels_, plan_.classes(), {.threads = threads_});
  result.samples = e.samples;
  result.correct = static_cast<double>(e.top1.hits);
  result.loss = e.plain.loss;
  result.top1 = e.top1.value();
  result.top5 = e.topk.value();
}

EvalResult Evaluator::run(const std::function<void(int64_t, const float*, bool)>& on_logits,
                          const std::function<bool(int64_t)>& goes_on) {
  const auto start = std::chrono::steady_clock::now();
  plan_.set_meters({});
  seen_.clear();
  labels_.clear();
  if (std::exchange(broken_off_, true)) loader_->restart();
  EvalResult result;
  Batch batch;
  int64_t handed_over = 0;
  while (result.complete && loader_->next(batch)) {
    const BatchInUse in_use(*loader_, batch);
    const StepInput input = input_of(batch);
    run_first_view(plan_, input, views_);
    std::vector<float> logits;
    if (views_ > 1 || on_logits) logits = mean_of_views(plan_, input, views_);
    for (int i = 0; i < plan_.options().batch; ++i) {
      if (batch.samples[i] < 0) continue;
      const bool skipped = batch.skipped[i] != 0;
      ++handed_over;
      const float* const row = logits.data() + i * plan_.classes();
      result.skipped += skipped ? 1 : 0;
      if (on_logits) on_logits(batch.samples[i], row, skipped);
      if (views_ == 1) continue;
      seen_.insert(seen_.end(), row, row + plan_.classes());
      labels_.push_back(skipped ? -1 : data_->label(batch.samples[i]));
    }
    result.complete = !goes_on || goes_on(handed_over);
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
  broken_off_ = false;
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace convolt
