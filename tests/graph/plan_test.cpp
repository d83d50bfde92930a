// What a plan promises about memory, waiting and what it says of itself.
#include "convolt/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>

#include "conv/autotune.h"
#include "convolt/models.h"
#include "graph/networks.h"
#include "graph/plan_access.h"
#include "support/gate.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

using reference::NetworkInput;

// Nothing is allocated but zeros, which take no memory until they are written.
CompiledPlan compiled(const Graph& graph, const PlanOptions& options) {
  Context& context = context_of(Device::cpu());
  Autotuner tuner(context, context.conv(), options.kernels, options.training);
  return {graph, Params::zeros(context, graph), options, tuner};
}

TEST(MemoryPlanTest, NoTwoTensorsOfAnyModelShareLiveMemory) {
  for (const ModelInfo& model : models()) {
    Graph graph;
    build_model(graph, model.name,
                {.classes = 10, .height = model.size < 64 ? 0 : 64, .width = model.size < 64 ? 0 : 64, .channels = 3});
    for (const bool training : {true, false})
      for (const bool in_place : {true, false}) {
#if defined(__SANITIZE_ADDRESS__)  // ten times slower, and one kind runs all the code
        if (!training || !in_place) continue;
#endif
        const CompiledPlan c = compiled(graph, {.batch = 2, .training = training, .passes = {.in_place = in_place}});
        EXPECT_NO_THROW(verify(c.program, c.memory)) << model.name;
        // The slab is as large as its most crowded moment at best, and little larger in practice.
        const int64_t peak = *std::max_element(c.memory.live_bytes.begin(), c.memory.live_bytes.end());
        EXPECT_GE(c.memory.bytes, peak) << model.name;
        EXPECT_LE(c.memory.bytes, peak * 5 / 4) << model.name;
      }
  }
}

TEST(MemoryPlanTest, APlanWithSharedLiveMemoryIsRefused) {
  Graph graph;
  network("resnet").build(graph);
  const CompiledPlan good = compiled(graph, {.batch = 2, .training = true});
  const auto expect_refused = [&](const MemoryPlan& bad, const std::string& message) {
    try {
      verify(good.program, bad);
      FAIL() << "expected: " << message;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what();
    }
  };
  const Op* conv = nullptr;
  for (const Op& op : good.program.step)
    if (op.def == &ops::conv_fprop && conv == nullptr) conv = &op;
  const auto in = static_cast<size_t>(conv->in[0]), out = static_cast<size_t>(conv->out[0]);

  MemoryPlan bad = good.memory;
  bad.places[out].offset = bad.places[in].offset;
  expect_refused(bad, "share memory while both live");
  bad.places[out].group = bad.places[in].group;
  expect_refused(bad, "overwrites");
  bad = good.memory;
  bad.places[out].offset += 16;
  expect_refused(bad, "misaligned");
  bad = good.memory;
  bad.places[out].offset = bad.bytes;
  expect_refused(bad, "outside the slab");
}

TEST(MemoryPlanTest, InPlaceSavesMemory) {
  Graph graph;
  build_model(graph, "resnet20", {.classes = 10});
  const CompiledPlan on = compiled(graph, {.batch = 8, .training = true}),
                     off = compiled(graph, {.batch = 8, .training = true, .passes = {.in_place = false}});
  EXPECT_GT(on.memory.in_place, 0);
  EXPECT_EQ(off.memory.in_place, 0);
  const auto sum = [](const MemoryPlan& m) {
    return std::accumulate(m.live_bytes.begin(), m.live_bytes.end(), int64_t{0});
  };
  EXPECT_LT(sum(on.memory), sum(off.memory));
  EXPECT_LE(on.memory.bytes, off.memory.bytes);
}

class PlanTest : public OpTest {};

TEST_P(PlanTest, DeviceMemoryIsPredictedToTheByte) {
  const auto context = Context::create(ctx().device());
  Graph graph;
  network("resnet").build(graph);
  const int64_t before = context->counters().device_bytes;
  {
    Params params(*context, graph, 1);
    Optimizer sgd(params);
    const Plan training(graph, params, {.batch = 4, .dtype = dtype(), .training = true, .optimizer = &sgd});
    const Plan evaluation(graph, params, {.batch = 7, .dtype = dtype(), .height = 20, .width = 17});
    EXPECT_EQ(context->counters().device_bytes - before,
              training.predicted_bytes() + evaluation.predicted_bytes() + params.bytes() + sgd.bytes());
    EXPECT_EQ(training.slab_bytes(), training.predicted_bytes());
  }
  EXPECT_EQ(context->counters().device_bytes, before);
  EXPECT_EQ(context->counters().pinned_bytes, 0);
}

TEST_P(PlanTest, TwoPlansOverOneParamsSeeEachOthersUpdates) {
  Graph graph;
  network("mobilenet").build(graph);
  Params params(ctx(), graph, 2);
  Optimizer sgd(params);
  Plan training(graph, params, {.batch = 4, .dtype = dtype(), .training = true, .optimizer = &sgd});
  if (dtype() == DType::f16) training.set_status({.loss_scale = 256});
  Plan evaluation(graph, params, {.batch = 4, .dtype = dtype()});
  const DeviceBatch batch(ctx(), graph, random_input(graph, 4, 17));
  std::vector<float> last;
  for (int64_t step = 0; step < 3; ++step) {
    training.run(batch.step_input(step, 0.1F));
    evaluation.run(batch.step_input(step));
    const std::vector<float> seen = evaluation.logits();
    EXPECT_NE(seen, last) << "step " << step;
    last = seen;
    Plan fresh(graph, params, {.batch = 4, .dtype = dtype()});
    fresh.run(batch.step_input(step));
    EXPECT_EQ(fresh.logits(), seen) << "a plan compiled now sees the same weights, step " << step;
  }
  // Without an update of the weights: the running statistics moved.
  Plan gradients(graph, params, {.batch = 4, .dtype = dtype(), .training = true});
  gradients.run(batch.step_input(3));
  evaluation.run(batch.step_input(3));
  EXPECT_NE(evaluation.logits(), last);
  // And the other way: weights set from outside reach the training plan.
  training.run(batch.step_input(4));
  const std::vector<float> before = training.logits();
  const int weight = params.find("stem.conv.weight");
  std::vector<float> values = params.values(weight);
  for (float& v : values) v = -v;
  params.set_values(weight, values);
  training.run(batch.step_input(4));
  EXPECT_NE(training.logits(), before);
}

// The first step loads what libraries need; from the second on each is one launch of what was recorded, and asks for
// nothing. What is computed is the same.
TEST_P(PlanTest, StepsAreRecordedOnceAndLaunchedWhole) {
  std::vector<std::vector<float>> weights;
  for (const bool graph_on : {true, false}) {
    Graph graph;
    network("resnet").build(graph);
    Params params(ctx(), graph, 2);
    Optimizer sgd(params);
    PlanOptions options{.batch = 4, .dtype = dtype(), .training = true, .optimizer = &sgd};
    options.kernels.cuda_graph = graph_on;
    options.kernels.deterministic = true;
    Plan plan(graph, params, options);
    const DeviceBatch batch(ctx(), graph, random_input(graph, 4, 17));
    const int64_t launches = ctx().counters().graph_launches;
    plan.run(batch.step_input(0, 0.1F));
    EXPECT_EQ(ctx().counters().graph_launches, launches);
    plan.run(batch.step_input(1, 0.1F));
    const int64_t allocations = ctx().counters().device_allocations;
    for (int64_t step = 2; step < 5; ++step) plan.run(batch.step_input(step, 0.1F));
    EXPECT_EQ(ctx().counters().device_allocations, allocations);
    EXPECT_EQ(ctx().counters().graph_launches - launches, graph_on ? 4 : 0);
    weights.push_back(params.values(0));
  }
  EXPECT_EQ(weights[0], weights[1]);
}

INSTANTIATE_OP_TEST(PlanTest);

TEST(PlanSteps, FromTheSecondStepOnNothingIsAllocated) {
  const auto context = Context::create(Device::cpu());
  Graph graph;
  network("mobilenet").build(graph);
  Params params(*context, graph, 2);
  Optimizer sgd(params);
  Plan plan(graph, params, {.batch = 4, .training = true, .optimizer = &sgd});
  const DeviceBatch batch(*context, graph, random_input(graph, 4, 17));
  plan.run(batch.step_input(0, 0.1F));
  const int64_t device = context->counters().device_allocations, pinned = context->counters().pinned_allocations;
  for (int64_t step = 1; step < 12; ++step) {
    plan.run(batch.step_input(step, 0.1F));
    plan.request_meters(step);
    while (plan.poll_meters()) {
    }
  }
  plan.meters();
  EXPECT_EQ(context->counters().device_allocations, device);
  EXPECT_EQ(context->counters().pinned_allocations, pinned);
}

TEST(PlanSteps, TheSteppingThreadWaitsOnlyForTheStepBeforeLast) {
  const auto context = Context::create(Device::cpu());
  Graph graph;
  network("mobilenet").build(graph);
  Params params(*context, graph, 2);
  Optimizer sgd(params);
  Plan plan(graph, params, {.batch = 4, .training = true, .optimizer = &sgd});
  const DeviceBatch batch(*context, graph, random_input(graph, 4, 17));
  plan.run(batch.step_input(0, 0.1F));
  Gate gate;
  gate.hold(context->compute());
  // Steps 1 and 2 need step 0 at most, which lies before the gate.
  plan.run(batch.step_input(1, 0.1F));
  const int64_t waits = context->counters().host_waits;
  plan.run(batch.step_input(2, 0.1F));
  plan.request_meters(2);
  EXPECT_FALSE(plan.poll_meters().has_value());  // still behind the gate; does not wait
  EXPECT_LE(context->counters().host_waits - waits, 1);
  gate.open();
  plan.run(batch.step_input(3, 0.1F));
  EXPECT_LE(context->counters().host_waits - waits, 2);
  const MeterReading reading = plan.meters();
  EXPECT_FALSE(gate.timed_out());
  EXPECT_GT(reading.values.weight, 0);
}

// The 16-bit weights are refreshed by the update: `prepare` does not run again.
TEST(PlanSteps, AStepIsOneClosure) {
  const auto context = Context::create(Device::cpu());
  Graph graph;
  network("resnet").build(graph);
  Params params(*context, graph, 2);
  Optimizer sgd(params);
  Plan plan(graph, params, {.batch = 4, .dtype = DType::bf16, .training = true, .optimizer = &sgd});
  const DeviceBatch batch(*context, graph, random_input(graph, 4, 17));
  plan.run(batch.step_input(0, 0.1F));
  const int64_t submissions = context->counters().submissions;
  for (int64_t step = 1; step < 4; ++step) plan.run(batch.step_input(step, 0.1F));
  EXPECT_EQ(context->counters().submissions - submissions, 3);
}

TEST(PlanSteps, HostBatchesOfFewerRowsCountOnlyThose) {
  Context& context = context_of(Device::cpu());
  Graph graph;
  network("lenet").build(graph);
  Params params(context, graph, 2);
  Plan plan(graph, params, {.batch = 4});
  const NetworkInput input = random_input(graph, 4, 17);
  const std::vector<float> images(input.images.begin(), input.images.end());
  plan.run(images.data(), input.labels.data(), 4);
  const std::vector<float> all = plan.logits();
  EXPECT_EQ(plan.meters().values.weight, 4);
  plan.set_meters({});
  plan.run(images.data(), input.labels.data(), 3);
  EXPECT_EQ(plan.meters().values.weight, 3);
  EXPECT_EQ(plan.logits(), all);  // a row does not depend on its neighbours
  plan.run(images.data(), nullptr, 2);
  EXPECT_EQ(plan.meters().values.weight, 3);
  EXPECT_THROW(plan.run(images.data(), nullptr, 5), UsageError);
  double sum = 0;
  const std::vector<float> probabilities = plan.probabilities();
  for (size_t k = 0; k < 10; ++k) sum += static_cast<double>(probabilities[k]);
  EXPECT_NEAR(sum, 1, 1e-6);
}

// Whole models, once: everything is compiled, verified and run.
TEST(PlanSteps, ModelsTrainAndEvaluate) {
  Context& context = context_of(Device::cpu());
  for (const char* model : {"lenet", "resnet20", "resnet18", "mobilenet_v2"}) {
    const int size = std::string_view(model) == "lenet" ? 28 : 32;
    Graph graph;
    build_model(graph, model, {.classes = 10, .height = size, .width = size});
    Params params(context, graph, 2);
    Optimizer sgd(params);
    Plan training(graph, params, {.batch = 3, .dtype = DType::bf16, .training = true, .optimizer = &sgd});
    Plan evaluation(graph, params, {.batch = 2});
    const DeviceBatch many(context, graph, random_input(graph, 3, 5)), few(context, graph, random_input(graph, 2, 6));
    for (int64_t step = 0; step < 2; ++step) training.run(many.step_input(step, 0.01F));
    evaluation.run(few.step_input(0));
    for (Plan* plan : {&training, &evaluation}) {
      EXPECT_NO_THROW(verify(PlanAccess::program(*plan), PlanAccess::memory(*plan))) << model;
      EXPECT_EQ(plan->meters().first_bad_step, -1) << model;
      EXPECT_GT(plan->meters().values.loss, 0) << model;
    }
  }
}

TEST(PlanDescription, TellsOpsShapesKernelsAndMemory) {
  Context& context = context_of(Device::cpu());
  Graph graph;
  network("resnet").build(graph);
  Params params(context, graph, 2);
  Optimizer sgd(params);
  Plan plan(graph, params, {.batch = 4, .dtype = DType::f16, .training = true, .optimizer = &sgd});
  const std::string text = plan.describe();
  for (const char* part : {"training, batch 4, 15x13, f16", "oneDNN", "conv_wgrad", "b.down.conv", "[4, 8, 7, 8]",
                           "computes in f32", "+ residual + relu", "optimizer_update", "per step: "})
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;

  const auto json = nlohmann::json::parse(plan.describe_json());
  EXPECT_EQ(json["batch"], 4);
  EXPECT_EQ(json["dtype"], "f16");
  EXPECT_EQ(json["slab_bytes"], plan.slab_bytes());
  EXPECT_EQ(json["flops_per_step"], plan.flops_per_step());
  EXPECT_THAT(json["passes"], testing::Contains("fuse: 2 residual additions into batch norms"));
  EXPECT_EQ(json["peak_bytes"], plan.slab_bytes() + params.bytes() + sgd.bytes());
  EXPECT_EQ(json["ops"].size(), PlanAccess::program(plan).step.size());
  int64_t bytes = 0, launches = 0, flops = 0;
  for (const auto& op : json["ops"]) {
    bytes += op["bytes"].get<int64_t>();
    launches += op["launches"].get<int64_t>();
    flops += op["flops"].get<int64_t>();
  }
  EXPECT_EQ(bytes, plan.bytes_per_step());
  EXPECT_EQ(launches, plan.kernels_per_step());
  EXPECT_EQ(flops, plan.flops_per_step());
}

// 2 * 32*32 * 16 * 9*3 for the stem of resnet20 and so on: 40.55 M multiply-adds forward (the paper's 41 M), and two
// more passes for training but for the gradient of the picture.
// What is only looked at takes no memory of the device.
TEST(PlanDescription, AnOutlineOfThisDeviceNeedNotFit) {
  Context& context = context_of(Device::cpu());
  Graph graph;
  build_model(graph, "resnet20", {.classes = 10});
  Params params(context, graph, 1);
  Optimizer sgd(params);
  PlanOptions options{.batch = 4, .training = true, .optimizer = &sgd};
  EXPECT_EQ(PlanOutline(graph, params, options).describe(), Plan(graph, params, options).describe());
  options.batch = 1'000'000;
  const int64_t before = context.counters().device_bytes;
  EXPECT_THAT(PlanOutline(graph, params, options).describe(), testing::HasSubstr("batch 1000000"));
  EXPECT_EQ(context.counters().device_bytes, before);
  Graph other;
  build_model(other, "resnet20", {.classes = 11});
  EXPECT_THROW(PlanOutline(other, params, options), ShapeError);
}

TEST(PlanDescription, CountsFlopsOfResnet20) {
  Graph graph;
  build_model(graph, "resnet20", {.classes = 10});
  Context& context = context_of(Device::cpu());
  Params params(context, graph, 2);
  const int64_t stem = int64_t{2} * 32 * 32 * 16 * 27;
  const int64_t forward = stem + int64_t{2} * 32 * 32 * 16 * 144 * 6 + int64_t{2} * 16 * 16 * 32 * (144 + 5 * 288) +
                          int64_t{2} * 8 * 8 * 64 * (288 + 5 * 576) + int64_t{2} * 640;
  EXPECT_EQ(Plan(graph, params, {.batch = 3}).flops_per_step(), 3 * forward);
  EXPECT_EQ(Plan(graph, params, {.batch = 3, .training = true}).flops_per_step(), 3 * (3 * forward - stem));
}

TEST(PlanOptionsTest, WhatMakesNoSenseIsRefused) {
  Context& context = context_of(Device::cpu());
  Graph graph;
  network("resnet").build(graph);
  Params params(context, graph, 2), others(context, graph, 2);
  Optimizer sgd(params), of_others(others);
  EXPECT_THROW(Plan(graph, params, {.batch = 0}), UsageError);
  EXPECT_THROW(Plan(graph, params, {.dtype = DType::u8}), UsageError);
  EXPECT_THROW(Plan(graph, params, {.optimizer = &sgd}), UsageError);
  EXPECT_THROW(Plan(graph, params, {.batch = 2, .training = true, .optimizer = &of_others}), UsageError);
}

}  // namespace
}  // namespace convolt::test
