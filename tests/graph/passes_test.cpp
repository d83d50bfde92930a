// Each pass alone off changes no bit where it moves no rounding, and leaves its mark where it applies.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <set>

#include "convolt/layers.h"
#include "graph/networks.h"
#include "graph/plan_access.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

using reference::NetworkInput;

// Everything a training plan leaves behind after three steps: logits, meters, weights, moments, running statistics.
struct Trace {
  std::vector<std::vector<float>> values;
  double loss = 0;
  friend bool operator==(const Trace&, const Trace&) = default;
};

Trace trained(Context& ctx, const Network& network, DType dtype, const Passes& passes) {
  Graph graph;
  network.build(graph);
  Params params(ctx, graph, 5);
  randomise(params, 8);
  Optimizer sgd(params, {.weight_decay = 1e-3F});
  const NetworkInput input = random_input(graph, 4, 13);
  const DeviceBatch batch(ctx, graph, input);
  Plan plan(graph, params,
            {.batch = 4,
             .dtype = dtype,
             .training = true,
             .optimizer = &sgd,
             .passes = passes,
             .kernels = {.deterministic = true}});
  if (dtype == DType::f16)
    plan.set_status({.loss_scale = 256});  // the initial 65536 overflows here, and steps would be skipped
  Trace trace;
  for (int64_t step = 0; step < 3; ++step) plan.run(batch.step_input(step, 0.01F));
  trace.values.push_back(plan.logits());
  trace.loss = plan.meters().values.loss;
  EXPECT_EQ(plan.status().skipped_steps, 0);
  for (size_t i = 0; i < params.specs().size(); ++i) {
    trace.values.push_back(params.values(static_cast<int>(i)));
    if (params.specs()[i].trainable) trace.values.push_back(sgd.moment_values(0, static_cast<int>(i)));
  }
  return trace;
}

Trace trained_with_separate_allocations(Context& ctx, const Network& network, DType dtype) {
  setenv("CONVOLT_SLAB", "separate", 1);
  Trace trace = trained(ctx, network, dtype, {});
  unsetenv("CONVOLT_SLAB");
  return trace;
}

// Within what one rounding of each sum may become in three steps; a gradient left out is 1000 times as much.
void expect_close(const Trace& a, const Trace& b, const std::string& name) {
  EXPECT_NEAR(a.loss, b.loss, 1e-4 * std::fabs(b.loss)) << name;
  ASSERT_EQ(a.values.size(), b.values.size()) << name;
  for (size_t i = 0; i < a.values.size(); ++i) {
    const std::vector<double> found(a.values[i].begin(), a.values[i].end()),
        expected(b.values[i].begin(), b.values[i].end());
    double largest = 0;
    for (const double v : expected) largest = std::max(largest, std::fabs(v));
    expect_near(found, expected, 1e-3 * largest + 1e-7, 0, name + ", value " + std::to_string(i));
  }
}

class PassTest : public OpTest {};

TEST_P(PassTest, NoBitOfTrainingDependsOnWhatMovesNoRounding) {
  // In 16 bits a fused sweep does not round what lies inside it; nvcc contracts products and sums of a sweep to FMA.
  const bool fuse_is_exact = dtype() == DType::f32 && !ctx().device().is_cuda();
  // A library may add a bias before the products of a convolution, as oneDNN does on AVX2.
  const std::set<std::string> biased{"lenet", "mixed", "activations", "excited", "normed", "enlarged", "convnext"};
  for (const Network& network : networks()) {
    const Trace all = trained(ctx(), network, dtype(), {});
    EXPECT_EQ(all, trained(ctx(), network, dtype(), {})) << network.name << ": the same again";
    EXPECT_EQ(all, trained(ctx(), network, dtype(), {.in_place = false})) << network.name << ": in-place off";
    EXPECT_EQ(all, trained(ctx(), network, dtype(), {.dead_code = false})) << network.name << ": dead code off";
    if (fuse_is_exact) {
      const Trace plain = trained(ctx(), network, dtype(), {.fuse = false});
      if (biased.contains(network.name))
        expect_close(all, plain, network.name);
      else
        EXPECT_EQ(all, plain) << network.name << ": fuse off";
    }
    EXPECT_EQ(all, trained_with_separate_allocations(ctx(), network, dtype()))
        << network.name << ": CONVOLT_SLAB=separate";
  }
}

INSTANTIATE_OP_TEST(PassTest);

// What each pass does to the small resnet and mobilenet, counted by hand.
class PassLog : public testing::Test {
protected:
  std::unique_ptr<Plan> plan(const char* name, bool training, const Passes& passes = {}) {
    graph_ = std::make_unique<Graph>();
    network(name).build(*graph_);
    params_ = std::make_unique<Params>(context_of(Device::cpu()), *graph_, 1);
    return std::make_unique<Plan>(*graph_, *params_, PlanOptions{.batch = 2, .training = training, .passes = passes});
  }
  static int count(Plan& plan, std::string_view op) {
    int n = 0;
    for (const Op& o : PlanAccess::program(plan).step) n += o.def->name == op;
    return n;
  }
  std::unique_ptr<Graph> graph_;
  std::unique_ptr<Params> params_;
};

TEST_F(PassLog, TrainingFusesResidualsAndActivationsIntoBatchNorms) {
  const auto resnet = plan("resnet", true, {.pool = false, .block_end = false});
  EXPECT_EQ(count(*resnet, "bn_apply"), 7);
  EXPECT_EQ(count(*resnet, "activation"), 0);  // stem, a1, a, b1, b2, b
  EXPECT_EQ(count(*resnet, "activation_backward"), 0);
  EXPECT_EQ(count(*resnet, "add"), 2);  // of gradients, behind the stem and behind block a; both forward ones are fused
  const auto plain = plan("resnet", true, {.fuse = false, .pool = false, .block_end = false});
  EXPECT_EQ(count(*plain, "activation"), 6);
  EXPECT_EQ(count(*plain, "add"), 4);
}

TEST_F(PassLog, TrainingFusesBiasesAndActivationsIntoConvolutions) {
  const auto fused = plan("excited", true, {.sweeps = false});
  const auto biases = [&](Plan& p) { return count(p, "add_bias"); };
  const auto plain = plan("excited", true, {.fuse = false});
  EXPECT_EQ(biases(*plain), 3);  // fc1, fc2 and the classifier
  EXPECT_EQ(biases(*fused), 0);
  EXPECT_EQ(count(*fused, "channel_sum"), 3);
  bool into_fc1 = false;
  for (const Op& op : PlanAccess::program(*fused).step)
    into_fc1 |= op.layer == "fc1" && op.note.find("+ bias + relu") != std::string::npos;
  EXPECT_TRUE(into_fc1) << fused->describe();
}

// In training ReLUs of lenet's convolutions work on what the pools leave; behind a batch norm they stay in its sweep.
TEST_F(PassLog, MaxPoolsGoBeforeActivations) {
  const auto lenet = plan("lenet", true);
  const std::vector<Op>& step = PlanAccess::program(*lenet).step;
  int pools = 0;
  for (size_t i = 0; i < step.size(); ++i)
    if (step[i].def == &ops::max_pool) {
      ++pools;
      EXPECT_EQ(step[i].note, "before relu");
      ASSERT_EQ(step[i + 1].def, &ops::activation);
      EXPECT_EQ(step[i + 1].in[0], step[i].out[0]);
    }
  EXPECT_EQ(pools, 2);
  EXPECT_NE(lenet->describe().find("pass fuse: 2 max pools before the activation"), std::string::npos);
  EXPECT_EQ(plan("lenet", false)->describe().find("before relu"), std::string::npos);
  EXPECT_EQ(plan("lenet", true, {.fuse = false})->describe().find("before relu"), std::string::npos);
  EXPECT_EQ(plan("resnet", true)->describe().find("before relu"), std::string::npos);
}

TEST_F(PassLog, ActivationsBehindAResidualFuseInTrainingWhereTheirOutputGivesTheGradient) {
  // Alone stay: gelu and the folding leaky_relu behind residuals, mish behind the latter, and both hardswish.
  const auto training = plan("activations", true, {.sweeps = false});
  EXPECT_EQ(count(*training, "activation"), 5);
  EXPECT_EQ(count(*training, "activation_backward"), 5);
  // mish is still alone, and hardswish, for which a convolution has no epilogue.
  EXPECT_EQ(count(*plan("activations", false, {.fold = false}), "activation"), 3);
}

// What the gradient reads must outlive the activation: y takes the memory of x only where y suffices or none is wanted.
TEST_F(PassLog, AnActivationKeepsItsInputWhereItsGradientNeedsIt) {
  const auto in_place = [&](Activation act, bool training) {
    graph_ = std::make_unique<Graph>();
    const Value x = linear(flatten(graph_->input("image", {1, 1, 3})), 4, {.name = "fc1"});
    graph_->output(linear(activation(x, act), 2, {.name = "fc2"}));
    params_ = std::make_unique<Params>(context_of(Device::cpu()), *graph_, 1);
    Plan plan(*graph_, *params_, PlanOptions{.batch = 2, .training = training, .passes = {.fuse = false}});
    const Op& op = PlanAccess::program(plan).step[PlanAccess::find(plan, "activation")];
    return PlanAccess::tensor(plan, op.in[0]).data == PlanAccess::tensor(plan, op.out[0]).data;
  };
  for (const Activation act : {Activation::silu, Activation::gelu, Activation::hardswish, Activation::mish}) {
    EXPECT_FALSE(in_place(act, true)) << name_of(act);
    EXPECT_TRUE(in_place(act, false)) << name_of(act);
  }
  for (const Activation act : {Activation::relu, Activation::leaky_relu, Activation::sigmoid, Activation::tanh})
    EXPECT_TRUE(in_place(act, true)) << name_of(act);
}

TEST_F(PassLog, EvaluationFoldsBatchNormsIntoConvolutions) {
  const auto mobilenet = plan("mobilenet", false);
  EXPECT_EQ(count(*mobilenet, "bn_apply"), 0);
  EXPECT_EQ(count(*mobilenet, "add_bias"), 0);
  EXPECT_EQ(count(*mobilenet, "activation"), 0);
  EXPECT_EQ(count(*mobilenet, "conv_fprop"), 7);
  const auto plain = plan("mobilenet", false, {.fold = false, .fuse = false});
  EXPECT_EQ(count(*plain, "bn_apply"), 7);
  EXPECT_EQ(count(*plain, "activation"), 5);
}

// Each split and slice is one op with one gradient, however many parts it has; a part that nobody reads costs nothing
// on the way back but zeros.
TEST_F(PassLog, PartsOfAValueShareOneGradient) {
  const auto shuffled = plan("shuffled", true);
  EXPECT_EQ(count(*shuffled, "split"), 4 + 3);   // two splits and two slices, the gradients of three concats
  EXPECT_EQ(count(*shuffled, "concat"), 3 + 4);  // and the other way round
  const auto evaluation = plan("shuffled", false);
  EXPECT_EQ(count(*evaluation, "split"), 4);
  EXPECT_EQ(count(*evaluation, "concat"), 3);
}

// Weights are packed for each step of a training, but once for an evaluation: only there a layer of few rows packs
// them.
TEST_F(PassLog, EvaluationPacksTheWeightsOfFullyConnectedLayers) {
  const auto training = plan("lenet", true), evaluation = plan("lenet", false);
  const auto packs = [](const std::vector<Op>& ops, const char* layer) {
    return std::any_of(ops.begin(), ops.end(),
                       [&](const Op& op) { return op.def == &ops::pack_weights && op.layer == layer; });
  };
  EXPECT_TRUE(packs(PlanAccess::program(*evaluation).prepare, "fc1"));
  for (const Op& op : PlanAccess::program(*training).step)
    if (op.def == &ops::linear_dgrad) {
      EXPECT_EQ(op.kernel->packed_bytes(), 0) << op.layer;
    }
}

TEST_F(PassLog, EvaluationReservesNoIndexForMaxPools) {
  for (const bool training : {true, false}) {
    const auto resnet = plan("resnet", training);
    for (const Op& op : PlanAccess::program(*resnet).step)
      if (op.def == &ops::max_pool) {
        EXPECT_EQ(op.out.size(), training ? 2U : 1U);
      }
  }
}

TEST_F(PassLog, AFrozenBatchNormHasNoStatistics) {
  const auto enlarged = plan("enlarged", true);
  EXPECT_EQ(count(*enlarged, "bn_statistics"), 1);
  EXPECT_EQ(count(*enlarged, "bn_coefficients"), 3);
  const auto evaluation = plan("enlarged", false);
  EXPECT_EQ(count(*evaluation, "bn_coefficients"), 0);  // in `prepare`
  EXPECT_EQ(count(*evaluation, "conv_dgrad"), 2);       // the transposed convolutions
}

TEST_F(PassLog, TheLogSaysWhatWasDone) {
  const auto evaluation = plan("mobilenet", false), training = plan("resnet", true);
  EXPECT_NE(evaluation->describe().find("pass fold: 7 batch norms into convolutions"), std::string::npos);
  EXPECT_NE(evaluation->describe().find("pass fuse: 5 activations into the op before"), std::string::npos);
  EXPECT_NE(training->describe().find("pass fuse: 2 residual additions into batch norms"), std::string::npos);
  EXPECT_NE(training->describe().find("pass fuse: 6 activations into the op before"), std::string::npos);
  EXPECT_NE(training->describe().find("pass in_place: "), std::string::npos);
  EXPECT_EQ(plan("resnet", true, Passes::none())->describe().find("  pass "), std::string::npos);
}

}  // namespace
}  // namespace convolt::test
