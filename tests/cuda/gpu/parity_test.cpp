// Ten training steps of whole networks on the CPU and on the device: the same losses, and weights that stay close.
#include <gtest/gtest.h>

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

Trace train_ten_steps(Context& context, const Net& net, DType dtype) {
  Graph graph;
  build_model(graph, net.model, {.classes = 10, .height = net.size, .width = net.size, .channels = net.channels});
  Params params(context, graph, 1);
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
    plan.run(images.data(), labels.data(), net.batch, step, 0.01F);
    trace.losses.push_back(plan.meters().values.loss / net.batch);
  }
  for (size_t i = 0; i < params.specs().size(); ++i) trace.weights.push_back(params.values(static_cast<int>(i)));
  return trace;
}

class Parity : public testing::TestWithParam<std::tuple<Net, DType>> {};

TEST_P(Parity, TenTrainingSteps) {
  if (cuda_device_count() == 0) GTEST_SKIP() << cuda_unavailable_reason();
  const auto& [net, dtype] = GetParam();
  const Trace cpu = train_ten_steps(context_of(Device::cpu()), net, dtype),
              cuda = train_ten_steps(context_of(Device::cuda()), net, dtype);
  // Rounding differences grow from step to step; the first losses must agree to the dtype's precision.
  const double unit = dtype == DType::f32 ? 1e-4 : 3e-2;
  for (size_t step = 0; step < 10; ++step)
    EXPECT_NEAR(cuda.losses[step], cpu.losses[step],
                unit * static_cast<double>(1 + step) * std::max(1.0, cpu.losses[step]))
        << "step " << step;
  if (dtype != DType::f32) return;
  for (size_t i = 0; i < cpu.weights.size(); ++i) {
    double difference = 0, size = 0;
    for (size_t k = 0; k < cpu.weights[i].size(); ++k) {
      difference += std::pow(static_cast<double>(cuda.weights[i][k] - cpu.weights[i][k]), 2);
      size += std::pow(static_cast<double>(cpu.weights[i][k]), 2);
    }
    EXPECT_LE(std::sqrt(difference), 1e-2 * std::sqrt(size) + 1e-4) << "parameter " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Gpu, Parity,
                         testing::Combine(testing::Values(Net{"lenet", 28, 1, 16}, Net{"resnet20", 32, 3, 16},
                                                          Net{"resnet18", 64, 3, 8}, Net{"mobilenet_v2", 64, 3, 8}),
                                          testing::Values(DType::f32, DType::bf16, DType::f16)));

}  // namespace
}  // namespace convolt::test
