// First convolutions over blocks of pixels compute what they computed over pixels.
#include <gtest/gtest.h>

#include "convolt/layers.h"
#include "graph/networks.h"
#include "graph/plan_access.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

struct Stem {
  int kernel, stride;
  Padding padding;
  int height, width, channels;
};
// As ResNet, MobileNet, CIFAR's and ConvNeXt begin; of grey pictures; with a window that begins at the picture's edge,
// an even one, and one that is no square's.
const Stem kStems[] = {{7, 2, 3, 32, 24, 3}, {3, 2, 1, 16, 20, 3}, {3, 1, 1, 12, 9, 3},  {4, 4, 0, 16, 24, 3},
                       {5, 2, 2, 14, 14, 1}, {4, 2, 0, 12, 12, 3}, {6, 2, 2, 16, 16, 3}, {2, 1, 0, 9, 9, 3}};

void build(Graph& g, const Stem& stem) {
  Value x = g.input("image", {stem.height, stem.width, stem.channels});
  x = conv2d(x, 8, {.name = "stem", .kernel = stem.kernel, .stride = stem.stride, .padding = stem.padding});
  x = relu(batch_norm(x));
  g.output(linear(global_avg_pool(x), 3));
}

class StemTest : public OpTest {
protected:
  struct Step {
    std::vector<double> logits, gradient;
    bool applied = false;
  };
  Step run(const Stem& stem, bool on, bool training) const {
    Graph graph;
    build(graph, stem);
    Params params(ctx(), graph, 5);
    randomise(params, 8);
    PlanOptions o{.batch = 4, .dtype = dtype(), .training = training, .compose_fusions = true};
    o.passes.stem = on;
    Plan plan(graph, params, o);
    if (dtype() == DType::f16 && training) plan.set_status({.loss_scale = 256});
    const DeviceBatch batch(ctx(), graph, random_input(graph, 4, 13));
    plan.run(batch.step_input(0));
    Step step{doubles(plan.logits()), {}, plan.describe().find("pass stem: 1 first") != std::string::npos};
    if (training) step.gradient = doubles(plan.gradient(params.find("stem.weight")));
    return step;
  }
};

TEST_P(StemTest, AgreesWithTheConvolutionOverPixels) {
  const double tolerance = dtype() == DType::f32 ? 1e-5 : dtype() == DType::f16 ? 1e-2 : 5e-2;
  for (const Stem& stem : kStems)
    for (const bool training : {true, false}) {
      const Step off = run(stem, false, training), on = run(stem, true, training);
      const std::string what = "kernel " + std::to_string(stem.kernel) + ", stride " + std::to_string(stem.stride);
      EXPECT_FALSE(off.applied) << what;
      EXPECT_TRUE(on.applied) << what;
      EXPECT_LE(relative_error(on.logits, off.logits), tolerance) << what;
      if (training) {
        EXPECT_LE(relative_error(on.gradient, off.gradient), tolerance) << what;
      }
    }
}

TEST_P(StemTest, WhatDoesNotFitIsLeftAndSaid) {
  const std::pair<Stem, const char*> cases[] = {{{3, 3, 1, 12, 12, 3}, "its stride is not 1, 2 or 4"},
                                                {{3, 2, 1, 15, 16, 3}, "the pictures are no whole blocks"}};
  for (const auto& [stem, why] : cases) {
    Graph graph;
    build(graph, stem);
    Params params(ctx(), graph, 5);
    const Plan plan(graph, params, {.batch = 2, .dtype = dtype(), .training = true, .compose_fusions = true});
    EXPECT_NE(plan.describe().find(why), std::string::npos) << why;
  }
}

INSTANTIATE_OP_TEST(StemTest);

}  // namespace
}  // namespace convolt::test
