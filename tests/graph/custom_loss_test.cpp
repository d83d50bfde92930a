// Losses of the user's own: the step around them is the one around any loss.
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>

#include "convolt/layers.h"
#include "graph/networks.h"

namespace convolt::test {
namespace {

using reference::NetworkInput;
using testing::ElementsAre;
using testing::HasSubstr;

// -log softmax(x)[label], which Convolt knows too.
void cross_entropy(const LossBatch& b) {
  for (int n = 0; n < b.rows; ++n) {
    const float* x = b.logits + n * b.classes;
    double sum = 0;
    for (int k = 0; k < b.classes; ++k) sum += std::exp(static_cast<double>(x[k]));
    b.losses[n] = static_cast<float>(std::log(sum)) - x[b.labels[n]];
    for (int k = 0; k < b.classes && b.gradient != nullptr; ++k)
      b.gradient[n * b.classes + k] =
          static_cast<float>(std::exp(static_cast<double>(x[k])) / sum) - (k == b.labels[n] ? 1.F : 0.F);
  }
}

class CustomLossTest : public testing::Test {
protected:
  CustomLossTest() { network("resnet").build(graph_); }

  // Parameters after three updates.
  std::vector<reference::Values> train(const LossOptions& loss, DType dtype, MeterValues& meters) {
    Params params(context_, graph_, 3);
    randomise(params, 4);
    Optimizer sgd(params, {.weight_decay = 0.01F});
    Plan plan(graph_, params, {.batch = 4, .dtype = dtype, .training = true, .loss = loss, .optimizer = &sgd});
    if (dtype == DType::f16) plan.set_status({.loss_scale = 256});
    const DeviceBatch batch(context_, graph_, random_input(graph_, 4, 6));
    for (int64_t i = 0; i < 3; ++i) plan.run(batch.step_input(i, 0.02F));
    meters = plan.meters().values;
    EXPECT_EQ(plan.status().skipped_steps, 0);
    return values_of(params);
  }

  Context& context_ = context_of(Device::cpu());
  Graph graph_;
};

TEST_F(CustomLossTest, CrossEntropyByHandTrainsAsConvolts) {
  for (const auto& [dtype, tolerance] : {std::pair{DType::f32, 1e-6}, {DType::bf16, 2e-3}, {DType::f16, 5e-4}}) {
    MeterValues own, known;
    const auto expected = train({}, dtype, known), found = train({.custom = cross_entropy}, dtype, own);
    for (size_t i = 0; i < found.size(); ++i)
      EXPECT_LT(relative_error(found[i], expected[i]), tolerance) << graph_.params()[i].name << name_of(dtype);
    EXPECT_NEAR(own.loss, known.loss, 10 * tolerance * known.loss);
    EXPECT_EQ(own.weight, known.weight);
    EXPECT_EQ(own.top1, known.top1);
  }
}

// A plan of three rows on a fixed input; the second is ignored and the third is padding.
struct Seen {
  std::vector<int32_t> labels;
  std::vector<float> weights;
  bool gradient = false;
  int calls = 0;
  LossOptions loss() {
    return {.ignore_index = 255, .custom = [this](const LossBatch& b) {
              labels.assign(b.labels, b.labels + b.rows);
              weights.assign(b.weights, b.weights + b.rows);
              gradient = b.gradient != nullptr;
              std::fill_n(b.losses, b.rows, 2.F);
              ++calls;
            }};
  }
};

TEST_F(CustomLossTest, RowsThatDoNotCountHaveNoLabel) {
  Seen seen;
  Graph graph;
  network("lenet").build(graph);  // without batch norms, which would see the third row
  Params params(context_, graph, 3);
  const NetworkInput input = random_input(graph, 4, 6);
  const std::vector<float> images(input.images.begin(), input.images.end());
  Plan training(graph, params, {.batch = 3, .training = true, .loss = seen.loss()});
  training.run(images.data(), std::vector<int32_t>{1, 255}.data(), 2);
  EXPECT_THAT(seen.labels, ElementsAre(1, 0, 0));
  EXPECT_THAT(seen.weights, ElementsAre(1, 0, 0));
  EXPECT_TRUE(seen.gradient);
  const MeterValues m = training.meters().values;
  EXPECT_EQ(m.loss, 2);
  EXPECT_EQ(m.weight, 1);

  Plan evaluation(graph, params, {.batch = 3, .loss = seen.loss()});
  evaluation.run(images.data(), std::vector<int32_t>{1, 0, 2}.data(), 3);
  EXPECT_FALSE(seen.gradient);
  EXPECT_EQ(evaluation.meters().values.loss, 6);
  evaluation.run(images.data(), nullptr, 3);
  EXPECT_EQ(seen.calls, 2) << "without labels there is nothing to measure";
}

TEST_F(CustomLossTest, ErrorsSurfaceAtTheNextSynchronisation) {
  Params params(context_, graph_, 3);
  NetworkInput input = random_input(graph_, 1, 6);
  bool fails = true;
  Plan plan(graph_, params, {.batch = 1, .training = true, .loss = {.custom = [&](const LossBatch&) {
                                                             if (fails) throw std::runtime_error("no margin");
                                                           }}});
  const auto message_of = [&](int32_t label) -> std::string {
    try {
      input.labels[0] = label;
      const DeviceBatch batch(context_, graph_, input);
      plan.run(batch.step_input(0));
      plan.meters();
    } catch (const DeviceError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(message_of(0), "custom_loss 'loss' of [1, 7] -> [1] [1, 7]: no margin");
  EXPECT_THAT(message_of(99), HasSubstr("row 0 has the label 99: expected 0 to "));
  fails = false;
  for (int i = 0; i < 3; ++i) message_of(0);  // each failed step is told once more, two steps later
  EXPECT_EQ(message_of(0), "") << "failed steps leave a plan that works";
}

TEST_F(CustomLossTest, OptionsOfOtherLossesAreRefused) {
  Params params(context_, graph_, 3);
  for (LossOptions loss : {LossOptions{.smoothing = 0.1F}, LossOptions{.distill_alpha = 0.5F}}) {
    loss.custom = cross_entropy;
    EXPECT_THROW(Plan(graph_, params, {.batch = 1, .training = true, .loss = loss}), UsageError);
  }
}

}  // namespace
}  // namespace convolt::test
