// Whole plans against the interpreter of the graph in double, and the interpreter against central differences.
#include "reference/interpreter.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "convolt/layers.h"
#include "graph/networks.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

using reference::NetworkInput;
using reference::NetworkResult;
using reference::Values;

// Everything differentiable in one net that is small enough to difference every parameter.
void tiny(Graph& g) {
  Value x = g.input("image", {6, 5, 3});
  x = relu6(batch_norm(conv2d(x, 4, {.name = "c1", .stride = 2, .padding = 1, .bias = true}), {.name = "bn1"}));
  Value y = max_pool(x, {.kernel = 2, .stride = 1, .padding = 1});
  y = avg_pool(conv2d(y, 4, {.name = "c2", .kernel = 3, .padding = 2, .dilation = 2, .groups = 2}),
               {.kernel = 2, .stride = 1});
  x = relu(add(y, x));
  x = dropout(slice_pad(x, 2, 6, 1), 0.3F);
  Value pooled = global_avg_pool(x);
  x = silu(linear(flatten(x), 6, {.name = "fc1"}));
  g.output(linear(tanh(add(x, pooled)), 3, {.name = "fc2"}));
}

void tiny_channels(Graph& g) {
  Value x = g.input("image", {5, 4, 3});
  x = conv2d(x, 6, {.name = "c1", .kernel = 2});
  const std::vector<Value> parts = split(x, {3, 1, 2});
  Value y = channel_shuffle(concat({parts[2], slice_channels(x, 1, 4), parts[0]}), 3);
  y = stochastic_depth(layer_scale(y, {.name = "scale", .init = 0.5F}), 0.3F);
  y = mul(y, adaptive_avg_pool(y, 1));
  y = mul(y, global_avg_pool(mul(y, y)));
  g.output(linear(flatten(adaptive_avg_pool(y, {3, 2})), 3, {.name = "fc"}));
}

void tiny_norms(Graph& g) {
  Value x = g.input("image", {4, 3, 3});
  x = layer_norm(conv2d(x, 4, {.name = "c1", .kernel = 2}), {.name = "ln", .eps = 1e-3F});
  x = group_norm(linear(x, 6, {.name = "pixels"}), {.name = "gn", .groups = 2});
  x = group_norm(add(x, mul(x, x)), {.name = "gn1", .groups = 6, .eps = 1e-2F});
  g.output(linear(layer_norm(flatten(x), {.name = "vector"}), 3, {.name = "fc"}));
}

void tiny_sizes(Graph& g) {
  Value x = pad(g.input("image", {4, 3, 3}), {1, 0, 0, 1}, 0.5F);
  x = batch_norm(conv2d(x, 4, {.name = "c1", .kernel = 2, .stride = 2}), {.name = "bn", .frozen = true});
  x = relu(conv_transpose2d(x, 6, {.name = "up", .kernel = 2, .groups = 2, .bias = true}));
  x = add(upsample(x, {3, 5}, Upsampling::bilinear), upsample(x, {3, 5}));
  x = avg_pool(x, {.padding = {1, 0}, .ceil_mode = true, .count_include_pad = false});
  g.output(linear(flatten(max_pool(x, {.stride = 1, .ceil_mode = true})), 3, {.name = "fc"}));
}

class InterpreterGradients : public testing::TestWithParam<void (*)(Graph&)> {};

TEST_P(InterpreterGradients, AreTheCentralDifferencesOfItsLoss) {
  Graph graph;
  GetParam()(graph);
  Params params(context_of(Device::cpu()), graph, 4);
  randomise(params, 9);
  std::vector<Values> values = values_of(params);
  const NetworkInput input = random_input(graph, 3, 7);
  const reference::InterpreterOptions options{.training = true, .smoothing = 0.1};
  const NetworkResult result = reference::interpret(graph, values, input, options);
  const double h = 1e-6;
  for (size_t i = 0; i < values.size(); ++i) {
    if (!graph.params()[i].trainable) continue;
    Values expected;
    for (double& v : values[i]) {
      const double before = v;
      v = before + h;
      const double above = reference::interpret(graph, values, input, options).loss;
      v = before - h;
      const double below = reference::interpret(graph, values, input, options).loss;
      v = before;
      expected.push_back((above - below) / (2 * h));
    }
    expect_near(result.gradients[i], expected, 2e-8, 1e-5, graph.params()[i].name);
  }
}

INSTANTIATE_TEST_SUITE_P(Interpreter, InterpreterGradients,
                         testing::Values(tiny, tiny_channels, tiny_norms, tiny_sizes));

class NetworkTest : public OpTest {
protected:
  static constexpr float kLossScale = 256;  // the initial 65536 overflows in these small batches
  // What rounding to the dtype does to networks of this depth.
  double tolerance() const { return dtype() == DType::f32 ? 1e-4 : dtype() == DType::bf16 ? 0.06 : 0.01; }
  // A gradient stops at a kink: an element that rounding moves across one shows in 16 bits.
  double gradient_tolerance() const { return dtype() == DType::f32 ? 1e-4 : dtype() == DType::bf16 ? 0.2 : 0.1; }
  // f32: every pass alone off. 16 bits: rounding hides what one pass does.
  std::vector<PassSet> pass_sets() const {
    auto sets = test::pass_sets();
    if (dtype() != DType::f32) sets.resize(2);
    return sets;
  }
  reference::InterpreterOptions interpreter_options(bool training, bool fused) const {
    reference::InterpreterOptions o{.training = training, .smoothing = 0.1, .fused = fused};
    if (dtype() != DType::f32) o.stored = dtype();
    if (dtype() == DType::f16 && training) o.loss_scale = kLossScale;
    return o;
  }
  void expect_close(const Values& found, const Values& expected, const std::string& what) const {
    EXPECT_LT(relative_error(found, expected), tolerance()) << what;
  }

  void expect_step(Plan& plan, const Params& params, const NetworkResult& expected, const std::string& what) const {
    expect_close(doubles(plan.logits()), expected.logits, what + ": logits");
    const MeterValues meters = plan.meters().values;
    EXPECT_NEAR(meters.loss / meters.weight, expected.loss, tolerance() * expected.loss) << what;
    if (dtype() == DType::f32) {
      EXPECT_EQ(meters.top1, expected.top1) << what;
      EXPECT_EQ(meters.top5, expected.top5) << what;
    }
    // Running statistics; everything else has stayed.
    const std::vector<Values> values = values_of(params);
    for (size_t i = 0; i < values.size(); ++i)
      expect_close(values[i], expected.params[i], what + ": " + params.specs()[i].name);
    if (plan.options().training) expect_gradients(plan, params, expected, what);
  }
  void expect_gradients(Plan& plan, const Params& params, const NetworkResult& expected,
                        const std::string& what) const {
    double largest = 0;  // a bias before a batch norm has gradient 0: what is found there is noise of the others' size
    for (const Values& g : expected.gradients) largest = std::max(largest, norm(g));
    for (size_t i = 0; i < expected.gradients.size(); ++i)
      if (params.specs()[i].trainable) {
        EXPECT_LT(relative_error(doubles(plan.gradient(static_cast<int>(i))), expected.gradients[i], 1e-2 * largest),
                  gradient_tolerance())
            << what << ": gradient of " << params.specs()[i].name;
      }
  }

  // One step of a plan of its own Params against the interpreter, for each network and set of passes.
  void expect_all_networks(bool training, int batch, int larger) {
    for (const Network& network : networks()) {
      Graph graph;
      network.build(graph);
      const bool tied = network.name == "lenet" || network.name == "mixed";
      const Shape& picture = graph.layers()[0].shape;
      const int grow = tied ? 0 : larger;
      const NetworkInput input =
          random_input(graph, batch, 11, static_cast<int>(picture[0]) + grow, static_cast<int>(picture[1]) + grow);
      const DeviceBatch on_device(ctx(), graph, input);
      for (const PassSet& set : pass_sets()) {
        Params params(ctx(), graph, 21);
        randomise(params, 31, dtype() == DType::f32 ? 4 : 1.5);  // 4: past the kink of relu6
        const NetworkResult expected =
            reference::interpret(graph, values_of(params), input, interpreter_options(training, set.passes.fuse));
        Plan plan(graph, params,
                  {.batch = batch,
                   .dtype = dtype(),
                   .training = training,
                   .height = input.height,
                   .width = input.width,
                   .loss = {.smoothing = 0.1F},
                   .passes = set.passes});
        if (training && dtype() == DType::f16) plan.set_status({.loss_scale = kLossScale});
        plan.run(on_device.step_input(input.step));
        expect_step(plan, params, expected, network.name + ", passes " + set.name);
      }
    }
  }
};

TEST_P(NetworkTest, TrainingStepsAgreeWithTheInterpreter) { expect_all_networks(true, 4, 0); }
TEST_P(NetworkTest, EvaluationAgreesWithTheInterpreter) { expect_all_networks(false, 3, 0); }
TEST_P(NetworkTest, EvaluationOfAnotherPictureSizeAndBatchOne) { expect_all_networks(false, 1, 5); }

INSTANTIATE_OP_TEST(NetworkTest);

}  // namespace
}  // namespace convolt::test
