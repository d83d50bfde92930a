// Plans that keep to a memory budget: what they compute stays the same to the bit, what they take is less, and what
// cannot be done is said.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "conv/autotune.h"
#include "conv/described_device.h"
#include "convolt/models.h"
#include "graph/cost.h"
#include "graph/networks.h"
#include "graph/plan_access.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

using testing::HasSubstr;

int again(const Program& p) {
  return static_cast<int>(std::count_if(p.step.begin(), p.step.end(),
                                        [](const Op& op) { return op.note.find("again") != std::string::npos; }));
}

// The least that a plan can be brought to, and what it takes by itself: of slab, parameters and optimizer.
struct Range {
  int64_t least = 0, whole = 0;
};
Range range_of(const Graph& graph, PlanOptions options, Params& params) {
  options.memory_budget.reset();
  const int64_t others = params.bytes_with_copy(options.dtype) + options.optimizer->bytes();
  const int64_t whole = Plan(graph, params, options).slab_bytes() + others;
  int64_t low = 0, high = whole;  // the least that does not throw
  while (low + 256 < high) {
    options.memory_budget = (low + high) / 2;
    try {
      const Plan plan(graph, params, options);
      high = *options.memory_budget;
    } catch (const OutOfMemoryError&) {
      low = *options.memory_budget;
    }
  }
  return {high, whole};
}

struct Trained {
  std::vector<std::vector<float>> values;  // parameters and running statistics after two steps
  std::vector<float> logits;
  int again = 0;
  friend bool operator==(const Trained& a, const Trained& b) { return a.values == b.values && a.logits == b.logits; }
};

class RecomputeTest : public OpTest {
protected:
  PlanOptions options(Optimizer& optimizer, bool compose) const {
    return {.batch = 8,
            .dtype = dtype(),
            .training = true,
            .optimizer = &optimizer,
            .kernels = {.deterministic = true},
            .compose_fusions = compose};
  }
  // A budget between the least (0) and all that the plan would take (1).
  Trained train(const Network& network, double share, bool compose) const {
    Graph graph;
    network.build(graph);
    Params params(ctx(), graph, 5);
    randomise(params, 8);
    Optimizer sgd(params, {.momentum = 0.9F});
    PlanOptions o = options(sgd, compose);
    if (share < 1) {
      const Range range = range_of(graph, o, params);
      o.memory_budget = range.least + static_cast<int64_t>(share * static_cast<double>(range.whole - range.least));
    }
    Plan plan(graph, params, o);
    if (o.memory_budget) {
      EXPECT_LE(plan.slab_bytes() + params.bytes_with_copy(dtype()) + sgd.bytes(), *o.memory_budget) << network.name;
    }
    if (dtype() == DType::f16) plan.set_status({.loss_scale = 256});
    const DeviceBatch batch(ctx(), graph, random_input(graph, 8, 13));
    for (int step = 0; step < 2; ++step) plan.run(batch.step_input(step));
    Trained result{{}, plan.logits(), again(PlanAccess::program(plan))};
    for (size_t i = 0; i < params.specs().size(); ++i) result.values.push_back(params.values(static_cast<int>(i)));
    return result;
  }
};

TEST_P(RecomputeTest, WholeNetworksTrainToTheSameBits) {
  int recomputing = 0;
  for (const Network& network : networks())
    for (const bool compose : {false, true}) {
      const Trained kept = train(network, 1, compose);
      EXPECT_EQ(kept.again, 0);
      for (const double share : {0.5, 0.0}) {
        const Trained recomputed = train(network, share, compose);
        EXPECT_TRUE(recomputed == kept) << network.name << ", " << recomputed.again << " ops again";
        recomputing += recomputed.again > 0 ? 1 : 0;
      }
    }
  EXPECT_GE(recomputing, 12);
}

INSTANTIATE_OP_TEST(RecomputeTest);

// Of a described H200, where nothing is allocated.
class Budget : public testing::Test {
protected:
  Budget() {
    build_model(graph_, "resnet50", {.classes = 1000, .height = 224, .width = 224, .channels = 3});
    params_ = std::make_unique<Params>(context_of(Device::cpu()), graph_, 0);
    sgd_ = std::make_unique<Optimizer>(*params_);
  }
  static constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();
  CompiledPlan compiled(std::optional<int64_t> budget, int batch = 64, int64_t free = kNoLimit, bool training = true) {
    const PlanOptions o{.batch = batch,
                        .dtype = DType::f16,
                        .training = training,
                        .optimizer = training ? sgd_.get() : nullptr,
                        .kernels = {.autotune = Autotune::off, .warning = [&](const std::string& w) { warning_ = w; }},
                        .memory_budget = budget};
    const auto provider = make_described_provider(device_);
    Autotuner tuner(context_of(Device::cpu()), *provider, o.kernels, training);
    return {graph_, *params_, o, tuner, free};
  }
  std::string refusal(std::optional<int64_t> budget, int batch = 64, int64_t free = std::numeric_limits<int64_t>::max(),
                      bool training = true) {
    try {
      compiled(budget, batch, free, training);
    } catch (const OutOfMemoryError& e) {
      return e.what();
    }
    return "";
  }
  int64_t others() const { return params_->bytes_with_copy(DType::f16) + sgd_->bytes(); }
  double bound(const CompiledPlan& plan) const { return cost_of(plan, &device_.rates).time_bound; }

  Graph graph_;
  std::unique_ptr<Params> params_;
  std::unique_ptr<Optimizer> sgd_;
  std::string warning_;
  const DescribedDevice device_ = described_device("h200");
};

TEST_F(Budget, LessMemoryCostsMoreTimeAndTheLeastFirst) {
  const CompiledPlan whole = compiled({});
  EXPECT_EQ(again(whole.program), 0);
  double before = bound(whole);
  for (const double share : {0.9, 0.7, 0.55}) {
    const auto limit = static_cast<int64_t>(share * static_cast<double>(whole.memory.bytes));
    const CompiledPlan plan = compiled(limit + others());
    EXPECT_LE(plan.memory.bytes, limit);
    EXPECT_GT(bound(plan), before) << share;
    before = bound(plan);
    verify(plan.program, plan.memory);
    EXPECT_THAT(plan.program.pass_log.back(), HasSubstr("recompute: " + std::to_string(again(plan.program)) + " ops"));
  }
  EXPECT_LT(before, 1.15 * bound(whole));
  // Windows of 3x3 cost time by their products, the others and the stem by what they move, which is less.
  const auto limit = static_cast<int64_t>(0.75 * static_cast<double>(whole.memory.bytes));
  int convolutions = 0;
  for (const Op& op : compiled(limit + others()).program.step)
    if (op.note.find("again") != std::string::npos && op.kernel != nullptr && op.layer != "conv1") {
      EXPECT_EQ(std::get<ConvAttrs>(op.attrs).desc.geometry.kernel_h, 1) << op.layer;
      ++convolutions;
    }
  EXPECT_GT(convolutions, 0);
}

// Each op that runs again is needed: without any one of them the slab is too large.
TEST_F(Budget, NothingIsRecomputedForNothing) {
  const CompiledPlan whole = compiled({});
  const int64_t limit = whole.memory.bytes * 3 / 4;
  const CompiledPlan plan = compiled(limit + others());
  const Program& p = plan.program;
  ASSERT_GT(again(p), 3);
  for (size_t i = 0; i < p.step.size(); ++i) {
    if (p.step[i].note.find("again") == std::string::npos) continue;
    // What it makes comes from its first run.
    Program fewer = p;
    const auto first = std::find_if(p.step.begin(), p.step.end(), [&](const Op& op) {
      return op.def == p.step[i].def && op.layer == p.step[i].layer && &op != &p.step[i];
    });
    ASSERT_NE(first, p.step.end());
    for (Op& op : fewer.step)
      for (ValueId& v : op.in)
        for (size_t k = 0; k < first->out.size(); ++k)
          if (v != kNoValue && v == p.step[i].out[k]) v = first->out[k];
    fewer.step.erase(fewer.step.begin() + static_cast<int64_t>(i));
    EXPECT_GT(plan_memory(fewer, true).bytes, limit) << p.step[i].layer;
  }
}

TEST_F(Budget, WhatCannotBeMetIsSaidWithWhatWouldFit) {
  const std::string message = refusal(500'000'000);
  EXPECT_THAT(message, HasSubstr("the plan of a training step of batch 64 needs 2.6 GB with parameters and optimizer"));
  EXPECT_THAT(message,
              HasSubstr("by recomputing all that helps, and the memory budget is 477M (500.0 MB); a batch of about "));
  const int batch = std::stoi(message.substr(message.find("about ") + 6));
  EXPECT_EQ(refusal(500'000'000, batch), "");
  EXPECT_NE(refusal(500'000'000, batch + 8), "");
  EXPECT_THAT(refusal(1'000'000), HasSubstr("not even a batch of 1 fits; a budget of "));
}

// An evaluation holds the parameters too.
TEST_F(Budget, ParametersCountInAnEvaluation) {
  const int64_t needed = compiled({}, 64, kNoLimit, false).memory.bytes + params_->bytes_with_copy(DType::f16);
  EXPECT_EQ(refusal(needed, 64, kNoLimit, false), "");
  EXPECT_THAT(refusal(needed - 1, 64, kNoLimit, false), HasSubstr(" with parameters, and the memory budget is "));
}

TEST_F(Budget, WithoutOneTheDevicesFreeMemoryDecides) {
  const int64_t needed = compiled({}).memory.bytes;
  EXPECT_EQ(warning_, "");
  EXPECT_LE(compiled({}, 64, needed * 3 / 4).memory.bytes, needed * 3 / 4 * 9 / 10);
  EXPECT_THAT(warning_, HasSubstr("of device memory are free, and the training step of batch 64 wants 2.3 GB"));
  EXPECT_THAT(refusal({}, 64, needed / 8), HasSubstr("of device memory are free; a batch of about "));
  const int64_t evaluation = compiled({}, 64, kNoLimit, false).memory.bytes;
  const std::string message = refusal({}, 64, evaluation / 2, false);
  EXPECT_THAT(message, HasSubstr("the plan of an evaluation of batch 64 needs "));
  const int batch = std::stoi(message.substr(message.find("about ") + 6));
  EXPECT_EQ(refusal({}, batch, evaluation / 2, false), "");
}

}  // namespace
}  // namespace convolt::test
