#include "bench/step_row.h"

#include <fmt/format.h>

#include <chrono>

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

}  // namespace

Row time_step(Context& context, const ModelInfo& model, const StepOptions& o) {
  const int size = o.size > 0 ? o.size : model.size;
  Graph graph;
  build_model(graph, model, {.classes = 0, .height = size, .width = size, .channels = model.channels});
  Params params(context, graph, 0);
  Optimizer sgd(params, {.weight_decay = 1e-4F});
  Plan plan(graph, params, {.batch = o.batch, .dtype = o.dtype, .tf32 = o.tf32, .training = true, .optimizer = &sgd});
  Resident batch(context, plan, model.channels);
  Queue& queue = context.compute();
  const auto run = [&] {
    plan.run(batch.input);
    ++batch.input.step;
  };
  const auto times = in_turn(o.sampling, {[&] {
                                            const auto start = Clock::now();
                                            for (int i = 0; i < o.steps; ++i) run();
                                            queue.synchronize();
                                            return milliseconds(Clock::now() - start) / o.steps;
                                          },
                                          [&] {
                                            const auto start = Clock::now();
                                            run();
                                            const auto end = Clock::now();
                                            queue.synchronize();
                                            return milliseconds(end - start);
                                          }});
  return {.name = model.name,
          .dtype = o.tf32 ? "tf32" : std::string(name_of(o.dtype)),
          .shape = fmt::format("n{} {}x{}x{}", o.batch, size, size, model.channels),
          .bytes = plan.bytes_per_step(),
          .flops = plan.flops_per_step(),
          .images = static_cast<double>(o.batch),
          .memory = plan.slab_bytes() + params.bytes() + sgd.bytes(),
          .timings = {{"step", summary_of(times[0])}, {"host", summary_of(times[1])}}};
}

}  // namespace convolt::bench
