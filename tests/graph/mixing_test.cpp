// A plan that mixes computes what another does with pictures and targets that were mixed before.
#include <gtest/gtest.h>

#include "convolt/layers.h"
#include "graph/networks.h"
#include "graph/plan_access.h"
#include "kernels/kernel_test.h"
#include "reference/mix.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

constexpr int kBatch = 6;  // of which the last row has no weight
// Its partner is the first one, so that both are left alone; the middle pair takes boxes from each other.
const std::vector<RowMix> kMixes{{}, {0.3F, {}}, {0.75F, {0, 8, 24, 8}}, {0.9375F, {20, 0, 4, 12}}, {0.8F, {}}, {}};

// Whose first convolution has its pictures laid out in blocks, with a border, where that pass is on.
void build(Graph& g) {
  Value x = g.input("image", {32, 24, 3});
  x = relu(batch_norm(conv2d(x, 8, {.name = "stem", .kernel = 7, .stride = 2, .padding = 3})));
  g.output(linear(global_avg_pool(x), 5));
}

class PlanMixTest : public OpTest {
protected:
  struct Step {
    MeterValues meters;
    std::vector<double> logits;
    std::vector<std::vector<double>> gradients;
  };
  static PlanOptions options(DType dtype, bool blocks) {
    PlanOptions o{
        .batch = kBatch, .dtype = dtype, .training = true, .kernels = {.deterministic = true}, .compose_fusions = true};
    o.loss.smoothing = 0.1F;
    o.passes.stem = blocks;
    return o;
  }
  Step run(const PlanOptions& o, const reference::NetworkInput& in, const std::vector<RowMix>* mixes,
           const std::vector<double>& targets) const {
    Graph graph;
    build(graph);
    Params params(ctx(), graph, 5);
    randomise(params, 8);
    Plan plan(graph, params, o);
    EXPECT_EQ(plan.describe().find("pass stem: 1 first") != std::string::npos, o.passes.stem);
    if (dtype() == DType::f16) plan.set_status({.loss_scale = 256});
    const DeviceArray<RowMix> device_mixes(ctx(), mixes != nullptr ? *mixes : std::vector<RowMix>(1));
    const DeviceTensor device_targets(ctx(), DType::f32, {kBatch, 5}, targets);
    const DeviceBatch batch(ctx(), graph, in);
    StepInput input = batch.step_input(0);
    if (mixes != nullptr) input.mixes = device_mixes.get();
    input.targets = device_targets.as<float>();
    plan.run(input);
    Step step{plan.meters().values, doubles(plan.logits()), {}};
    for (size_t i = 0; i < params.specs().size(); ++i)
      if (params.specs()[i].trainable) step.gradients.push_back(doubles(plan.gradient(static_cast<int>(i))));
    return step;
  }
  static void expect_same(const Step& found, const Step& expected, double tolerance) {
    EXPECT_LE(relative_error(found.logits, expected.logits), tolerance);
    EXPECT_NEAR(found.meters.loss, expected.meters.loss, tolerance * expected.meters.loss);
    EXPECT_EQ(found.meters.weight, expected.meters.weight);
    for (size_t i = 0; i < expected.gradients.size(); ++i)
      EXPECT_LE(relative_error(found.gradients[i], expected.gradients[i]), tolerance) << i;
  }
};

TEST_P(PlanMixTest, IsAStepOnMixedPicturesAndTargets) {
  Graph graph;
  build(graph);
  reference::NetworkInput plain = random_input(graph, kBatch, 13);
  for (double& v : plain.images) v = rounded(v, dtype());
  reference::NetworkInput mixed = plain;
  mixed.images = reference::mixed(plain.images, {32, 24, 3}, kMixes);
  const std::vector<double> targets =
      reference::mixed_targets({plain.labels.begin(), plain.labels.end()}, 5, 0, kMixes);
  const double tolerance = dtype() == DType::f32 ? 1e-5 : dtype() == DType::f16 ? 1e-2 : 5e-2;
  for (const bool blocks : {false, true}) {
    PlanOptions dense = options(dtype(), blocks), mixing = dense;
    dense.loss.target = LossOptions::Target::dense;
    mixing.mixing = true;
    const Step expected = run(dense, mixed, nullptr, targets);
    expect_same(run(mixing, plain, &kMixes, targets), expected, tolerance);
    // And it matters.
    EXPECT_GT(relative_error(run(dense, plain, nullptr, targets).logits, expected.logits), 2 * tolerance);
  }
}

// Without mixes, or compiled without mixing, nothing is mixed, whatever the input says.
TEST_P(PlanMixTest, AsksForBoth) {
  Graph graph;
  build(graph);
  const reference::NetworkInput in = random_input(graph, kBatch, 13);
  PlanOptions o = options(dtype(), true);
  const std::vector<double> none(kBatch * 5);
  const Step plain = run(o, in, nullptr, none), ignored = run(o, in, &kMixes, none);
  EXPECT_EQ(ignored.logits, plain.logits);
  EXPECT_EQ(ignored.gradients, plain.gradients);
  o.mixing = true;
  const Step unmixed = run(o, in, nullptr, none);
  EXPECT_EQ(unmixed.logits, plain.logits);
  expect_same(unmixed, plain, dtype() == DType::f32 ? 1e-5 : 5 * epsilon(dtype()));
}

INSTANTIATE_OP_TEST(PlanMixTest);

TEST(PlanMixing, CountsOneLaunchThatReadsAndWritesThePictures) {
  Graph graph;
  build(graph);
  Params params(context_of(Device::cpu()), graph, 5);
  PlanOptions o{.batch = kBatch, .training = true};
  const Plan without(graph, params, o);
  o.mixing = true;
  Plan with(graph, params, o);
  EXPECT_EQ(with.kernels_per_step(), without.kernels_per_step() + 1);
  EXPECT_EQ(with.bytes_per_step(), without.bytes_per_step() + 2 * int64_t{kBatch} * 32 * 24 * 3 * 4);
  EXPECT_EQ(with.slab_bytes(), without.slab_bytes());
  EXPECT_EQ(PlanAccess::find(with, "mix"), PlanAccess::find(with, "load_images") + 1);
}

TEST(PlanMixing, LossesThatCannotTakeItAreRefused) {
  Graph graph;
  build(graph);
  Params params(context_of(Device::cpu()), graph, 5);
  for (const LossOptions& loss : {LossOptions{.target = LossOptions::Target::dense}, LossOptions{.ignore_index = 3},
                                  LossOptions{.custom = [](const LossBatch&) {}}})
    EXPECT_THROW(Plan(graph, params, {.batch = 2, .training = true, .loss = loss, .mixing = true}), UsageError);
}

}  // namespace
}  // namespace convolt::test
