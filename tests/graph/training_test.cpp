// What a step does to weights, and what happens when something goes wrong in it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>

#include "convolt/layers.h"
#include "graph/networks.h"
#include "graph/plan_access.h"
#include "reference/loss.h"
#include "reference/optimizer.h"

namespace convolt::test {
namespace {

using reference::NetworkInput;
using reference::Values;

class TrainingTest : public testing::Test {
protected:
  TrainingTest() { randomise(params_, 4); }
  StepInput step(int64_t i, float rate = 0.05F) const { return batch_.step_input(i, rate); }
  void plant(const std::string& parameter, float value) {
    std::vector<float> values = params_.values(params_.find(parameter));
    values[values.size() / 2] = value;
    params_.set_values(params_.find(parameter), values);
  }
  static Graph& built(Graph& graph) {
    network("resnet").build(graph);
    return graph;
  }

  Context& context_ = context_of(Device::cpu());
  Graph graph_;
  NetworkInput input_ = random_input(built(graph_), 4, 6);
  DeviceBatch batch_{context_, graph_, input_};
  Params params_{context_, graph_, 3};
};

// Weight decay of norms apart, Nesterov, several steps: against torch's formulas on the interpreter's gradients.
TEST_F(TrainingTest, SgdUpdatesWeightsByItsGroups) {
  const float norm_decay = 0.01F, decay = 0.1F, rate = 0.05F;
  Optimizer sgd(params_, {.momentum = 0.8F,
                          .nesterov = true,
                          .weight_decay = decay,
                          .norm_weight_decay = norm_decay,
                          .groups = {{.pattern = "^fc", .lr_scale = 0.5F}}});
  Plan plan(graph_, params_, {.batch = 4, .training = true, .loss = {.smoothing = 0.1F}, .optimizer = &sgd});
  std::vector<Values> expected = values_of(params_), moments(expected.size());
  for (size_t i = 0; i < moments.size(); ++i) moments[i].resize(expected[i].size());
  for (int64_t i = 0; i < 3; ++i) {
    NetworkInput input = input_;
    input.step = i;
    const auto result = reference::interpret(graph_, expected, input, {.training = true, .smoothing = 0.1});
    expected = result.params;
    for (size_t k = 0; k < expected.size(); ++k) {
      const ParamSpec& spec = graph_.params()[k];
      const bool norm = spec.name.find(".bn.") != std::string::npos;
      const reference::Optimizer by{.rate = double{rate} * (spec.name.starts_with("fc") ? 0.5 : 1),
                                    .momentum = 0.8,
                                    .weight_decay = double{norm ? norm_decay : decay},
                                    .nesterov = true};
      if (spec.trainable) by.step(expected[k], moments[k], moments[k], result.gradients[k], i + 1);
    }
    plan.run(step(i, rate));
  }
  const std::vector<Values> found = values_of(params_);
  for (size_t k = 0; k < found.size(); ++k)
    EXPECT_LT(relative_error(found[k], expected[k]), 1e-4) << graph_.params()[k].name;
  EXPECT_EQ(params_.batches_tracked, 3);
}

TEST_F(TrainingTest, SixteenBitPlansReadTheUpdatedWeights) {
  Optimizer sgd(params_);
  Plan plan(graph_, params_, {.batch = 4, .dtype = DType::bf16, .training = true, .optimizer = &sgd});
  for (int64_t i = 0; i < 3; ++i) plan.run(step(i));
  // The copies that the update refreshed are the rounded masters: of weights, and of biases that products read.
  for (const char* name : {"b1.conv.weight", "fc.weight", "fc.bias"}) {
    const int param = params_.find(name);
    const Tensor copy = params_.copy(param, DType::bf16);
    std::vector<uint16_t> bits(static_cast<size_t>(copy.elements()));
    context_.compute().copy(bits.data(), copy.data, copy.bytes());
    std::vector<float> master(bits.size());
    context_.compute().copy(master.data(), params_.tensor(param).data, params_.tensor(param).bytes());
    context_.compute().synchronize();
    for (size_t i = 0; i < bits.size(); ++i) {
      const uint32_t wide = static_cast<uint32_t>(bits[i]) << 16;
      float value = 0;
      std::memcpy(&value, &wide, sizeof value);
      ASSERT_EQ(static_cast<double>(value), rounded(static_cast<double>(master[i]), DType::bf16)) << name;
    }
  }
}

TEST_F(TrainingTest, TheFirstBadStepIsLatchedAndWeightsStayFromThen) {
  Optimizer sgd(params_);
  Plan plan(graph_, params_, {.batch = 4, .training = true, .optimizer = &sgd});
  plan.run(step(0));
  EXPECT_EQ(plan.meters().first_bad_step, -1);
  plant("fc.weight", std::numeric_limits<float>::quiet_NaN());
  const std::vector<float> before = params_.values(params_.find("stem.conv.weight"));
  for (int64_t i = 7; i < 10; ++i) {
    plan.run(step(i));
    plan.request_meters(i);
  }
  EXPECT_EQ(plan.meters().first_bad_step, 7);
  EXPECT_EQ(plan.poll_meters()->first_bad_step, 7);
  EXPECT_EQ(params_.values(params_.find("stem.conv.weight")), before);
  for (const float v : sgd.moment_values(0, params_.find("stem.conv.weight"))) ASSERT_TRUE(std::isfinite(v));
}

TEST_F(TrainingTest, FindNonFiniteNamesALabelThatIsNoClass) {
  NetworkInput input = input_;
  input.labels[1] = 77;
  input.labels[3] = 99;  // of a row of weight 0
  Plan plan(graph_, params_, {.batch = 4, .training = true});
  EXPECT_EQ(plan.find_non_finite(DeviceBatch(context_, graph_, input).step_input(0)),
            "row 1, whose label is 77 (the network has " + std::to_string(graph_.classes()) + " classes)");
  Plan ignoring(graph_, params_, {.batch = 4, .training = true, .loss = {.ignore_index = 77}});
  EXPECT_EQ(ignoring.find_non_finite(DeviceBatch(context_, graph_, input).step_input(0)), "");
}

TEST_F(TrainingTest, FindNonFiniteNamesTheLayer) {
  Optimizer sgd(params_);
  Plan plan(graph_, params_, {.batch = 4, .training = true, .optimizer = &sgd});
  EXPECT_EQ(plan.find_non_finite(step(0)), "");
  plant("b2.conv.weight", std::numeric_limits<float>::infinity());
  EXPECT_EQ(plan.find_non_finite(step(1)), "layer 'b2.conv' (conv_fprop)");
  plant("a1.bn.weight", std::numeric_limits<float>::quiet_NaN());
  EXPECT_EQ(plan.find_non_finite(step(1)), "layer 'a1.bn' (bn_statistics)");
}

TEST_F(TrainingTest, AnOpThatFailsIsNamedWhenTheQueueIsSynchronised) {
  Plan plan(graph_, params_, {.batch = 4, .training = true});
  plan.run(step(0));
  const std::vector<float> good = plan.logits();
  const size_t i = PlanAccess::find(plan, "conv_fprop", "b2.conv");
  const Launch kept = PlanAccess::launches(plan)[i];
  PlanAccess::launches(plan)[i] = [](Stream) { throw Error("no such luck"); };
  plan.run(step(1));  // returns: the failure is the queue's
  plan.request_meters(1);
  try {
    context_.compute().synchronize();
    FAIL() << "expected an error";
  } catch (const DeviceError& e) {
    EXPECT_THAT(e.what(),
                testing::MatchesRegex(R"(conv_fprop 'b2\.conv' by .+ of \[4, .+\] -> \[4, .+\]: no such luck)"));
  }
  EXPECT_THROW(plan.poll_meters(), DeviceError);  // no numbers of a step that failed
  EXPECT_FALSE(plan.poll_meters().has_value());
  PlanAccess::launches(plan)[i] = kept;
  // Reported once by the queue and once by the step that waits for it; then the plan works again.
  plan.run(step(2));
  EXPECT_THROW(plan.run(step(3)), DeviceError);
  plan.run(step(3));
  EXPECT_EQ(plan.logits().size(), good.size());
}

// f16: a gradient that overflows skips the update and halves the scale; the step after it goes on.
TEST_F(TrainingTest, LossScalingSkipsTheStepThatOverflows) {
  Optimizer sgd(params_);
  Plan plan(graph_, params_, {.batch = 4, .dtype = DType::f16, .training = true, .optimizer = &sgd});
  EXPECT_EQ(plan.status().loss_scale, 65536);
  plan.set_status({.loss_scale = 0x1p24F});  // gradients near 0.01 pass 65504 at this scale
  const int weight = params_.find("b1.conv.weight");
  const std::vector<float> before = params_.values(weight);
  plan.run(step(0));
  StepStatus status = plan.status();
  EXPECT_EQ(status.loss_scale, 0x1p23F);
  EXPECT_EQ(status.skipped_steps, 1);
  EXPECT_EQ(status.skip, 1);
  EXPECT_EQ(status.first_bad_step, -1);
  EXPECT_EQ(params_.values(weight), before);
  plan.set_status({.loss_scale = 128});
  plan.run(step(1));
  status = plan.status();
  EXPECT_EQ(status.loss_scale, 128);
  EXPECT_EQ(status.good_steps, 1);
  EXPECT_EQ(status.skipped_steps, 0);
  EXPECT_NE(params_.values(weight), before);
}

// The update does not depend on the scale, nor does gradient().
TEST_F(TrainingTest, LossScaleCancels) {
  std::vector<std::vector<float>> gradients;
  for (const float scale : {64.F, 512.F}) {
    Plan plan(graph_, params_, {.batch = 4, .dtype = DType::f16, .training = true});
    plan.set_status({.loss_scale = scale});
    plan.run(step(0));
    gradients.push_back(plan.gradient(params_.find("b1.conv.weight")));
  }
  EXPECT_LT(relative_error(doubles(gradients[0]), doubles(gradients[1])), 0.01);
  EXPECT_GT(norm(doubles(gradients[0])), 0);
}

// A network without batch norm: lenet with dropout, whose bits are those of the row in the whole batch.
void build_small(Graph& g) {
  Value x = g.input("image", {12, 12, 3});
  x = max_pool(relu(conv2d(x, 5, {.name = "conv", .padding = 1, .bias = true})));
  g.output(linear(dropout(flatten(x), 0.3F), 4, {.name = "fc"}));
}

// Rows [first, first + rows) of a batch.
NetworkInput rows_of(const NetworkInput& all, int first, int rows) {
  NetworkInput part = all;
  part.batch = rows;
  const size_t picture = all.images.size() / all.labels.size(), begin = static_cast<size_t>(first),
               end = begin + static_cast<size_t>(rows);
  const auto cut = [&](auto& to, const auto& from, size_t each) {
    to.assign(from.begin() + static_cast<std::ptrdiff_t>(begin * each),
              from.begin() + static_cast<std::ptrdiff_t>(end * each));
  };
  cut(part.images, all.images, picture);
  cut(part.labels, all.labels, 1);
  cut(part.weights, all.weights, 1);
  return part;
}

// Three micro-batches of 2, one of them with a row that does not count, are one batch of 6.
void expect_update_of_the_whole_batch(const LossOptions& loss, const NetworkInput& all, const Graph& graph) {
  Context& context = context_of(Device::cpu());
  for (const DType dtype : {DType::f32, DType::f16}) {
    const OptimizerOptions options{
        .kind = OptimizerKind::adamw, .weight_decay = 0.1F, .eps = 1e-3, .clip_norm = 0.1F, .ema_decay = 0.5};
    Params whole(context, graph, 1), parts(context, graph, 1);
    Optimizer of_whole(whole, options), of_parts(parts, options);
    PlanOptions o{.batch = 6, .dtype = dtype, .training = true, .loss = loss, .optimizer = &of_whole};
    Plan one(graph, whole, o);
    o.batch = 2;
    o.optimizer = &of_parts;
    o.accumulate = 3;
    Plan three(graph, parts, o);
    if (dtype == DType::f16)
      for (Plan* plan : {&one, &three}) plan->set_status({.loss_scale = 256});
    const DeviceBatch batch(context, graph, all);
    std::vector<std::unique_ptr<DeviceBatch>> thirds;
    for (const int first : {0, 2, 4})
      thirds.push_back(std::make_unique<DeviceBatch>(context, graph, rows_of(all, first, 2)));
    for (int64_t step = 0; step < 3; ++step) {
      one.run(batch.step_input(step, 0.01F));
      for (const auto& third : thirds) three.run(third->step_input(step, 0.01F));
    }
    EXPECT_EQ(of_parts.update_count(), 3);
    EXPECT_NEAR(three.meters().gradient_norm, one.meters().gradient_norm, 1e-2 * double{one.meters().gradient_norm});
    const double tolerance = dtype == DType::f32 ? 2e-6 : 2e-3;
    for (size_t i = 0; i < whole.specs().size(); ++i) {
      const int k = static_cast<int>(i);
      EXPECT_LT(relative_error(doubles(parts.values(k)), doubles(whole.values(k))), tolerance) << whole.specs()[i].name;
      EXPECT_LT(relative_error(doubles(of_parts.average()->values(k)), doubles(of_whole.average()->values(k))),
                tolerance);
    }
  }
}

TEST(Accumulation, MicroBatchesMakeTheUpdateOfTheWholeBatch) {
  Graph graph;
  build_small(graph);
  NetworkInput all = random_input(graph, 6, 9);
  expect_update_of_the_whole_batch({}, all, graph);
  expect_update_of_the_whole_batch({.class_weights = {0.25F, 5, 1, 2}}, all, graph);
  // Of the first two micro-batches one row counts each, of the last none.
  all.labels = {0, 1, 2, 1, 1, 1};
  expect_update_of_the_whole_batch({.ignore_index = 1}, all, graph);
}

TEST(Accumulation, NeedsAnOptimizer) {
  Graph graph;
  build_small(graph);
  Params params(context_of(Device::cpu()), graph, 1);
  EXPECT_THROW(Plan(graph, params, {.batch = 2, .training = true, .accumulate = 2}), UsageError);
}

// Neither gradient ops nor updates for what is frozen, and nothing flows below it.
TEST_F(TrainingTest, FrozenParametersCostNothing) {
  Optimizer all(params_), some(params_, {.groups = {{.pattern = "^(stem|a)", .frozen = true}}});
  Plan full(graph_, params_, {.batch = 4, .training = true, .optimizer = &all});
  Plan part(graph_, params_, {.batch = 4, .training = true, .optimizer = &some});
  EXPECT_LT(part.flops_per_step(), full.flops_per_step());
  for (const Op& op : PlanAccess::program(part).step) {
    if (!op.layer.starts_with("stem") && !op.layer.starts_with("a1") && !op.layer.starts_with("a2")) continue;
    EXPECT_EQ(std::string(op.def->name).find("grad"), std::string::npos) << op.def->name << " " << op.layer;
    EXPECT_NE(op.def->name, "bn_backward_reduce") << op.layer;
  }
  const std::vector<float> stem = params_.values(params_.find("stem.conv.weight")),
                           head = params_.values(params_.find("fc.weight"));
  part.run(step(0));
  EXPECT_EQ(params_.values(params_.find("stem.conv.weight")), stem);
  EXPECT_NE(params_.values(params_.find("fc.weight")), head);
  EXPECT_THROW(part.gradient(params_.find("stem.conv.weight")), UsageError);
  Optimizer none(params_, {.groups = {{.pattern = ".", .frozen = true}}});
  EXPECT_THROW(Plan(graph_, params_, {.batch = 4, .training = true, .optimizer = &none}), UsageError);
}

// What lies below frozen layers learns as if they were not frozen.
TEST_F(TrainingTest, GradientsPassThroughFrozenLayers) {
  std::vector<std::vector<float>> after;
  for (const bool frozen : {true, false}) {
    Params params(context_, graph_, 3);
    OptimizerOptions options{.momentum = 0};
    if (frozen) options.groups = {{.pattern = "^[ab]", .frozen = true}};
    Optimizer optimizer(params, options);
    Plan plan(graph_, params, {.batch = 4, .training = true, .optimizer = &optimizer});
    const int stem = params.find("stem.conv.weight"), norm = params.find("a1.bn.weight");
    const std::vector<float> of_norm = params.values(norm);
    after.push_back(params.values(stem));
    plan.run(step(0));
    after.push_back(params.values(stem));
    EXPECT_EQ(params.values(norm) == of_norm, frozen);
  }
  EXPECT_EQ(after[0], after[2]);
  EXPECT_NE(after[0], after[1]);
  EXPECT_EQ(after[1], after[3]);
}

TEST_F(TrainingTest, AveragesFollowWeightsAndRunningStatistics) {
  Optimizer optimizer(params_, {.ema_decay = 0.75});
  Plan plan(graph_, params_, {.batch = 4, .training = true, .optimizer = &optimizer});
  std::vector<Values> expected = values_of(params_);
  for (int64_t i = 0; i < 3; ++i) {
    plan.run(step(i));
    const std::vector<Values> now = values_of(params_);
    for (size_t k = 0; k < now.size(); ++k)
      for (size_t e = 0; e < now[k].size(); ++e) expected[k][e] = 0.75 * expected[k][e] + 0.25 * now[k][e];
  }
  const std::vector<Values> found = values_of(*optimizer.average());
  for (size_t k = 0; k < found.size(); ++k)
    EXPECT_LT(relative_error(found[k], expected[k]), 1e-6) << graph_.params()[k].name;
  EXPECT_EQ(optimizer.average()->batches_tracked, 3);
}

TEST_F(TrainingTest, GradientOfWhatHasNoneIsRefused) {
  Plan plan(graph_, params_, {.batch = 4, .training = true});
  EXPECT_THROW(plan.gradient(params_.find("stem.bn.running_mean")), UsageError);
}

// What a plan adds to the kernel: targets and a teacher by pointer, weights of classes in its slab.
TEST(PlanLoss, DenseTargetsClassWeightsAndTeacherReachTheKernel) {
  Context& context = context_of(Device::cpu());
  Graph graph;
  graph.output(linear(flatten(graph.input("image", {1, 1, 3})), 4, {.name = "fc"}));
  Params params(context, graph, 3);
  reference::NetworkInput input = random_input(graph, 2, 5);
  const DeviceBatch batch(context, graph, input);
  const auto targets = random_values(8, 1, 0, 1), teacher = random_values(8, 2);
  const DeviceTensor on_device(context, DType::f32, {2, 4}, targets), taught(context, DType::f32, {2, 4}, teacher);
  const LossOptions loss{.kind = LossKind::binary_cross_entropy,
                         .target = LossOptions::Target::dense,
                         .smoothing = 0.1F,
                         .class_weights = {1, 2, 0.5F, 3},
                         .positive_weights = {3, 1, 2, 0.5F},
                         .distill_alpha = 0.25F,
                         .temperature = 2};
  StepInput step = batch.step_input(0);
  step.targets = on_device.as<float>();
  step.teacher = taught.as<float>();
  for (const bool training : {true, false}) {
    Plan plan(graph, params, {.batch = 2, .training = training, .loss = loss, .expose_logits = true});
    plan.run(step);
    const std::vector<float> logits = plan.logits();
    const LossOptions plain{.kind = loss.kind, .target = loss.target};  // evaluation measures the kind itself
    const reference::LossCase c{.options = training ? loss : plain,
                                .classes = 4,
                                .weights = input.weights,
                                .labels = input.labels,
                                .targets = on_device.values(),
                                .teacher = taught.values()};
    const MeterValues m = plan.meters().values;
    EXPECT_NEAR(m.loss / m.weight, reference::loss(c, doubles(logits)), 1e-6) << training;
    std::vector<float> exposed(8);
    context.compute().copy(exposed.data(), plan.device_logits(), 32);
    context.compute().synchronize();
    EXPECT_EQ(exposed, logits);
    const int32_t labels[2] = {};
    EXPECT_THROW(plan.run(std::vector<float>(6).data(), labels, 2), UsageError);
  }
  EXPECT_THROW(Plan(graph, params, {.batch = 2}).device_logits(), UsageError);
}

TEST(PlanLoss, OptionsThatDoNotFitAreErrors) {
  Graph graph;
  graph.output(linear(flatten(graph.input("image", {1, 1, 3})), 4, {.name = "fc"}));
  Params params(context_of(Device::cpu()), graph, 3);
  const LossOptions wrong[] = {{.class_weights = {1, 2}},
                               {.class_weights = {1, 2, 3, -1}},
                               {.positive_weights = {1, 1, 1, 1}},
                               {.kind = LossKind::mean_squared_error, .class_weights = {1, 1, 1, 1}},
                               {.kind = LossKind::mean_squared_error, .smoothing = 0.1F},
                               {.smoothing = 1.5F},
                               {.target = LossOptions::Target::dense, .ignore_index = 0},
                               {.focal_gamma = -1},
                               {.distill_alpha = 2},
                               {.temperature = 0}};
  for (const LossOptions& loss : wrong)
    EXPECT_THROW(Plan(graph, params, {.batch = 2, .training = true, .loss = loss}), UsageError) << &loss - wrong;
}

}  // namespace
}  // namespace convolt::test
