// Batch norms fused with their neighbours: whole networks with each of those passes alone and with all of them, against
// none, with fusions of convolutions composed where the library has no kernel; and the plans that they make for an
// H200.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "convolt/layers.h"
#include "convolt/models.h"
#include "graph/networks.h"
#include "graph/plan_access.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

// What one step leaves behind: logits, every gradient, every running statistic.
struct StepResult {
  std::vector<std::string> names;
  std::vector<std::vector<double>> values;
};

StepResult step_of(Context& ctx, const Network& network, DType dtype, const Passes& passes) {
  Graph graph;
  network.build(graph);
  Params params(ctx, graph, 5);
  randomise(params, 8);
  const DeviceBatch batch(ctx, graph, random_input(graph, 4, 13));
  Plan plan(graph, params, {.batch = 4, .dtype = dtype, .training = true, .passes = passes, .compose_fusions = true});
  if (dtype == DType::f16) plan.set_status({.loss_scale = 256});
  plan.run(batch.step_input(0));
  StepResult result{{"logits"}, {doubles(plan.logits())}};
  for (size_t i = 0; i < params.specs().size(); ++i) {
    const ParamSpec& spec = params.specs()[i];
    result.names.push_back(spec.name);
    result.values.push_back(
        doubles(spec.trainable ? plan.gradient(static_cast<int>(i)) : params.values(static_cast<int>(i))));
  }
  return result;
}

// Relative to the norm of each tensor, or to a thousandth of the largest one: some gradients are 0 but for rounding.
void expect_close(const StepResult& found, const StepResult& expected, double tolerance, const std::string& what) {
  double largest = 0;
  for (const auto& v : expected.values) largest = std::max(largest, norm(v));
  for (size_t i = 0; i < expected.values.size(); ++i)
    EXPECT_LE(relative_error(found.values[i], expected.values[i], 1e-3 * largest), tolerance)
        << what << ": " << expected.names[i];
}

struct NamedPasses {
  const char* name;
  Passes passes;
};
std::vector<NamedPasses> fusions() {
  Passes none;
  none.statistics = none.prologue = none.dgrad = none.pool = none.block_end = none.sweeps = none.linear = none.stem =
      false;
  std::vector<NamedPasses> all{{"none", none}, {"all", {}}};
  const std::pair<const char*, bool Passes::*> each[] = {
      {"statistics", &Passes::statistics}, {"prologue", &Passes::prologue},
      {"dgrad", &Passes::dgrad},           {"pool", &Passes::pool},
      {"block_end", &Passes::block_end},   {"sweeps", &Passes::sweeps},
      {"linear", &Passes::linear},         {"stem", &Passes::stem}};
  for (const auto& [name, member] : each) {
    all.push_back({name, none});
    all.back().passes.*member = true;
  }
  return all;
}

class FusionTest : public OpTest {};

TEST_P(FusionTest, WholeNetworksAgreeWithAndWithout) {
  // In 16 bits fused sweeps do not round what they do not store; in f32 only plain sums and the stem's round otherwise.
  // On a GPU fused kernels are others, with roundings of their own, by which gradients near 0 pass a relu or not: 0.053
  // was seen of an f16 stem.
  const bool cuda = ctx().device().is_cuda();
  const double tolerance = dtype() == DType::f32 ? 3e-4 : dtype() == DType::bf16 ? 1e-1 : cuda ? 7e-2 : 2e-2;
  const bool exact = dtype() == DType::f32 && !cuda;
  for (const Network& network : networks()) {
    const std::vector<NamedPasses> all = fusions();
    const StepResult plain = step_of(ctx(), network, dtype(), all[0].passes);
    for (size_t i = 1; i < all.size(); ++i) {
      const StepResult fused = step_of(ctx(), network, dtype(), all[i].passes);
      const std::string name = network.name + ", " + all[i].name;
      expect_close(fused, plain, tolerance, name);
      if (exact && !all[i].passes.statistics && !all[i].passes.stem) {
        EXPECT_EQ(fused.values, plain.values) << name;
      }
    }
  }
}

// relu between layers on pixels, behind a vector, and relu6, which cuBLASLt has not.
void perceptron(Graph& g) {
  Value x = g.input("image", {3, 4, 3});
  x = relu(linear(x, 24, {.name = "fc1"}));
  x = relu(linear(x, 9, {.name = "fc2"}));
  x = relu6(linear(flatten(x), 40, {.name = "fc3"}));
  x = relu(linear(x, 130, {.name = "fc4"}));
  g.output(linear(x, 7, {.name = "fc5"}));
}

// In 16 bits a gradient passes or not as the sum before a relu is rounded.
TEST_P(FusionTest, LinearLayersAgreeWithAndWithout) {
  const double tolerance = dtype() == DType::f32 ? 1e-5 : dtype() == DType::f16 ? 1e-2 : 0.25;
  const Network network{"perceptron", perceptron};
  const StepResult plain = step_of(ctx(), network, dtype(), Passes::none());
  for (const auto& [name, passes] : {NamedPasses{"all", {}},
                                     {"all but fuse", {.fuse = false}},
                                     {"all but linear", {.linear = false}},
                                     {"all but sweeps", {.sweeps = false}}})
    expect_close(step_of(ctx(), network, dtype(), passes), plain, tolerance, name);
}

INSTANTIATE_OP_TEST(FusionTest);

class FusionLog : public testing::Test {
protected:
  Plan& plan(const char* name, const Passes& passes = {}, bool compose = true) {
    plan_.reset();
    graph_ = std::make_unique<Graph>();
    network(name).build(*graph_);
    params_ = std::make_unique<Params>(context_of(Device::cpu()), *graph_, 1);
    plan_ = std::make_unique<Plan>(
        *graph_, *params_, PlanOptions{.batch = 2, .training = true, .passes = passes, .compose_fusions = compose});
    return *plan_;
  }
  int count(std::string_view op) {
    int n = 0;
    for (const Op& o : PlanAccess::program(*plan_).step) n += o.def->name == op;
    return n;
  }
  bool says(const std::string& text) { return plan_->describe().find(text) != std::string::npos; }

private:
  std::unique_ptr<Graph> graph_;
  std::unique_ptr<Params> params_;
  std::unique_ptr<Plan> plan_;
};

// stem, a1, a2, b1, b2, b3, b.down: seven batch norms, two blocks, the second with a projection.
TEST_F(FusionLog, AResidualNetworkFusesEverywhere) {
  Plan& made = plan("resnet");
  EXPECT_EQ(count("channel_stats"), 0);
  EXPECT_EQ(count("bn_apply"), 1);  // the ends of the blocks
  EXPECT_EQ(count("bn_apply_mean"), 1);
  EXPECT_EQ(count("global_avg_pool"), 0);
  EXPECT_EQ(count("bn_max_pool"), 1);
  EXPECT_EQ(count("max_pool_backward"), 0);
  EXPECT_EQ(count("bn_backward_reduce"), 0);
  EXPECT_EQ(count("bn_backward_join"), 1);  // of the mean
  EXPECT_EQ(count("bn_backward_pair"), 1);
  EXPECT_EQ(count("bn_finalize"), 5);
  EXPECT_EQ(count("bn_finalize_pair"), 1);
  EXPECT_EQ(count("global_avg_pool_backward"), 0);
  EXPECT_EQ(count("bn_backward_apply"), 4);
  EXPECT_EQ(count("add"), 0);
  EXPECT_TRUE(says("pass statistics: 7 in the epilogues of convolutions\n"));
  EXPECT_TRUE(says("pass prologue: 3 batch norms on load of the convolutions behind them; 2 not: a residual is added"));
  EXPECT_TRUE(says("pass dgrad: 3 gradients of ReLU and batch norm"));
  EXPECT_TRUE(says("pass dgrad: 1 joins of gradients in the epilogues of convolutions; 1 not: not gated by bits"));
  EXPECT_TRUE(says("pass stem: 0 first convolutions over blocks of pixels; 1 not: the pictures are no whole blocks"));
  EXPECT_TRUE(says("pass pool: 1 batch norms and ReLUs into max pools\n"));
  EXPECT_TRUE(says("pass block_end: 2 gradients joined, gated and summed in one sweep\n"));
  EXPECT_TRUE(says("pass block_end: 1 gradients of projections without the zeros between their pixels\n"));
  const Program& program = PlanAccess::program(made);
  const auto projection = std::find_if(program.step.begin(), program.step.end(), [](const Op& op) {
    return op.def->name == "conv_dgrad" && op.layer == "b.down.conv";
  });
  ASSERT_NE(projection, program.step.end());
  EXPECT_EQ(program[projection->out[0]].shape, (Shape{2, 2, 2, 8}));
}

TEST_F(FusionLog, WithoutAKernelOnlyOurOwnSweepsAreFused) {
  plan("resnet", {}, false);
  EXPECT_EQ(count("channel_stats"), 0);
  EXPECT_EQ(count("bn_statistics"), 7);
  EXPECT_TRUE(says("pass statistics: 0 in the epilogues of convolutions; 7 not: no kernel (stem.bn .. b.down.bn)"));
  EXPECT_EQ(count("bn_backward_join"), 2);
  plan("resnet", Passes::none());
  EXPECT_EQ(count("bn_backward_join"), 0);
  EXPECT_EQ(count("max_pool"), 1);
}

// ConvNeXt's block: group norms, and layer norms of channels not in eights, stay as they are.
TEST_F(FusionLog, BranchesEndInOneSweepEachWay) {
  plan("excited");
  EXPECT_EQ(count("branch_end"), 1);
  EXPECT_EQ(count("branch_end_backward"), 2);  // the scale of a vector, dropped behind it, has no addition
  EXPECT_EQ(count("stochastic_depth"), 1);
  EXPECT_EQ(count("scale_channels_backward"), 0);
  EXPECT_TRUE(says("pass sweeps: 1 ends of branches\n"));
  plan("convnext");
  EXPECT_EQ(count("branch_end"), 3);
  EXPECT_EQ(count("branch_end_backward"), 3);
  EXPECT_EQ(count("layer_norm_backward"), 4);
  EXPECT_EQ(count("activation_backward_sum"), 3);
  EXPECT_EQ(count("norm_backward_params"), 0);
  EXPECT_EQ(count("channel_sum"), 0);  // that of the classifier is made with the gradient of its weights
  plan("normed");
  EXPECT_TRUE(says("1 gradients of layer norms with their sums; 5 not: not by pixel, or no kernel for its channels"));
}

// relu of fc1 and fc2 lies between linear layers; behind the last one there is a bias alone.
TEST_F(FusionLog, LinearLayersTakeBiasAndReluIntoTheirProducts) {
  Passes passes;
  for (const bool sweeps : {true, false}) {
    passes.sweeps = sweeps;
    plan("lenet", passes);
    EXPECT_TRUE(says("pass fuse: 2 activations into linear layers\n"));
    EXPECT_TRUE(
        says("pass linear: 2 gradients of relu and bias in the epilogues of linear layers' gradients; 1 not: not "
             "into one relu behind a bias (fc1)\n"));
    EXPECT_TRUE(says("pass linear: 1 gradients of biases in the epilogues of weight gradients\n"));
  }
  passes.linear = false;
  plan("lenet", passes);
  EXPECT_FALSE(says("pass linear"));
  EXPECT_EQ(count("channel_sum"), 5);
  plan("lenet", {}, false);
  EXPECT_TRUE(
      says("pass linear: 0 gradients of relu and bias in the epilogues of linear layers' gradients; 2 not: no "
           "kernel (fc3 .. fc2); 1 not: not into one relu"));
  EXPECT_TRUE(says("pass linear: 0 gradients of biases in the epilogues of weight gradients; 1 not: no kernel (fc3)"));
  plan("convnext");
  EXPECT_TRUE(
      says("pass fuse: 0 activations into linear layers; 3 not: gelu: cuBLASLt has the approximation by tanh "
           "(a.up .. c.up)"));
  plan("activations");
  EXPECT_TRUE(says("pass fuse: 0 activations into linear layers; 1 not: there is no such epilogue (fc1)"));
}

// What is not a plain ReLU behind a batch norm stays as it is and is named.
TEST_F(FusionLog, ReasonsAreGiven) {
  plan("mobilenet");
  EXPECT_TRUE(says("not: its activation is not relu"));
  EXPECT_TRUE(says("not through relu alone"));
}

// The plan of a model's training step on an H200, as inspect shows it; batch 256, pictures of the model's size.
nlohmann::json planned(const char* model, DType dtype, const Passes& passes = {}, const KernelOptions& kernels = {}) {
  const ModelInfo info = find_model(model);
  Graph graph;
  build_model(graph, info, {.classes = info.classes});
  Params params = Params::zeros(context_of(Device::cpu()), graph);
  Optimizer sgd(params);
  AugmentOptions pictures;
  pictures.height = pictures.width = info.size;
  pictures.geometry = AugmentOptions::Geometry::random_resized_crop;
  const PlanOptions options{.batch = 256,
                            .dtype = dtype,
                            .training = true,
                            .optimizer = &sgd,
                            .augment = pictures,
                            .passes = passes,
                            .kernels = kernels};
  return nlohmann::json::parse(PlanOutline(graph, params, options, "h200").describe_json());
}
int64_t number(const nlohmann::json& plan, const char* what) { return plan[what].get<int64_t>(); }

// The contract of the GPU engine's plan, in bytes, launches and memory.
TEST(DescribedDevice, ResNet50MovesWhatTheRooflineAllows) {
  const auto f16 = planned("resnet50", DType::f16), bf16 = planned("resnet50", DType::bf16);
  EXPECT_LE(number(f16, "bytes_per_step"), 70'500'000'000);
  EXPECT_LE(number(f16, "kernels_per_step"), 285);
  EXPECT_LE(number(f16, "peak_bytes"), 10'000'000'000);
  EXPECT_LE(number(bf16, "bytes_per_step"), 78'000'000'000);
  // 3 * 8.178 GFLOP a picture less the stem's dgrad; over blocks of pixels the stem multiplies by zeros too.
  Passes no_stem;
  no_stem.stem = false;
  const double flops = planned("resnet50", DType::f16, no_stem)["flops_per_step"].get<double>() / 256;
  EXPECT_NEAR(flops, 24.3e9, 0.01e9);
  EXPECT_NEAR(f16["flops_per_step"].get<double>() / 256 - flops, 2 * 2 * 112 * 112 * 64 * (4 * 4 * 16 - 7 * 7 * 3), 1);
  double bound = 0;
  for (const auto& op : f16["ops"]) bound += op["time_bound_us"].get<double>();
  EXPECT_NEAR(f16["time_bound_ms"].get<double>(), bound / 1e3, 1e-6);
  EXPECT_GT(bound, f16["bytes_per_step"].get<double>() / 4.3e12 * 1e6);
}

// cuDNN's fused sums are atomic additions, so that a plan that must repeat its bits has sweeps of its own for them.
TEST(DescribedDevice, DeterministicPlansSumInOrder) {
  const auto ops_of = [](bool deterministic) {
    int sweeps = 0;
    const nlohmann::json plan = planned("resnet18", DType::f16, {}, {.deterministic = deterministic});
    for (const auto& op : plan["ops"]) {
      sweeps += op["op"] == "bn_statistics" || op["op"] == "bn_backward_reduce" ? 1 : 0;
      EXPECT_FALSE(deterministic && op["kernel"].get<std::string>().starts_with("cuDNN") &&
                   op["kernel"].get<std::string>().find(" + ") != std::string::npos);
    }
    return sweeps;
  };
  EXPECT_GT(ops_of(true), ops_of(false) + 20);
}

TEST(DescribedDevice, EveryFamilyMovesLessThanItsPlainPlan) {
  for (const char* model :
       {"resnet18", "resnext50_32x4d", "mobilenet_v2", "vgg16_bn", "densenet121", "convnext_tiny"}) {
    const auto fused = planned(model, DType::f16), plain = planned(model, DType::f16, Passes::none());
    EXPECT_GE(plain["bytes_per_step"].get<double>() / fused["bytes_per_step"].get<double>(), 1.3) << model;
    EXPECT_LT(number(fused, "kernels_per_step"), number(plain, "kernels_per_step")) << model;
    EXPECT_LE(number(fused, "peak_bytes"), number(plain, "peak_bytes")) << model;
  }
}

// Each linear layer is one call of cuBLASLt forward and two backward; only dropout before or behind a ReLU stays apart.
TEST(DescribedDevice, LinearLayersAreProductsAlone) {
  const auto ops = [](const char* model, const char* layer) {
    std::vector<std::string> found;
    const nlohmann::json plan = planned(model, DType::f16);
    for (const auto& op : plan["ops"])
      if (op["layer"] == layer) found.push_back(op["op"].get<std::string>());
    return found;
  };
  using Ops = std::vector<std::string>;
  EXPECT_EQ(ops("alexnet", "classifier.6"), (Ops{"linear_fprop", "linear_wgrad", "linear_dgrad"}));
  EXPECT_EQ(ops("alexnet", "classifier.4"), (Ops{"linear_fprop", "linear_wgrad", "linear_dgrad"}));
  EXPECT_EQ(ops("alexnet", "classifier.1"),
            (Ops{"linear_fprop", "activation_backward_sum", "linear_wgrad", "linear_dgrad"}));
  EXPECT_EQ(ops("resnet50", "fc"), (Ops{"linear_fprop", "linear_wgrad", "linear_dgrad"}));
}

TEST(DescribedDevice, OnlyDescribedOnesAreKnown) {
  Graph graph;
  network("resnet").build(graph);
  Params params = Params::zeros(context_of(Device::cpu()), graph);
  EXPECT_THROW(PlanOutline(graph, params, {}, "h2000"), UsageError);
}

}  // namespace
}  // namespace convolt::test
