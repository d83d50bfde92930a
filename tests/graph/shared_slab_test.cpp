// Plans that lie in one slab and run by turns come to what plans with slabs of their own do.
#include <gtest/gtest.h>

#include "convolt/convolt.h"
#include "core/philox.h"
#include "support/device.h"

namespace convolt::test {
namespace {

constexpr int kPlanBatch = 4, kLarge = 12, kSmall = 8;

struct Net {
  Net() {
    Value x = graph.input("image", {kLarge, kLarge, 3});
    x = relu(batch_norm(conv2d(x, 8, {.padding = 1})));
    x = relu(batch_norm(conv2d(max_pool(x), 16, {.padding = 1})));
    graph.output(linear(global_avg_pool(x), 3));
    params.emplace(context_of(Device::cpu()), graph, 5);
    optimizer.emplace(*params, OptimizerOptions{.momentum = 0.9F});
  }
  PlanOptions options(int side, DType dtype) {
    return {
        .batch = kPlanBatch, .dtype = dtype, .training = true, .height = side, .width = side, .optimizer = &*optimizer};
  }
  Graph graph;
  std::optional<Params> params;
  std::optional<Optimizer> optimizer;
};

void step(Plan& plan, int number) {
  std::vector<float> images(static_cast<size_t>(kPlanBatch * plan.height() * plan.width() * 3));
  for (size_t i = 0; i < images.size(); ++i) images[i] = uniform(philox(3, static_cast<uint64_t>(number), i).v[0]);
  const int32_t labels[kPlanBatch] = {0, 1, 2, number % 3};
  plan.run(images.data(), labels, kPlanBatch, number, 0.05F);
}

struct Outcome {
  std::vector<float> weights, statistics;
  MeterValues meters;
  float loss_scale = 0;
};

// Three steps of the small size, two of the large one, two of the small one.
Outcome trained(DType dtype, bool shared) {
  Net net;
  PlanOptions of_small = net.options(kSmall, dtype);
  Plan large(net.graph, *net.params, net.options(kLarge, dtype));
  if (shared) of_small.in_slab_of = &large;
  Plan small(net.graph, *net.params, of_small);
  EXPECT_EQ(small.slab_bytes() == 0, shared);
  StepStatus status = large.status();
  status.loss_scale *= 0.5F;
  large.set_status(status);
  int number = 0;
  small.take_over(large);
  for (int i = 0; i < 3; ++i) step(small, number++);
  large.take_over(small);
  for (int i = 0; i < 2; ++i) step(large, number++);
  small.take_over(large);
  for (int i = 0; i < 2; ++i) step(small, number++);
  return {net.params->values(0), net.params->values(net.params->find("batch_norm2.running_var")), small.meters().values,
          small.status().loss_scale};
}

TEST(SharedSlab, TrainsToTheSameBits) {
  for (const DType dtype : {DType::f32, DType::f16}) {
    const Outcome apart = trained(dtype, false), shared = trained(dtype, true);
    EXPECT_EQ(shared.weights, apart.weights) << name_of(dtype);
    EXPECT_EQ(shared.statistics, apart.statistics) << name_of(dtype);
    EXPECT_EQ(shared.meters.loss, apart.meters.loss) << name_of(dtype);
    EXPECT_EQ(shared.meters.weight, 7 * kPlanBatch) << "meters go on";
    EXPECT_EQ(shared.loss_scale, dtype == DType::f16 ? 32768 : 0.5F);
  }
}

// Weights that a plan folds when they have changed are folded again in memory that another has used.
TEST(SharedSlab, EvaluationFoldsAgain) {
  Net net;
  Plan large(net.graph, *net.params, {.batch = kPlanBatch, .passes = Passes::none()});  // another layout
  Plan small(net.graph, *net.params, {.batch = kPlanBatch, .height = kSmall, .width = kSmall, .in_slab_of = &large});
  Plan alone(net.graph, *net.params, {.batch = kPlanBatch, .height = kSmall, .width = kSmall});
  EXPECT_EQ(small.slab_bytes(), 0);
  step(alone, 0);
  for (int turn = 0; turn < 2; ++turn) {
    small.take_over(large);
    step(small, 0);
    EXPECT_EQ(small.logits(), alone.logits());
    large.take_over(small);
    step(large, 0);
  }
}

TEST(SharedSlab, APlanRunsOnlyWhenItsTurnHasCome) {
  Net net;
  Plan large(net.graph, *net.params, net.options(kLarge, DType::f32));
  PlanOptions o = net.options(kSmall, DType::f32);
  o.in_slab_of = &large;
  Plan small(net.graph, *net.params, o);
  EXPECT_THROW(step(small, 0), UsageError);
  step(large, 0);
  small.take_over(large);
  step(small, 1);
  EXPECT_THROW(step(large, 2), UsageError);
}

TEST(SharedSlab, APlanThatNeedsMoreHasItsOwn) {
  Net net;
  Plan small(net.graph, *net.params, net.options(kSmall, DType::f32));
  PlanOptions o = net.options(kLarge, DType::f32);
  o.in_slab_of = &small;
  const Plan large(net.graph, *net.params, o);
  EXPECT_EQ(large.slab_bytes(), large.predicted_bytes());
}

TEST(SharedSlab, PlansOfOtherParamsCannotTakeOver) {
  Net one, other;
  Plan a(one.graph, *one.params, {.batch = 1}), b(other.graph, *other.params, {.batch = 1});
  EXPECT_THROW(a.take_over(b), UsageError);
}

}  // namespace
}  // namespace convolt::test
