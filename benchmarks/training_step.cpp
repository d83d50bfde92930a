// The time of a training step: forward, backward, optimizer, on a batch that already lies on the device.
//   training_step --model resnet50 -b 256 --dtype f16 --device cuda
// One JSON object on stdout: milliseconds a step in windows of several steps, median and spread, and the plan's own
// figures.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "conv/conv.h"
#include "convolt/convolt.h"
#include "step_state.h"

using namespace convolt;

namespace {

struct Options {
  std::string model = "resnet50", device = "cuda", dtype = "f32";
  int batch = 256, windows = 7, steps = 20, size = 0, threads = 0;
};

// A batch of constant pictures: the arithmetic does not depend on the values.
struct Resident {
  Buffer images, labels, weights;
  StepInput input;
  Resident(Context& context, int batch, int64_t pixels)
      : images(context, batch * pixels * 4), labels(context, batch * 4), weights(context, batch * 4) {
    const std::vector<float> values(static_cast<size_t>(batch * pixels), 0.25F), ones(static_cast<size_t>(batch), 1.F);
    std::vector<int32_t> classes(static_cast<size_t>(batch));
    for (int i = 0; i < batch; ++i) classes[static_cast<size_t>(i)] = i % 10;
    Queue& queue = context.compute();
    queue.copy(images.data(), values.data(), images.bytes());
    queue.copy(labels.data(), classes.data(), labels.bytes());
    queue.copy(weights.data(), ones.data(), weights.bytes());
    queue.synchronize();
    input.images = images.as<float>();
    input.labels = labels.as<int32_t>();
    input.weights = weights.as<float>();
    input.weight_sum = static_cast<float>(batch);
    input.learning_rate = 1e-4F;
  }
};

int measure(const Options& o) {
  const auto context = Context::create({Device::parse(o.device), o.threads});
  const bool tf32 = o.dtype == "tf32";
  const ModelInfo model = find_model(o.model);
  const int size = o.size > 0 ? o.size : model.size;
  Graph graph;
  build_model(graph, model, {.classes = 0, .height = size, .width = size, .channels = model.channels});
  Params params(*context, graph, 0);
  Optimizer sgd(params);
  Plan plan(graph, params,
            {.batch = o.batch,
             .dtype = tf32 ? DType::f32 : dtype_from_name(o.dtype),
             .tf32 = tf32,
             .training = true,
             .optimizer = &sgd});
  Resident batch(*context, o.batch, int64_t{size} * size * model.channels);
  const auto window = [&] {
    context->compute().synchronize();
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < o.steps; ++i, ++batch.input.step) plan.run(batch.input);
    context->compute().synchronize();
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count() / o.steps;
  };
  window();  // warm-up
  std::vector<double> times;
  for (int i = 0; i < o.windows; ++i) times.push_back(window());
  std::sort(times.begin(), times.end());
  const double median = times[times.size() / 2];
  fmt::print("{}\n", nlohmann::ordered_json{{"model", o.model},
                                            {"batch", o.batch},
                                            {"size", size},
                                            {"dtype", o.dtype},
                                            {"device", context->describe()},
                                            {"provider", context->conv().describe()},
                                            {"windows", o.windows},
                                            {"steps_per_window", o.steps},
                                            {"ms_median", median},
                                            {"ms_min", times.front()},
                                            {"ms_max", times.back()},
                                            {"images_per_second", o.batch * 1000.0 / median},
                                            {"kernels_per_step", plan.kernels_per_step()},
                                            {"bytes_per_step", plan.bytes_per_step()},
                                            {"flops_per_step", plan.flops_per_step()},
                                            {"slab_bytes", plan.slab_bytes()},
                                            {"planned_bytes", plan.slab_bytes() + params.bytes() + sgd.bytes()}}
                         .dump());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  CLI::App app("Time of a training step");
  app.add_option("--model", o.model, "a name, or FILE.json")->capture_default_str();
  app.add_option("--device", o.device)->capture_default_str();
  app.add_option("--dtype", o.dtype)->capture_default_str();
  app.add_option("-b,--batch-size", o.batch)->capture_default_str();
  app.add_option("--size", o.size, "side of the pictures [the model's]");
  app.add_option("--windows", o.windows)->capture_default_str();
  app.add_option("--steps", o.steps, "in a window")->capture_default_str();
  app.add_option("--threads", o.threads, "CPU compute threads")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    return measure(o);
  } catch (const std::exception& e) {
    fmt::print(stderr, "training_step: {}\n", e.what());
    return 1;
  }
}
