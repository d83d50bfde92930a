// Ten training steps of whole networks on the CPU and on the device: no further apart than roundings bring two
// trainings on the CPU, which is far in networks like these, that are not trained yet.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "convolt/models.h"
#include "convolt/plan.h"
#include "support/device.h"

namespace convolt::test {
namespace {

struct Net {
  const char* model;
  int size, channels, batch;
};

struct Trace {
  std::vector<double> losses;
  std::vector<std::vector<float>> weights;
};

// `nudge`: the weights begin that much away from their initial values, in relation to them.
Trace train_ten_steps(Context& context, const Net& net, DType dtype, double nudge = 0) {
  Graph graph;
  build_model(graph, net.model, {.classes = 10, .height = net.size, .width = net.size, .channels = net.channels});
  Params params(context, graph, 1);
  for (int i = 0; nudge > 0 && i < static_cast<int>(params.specs().size()); ++i) {
    std::vector<float> values = params.values(i);
    const std::vector<double> nudges = random_values(static_cast<int64_t>(values.size()), static_cast<uint64_t>(i));
    for (size_t k = 0; k < values.size(); ++k) values[k] *= static_cast<float>(1 + nudge * nudges[k]);
    params.set_values(i, values);
  }
  Optimizer sgd(params, {.momentum = 0.9F, .weight_decay = 1e-4F});
  Plan plan(graph, params, {.batch = net.batch, .dtype = dtype, .training = true, .optimizer = &sgd});
  const auto pixels = static_cast<int64_t>(net.batch) * net.size * net.size * net.channels;
  Trace trace;
  for (int step = 0; step < 10; ++step) {
    const std::vector<double> values = random_values(pixels, static_cast<uint64_t>(100 + step));
    const std::vector<float> images(values.begin(), values.end());
    std::vector<int32_t> labels(static_cast<size_t>(net.batch));
    for (int i = 0; i < net.batch; ++i) labels[static_cast<size_t>(i)] = (i * 7 + step) % 10;
    plan.set_meters({});
    plan.run(images.data(), labels.data(), net.batch, step, 0.001F);
    trace.losses.push_back(plan.meters().values.loss / net.batch);
  }
  for (size_t i = 0; i < params.specs().size(); ++i) trace.weights.push_back(params.values(static_cast<int>(i)));
  return trace;
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t k = 0; k < a.size(); ++k) sum += std::pow(static_cast<double>(a[k]) - static_cast<double>(b[k]), 2);
  return std::sqrt(sum);
}

class Parity : public testing::TestWithParam<std::tuple<Net, DType>> {};

TEST_P(Parity, TenTrainingSteps) {
  if (cuda_device_count() == 0) GTEST_SKIP() << cuda_unavailable_reason();
  const auto& [net, dtype] = GetParam();
  Context& host = context_of(Device::cpu());
  const Trace cpu = train_ten_steps(host, net, dtype), cuda = train_ten_steps(context_of(Device::cuda()), net, dtype);
  if (dtype != DType::f32) {
    for (size_t step = 0; step < 10; ++step)
      EXPECT_NEAR(cuda.losses[step], cpu.losses[step], 3e-2 * static_cast<double>(1 + step) * cpu.losses[step])
          << "step " << step;
    return;
  }
  constexpr double kRounding = 2e-6, kTimes = 10;
  const Trace nudged = train_ten_steps(host, net, dtype, kRounding);
  double apart = kRounding;
  for (size_t step = 0; step < 10; ++step) {
    apart = std::max(apart, std::fabs(nudged.losses[step] - cpu.losses[step]));
    EXPECT_NEAR(cuda.losses[step], cpu.losses[step], kTimes * apart) << "step " << step;
  }
  for (size_t i = 0; i < cpu.weights.size(); ++i) {
    const double size = distance(cpu.weights[i], std::vector<float>(cpu.weights[i].size()));
    EXPECT_LE(distance(cuda.weights[i], cpu.weights[i]),
              kTimes * (distance(nudged.weights[i], cpu.weights[i]) + kRounding * size + kRounding))
        << "parameter " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Gpu, Parity,
                         testing::Combine(testing::Values(Net{"lenet", 28, 1, 16}, Net{"resnet20", 32, 3, 16},
                                                          Net{"resnet18", 64, 3, 8}, Net{"mobilenet_v2", 64, 3, 8}),
                                          testing::Values(DType::f32, DType::bf16, DType::f16)));

}  // namespace
}  // namespace convolt::test
