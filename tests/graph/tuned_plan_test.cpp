// Plans whose kernels are timed, known from before, or recorded.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "conv/fake_provider.h"
#include "graph/lower.h"
#include "graph/networks.h"
#include "graph/passes/fusion.h"
#include "support/cache_home.h"

namespace convolt::test {
namespace {

using testing::HasSubstr;
using testing::Not;

class TunedPlan : public testing::Test {
protected:
  TunedPlan() {
    network("resnet").build(graph_);
    params_.emplace(*context_, graph_, 2);
    sgd_.emplace(*params_);
  }
  PlanOptions options(KernelOptions kernels, bool training = true) {
    PlanOptions o{.batch = 4, .training = training};
    if (training) o.optimizer = &*sgd_;
    o.kernels = std::move(kernels);
    return o;
  }

  CacheHome cache_;
  std::unique_ptr<Context> context_ = Context::create(Device::cpu());
  Graph graph_;
  std::optional<Params> params_;
  std::optional<Optimizer> sgd_;
};

TEST_F(TunedPlan, TheSecondStartTimesNothingAndChoosesTheSame) {
  const std::atomic<int64_t>& tunings = context_->counters().tunings;
  const Plan first(graph_, *params_, options({.autotune = Autotune::quick}));
  const int64_t timed = tunings;
  EXPECT_GT(timed, 0);
  EXPECT_THAT(first.describe(), HasSubstr("(tuned)"));
  const Plan second(graph_, *params_, options({.autotune = Autotune::quick}));
  EXPECT_EQ(tunings, timed);
  EXPECT_EQ(second.kernels(), first.kernels());
  const Plan evaluation(graph_, *params_, options({.autotune = Autotune::quick}, false));
  EXPECT_GT(tunings, timed);  // there weights are packed once
  EXPECT_THAT(cache_.folder().names(), testing::ElementsAre("convolt"));
}

TEST_F(TunedPlan, OnTheCpuNothingIsTimedUnasked) {
  const Plan plan(graph_, *params_, options({}));
  EXPECT_EQ(context_->counters().tunings, 0);
  EXPECT_THAT(plan.describe(), Not(HasSubstr("(tuned)")));
  EXPECT_GT(plan.kernels().size(), 10U);
  EXPECT_TRUE(cache_.folder().names().empty());
}

// Bit for bit what the plan computed that chose for itself, and written down as such.
TEST_F(TunedPlan, RecordedKernelsComputeTheSameBits) {
  const reference::NetworkInput input = random_input(graph_, 4, 17);
  const DeviceBatch batch(*context_, graph_, input);
  const auto logits = [&](Plan& plan) {
    plan.run(batch.step_input(0));
    return plan.logits();
  };
  Plan tuned(graph_, *params_, options({.autotune = Autotune::quick}, false));
  KernelOptions kernels{.recorded = tuned.kernels()};
  Plan again(graph_, *params_, options(kernels, false));
  EXPECT_EQ(again.kernels(), tuned.kernels());
  EXPECT_THAT(again.describe(), HasSubstr("(recorded)"));
  EXPECT_EQ(logits(again), logits(tuned));
}

TEST_F(TunedPlan, TheMemoryOfTimingIsNoneOfThePlans) {
  const int64_t before = context_->counters().device_bytes;
  const Plan plan(graph_, *params_, options({.autotune = Autotune::quick}));
  const Counters& counters = context_->counters();
  EXPECT_EQ(plan.slab_bytes(), plan.predicted_bytes());
  EXPECT_EQ(counters.device_bytes - before, plan.slab_bytes());
  EXPECT_EQ(counters.device_bytes_peak, counters.device_bytes);
  EXPECT_EQ(counters.tuning_bytes, 0);
  EXPECT_GT(counters.tuning_bytes_peak, 0);
}

TEST_F(TunedPlan, ALimitThatNoKernelKeepsNamesLayerAndFlag) {
  try {
    PlanOptions o = options({.workspace_limit = 0});
    o.dtype = DType::f16;  // widened here, in a workspace
    const Plan plan(graph_, *params_, o);
    FAIL() << "expected an error";
  } catch (const DeviceError& e) {
    EXPECT_THAT(e.what(), HasSubstr("conv_fprop 'stem.conv': "));
    EXPECT_THAT(e.what(), HasSubstr("with a workspace of at most 0 bytes (--workspace-limit) offers no"));
  }
}

// Of many channels fused engines waste nothing, and are not asked about.
TEST_F(TunedPlan, StatisticsOfFewChannelsStayApartWhereThatIsQuicker) {
  FakeProvider provider;
  provider.specs = {{.name = "fake"}};
  Program program = lower(graph_, {.batch = 2, .training = true});
  const auto convolutions = [&](const auto& counts) {
    return std::count_if(program.step.begin(), program.step.end(),
                         [&](const Op& op) { return op.def == &ops::conv_fprop && counts(op); });
  };
  const auto all = convolutions([](const Op&) { return true; });
  std::vector<ConvDesc> asked;
  fuse_statistics(program, {provider, false, [&](const ConvDesc& fused) {
                              asked.push_back(fused);
                              return asked.size() == 1;
                            }});
  ASSERT_GT(all, 2);
  EXPECT_EQ(static_cast<int64_t>(asked.size()), all);
  for (const ConvDesc& desc : asked) {
    EXPECT_EQ(desc.epilogue, ConvEpilogue::stats);
    EXPECT_LT(desc.geometry.in_c, 64);
  }
  EXPECT_EQ(convolutions([](const Op& op) { return !op.note.empty(); }), 1);  // the first
  EXPECT_EQ(std::count_if(program.step.begin(), program.step.end(),
                          [](const Op& op) { return op.def == &ops::bn_statistics; }),
            all - 1);
  ASSERT_FALSE(program.pass_log.empty());
  EXPECT_THAT(program.pass_log.back(), HasSubstr("not: quicker apart"));
}

// What trains on with wrong sums would do so in silence, and what stops would not train at all.
TEST_F(TunedPlan, AFusionWhoseKernelsAreWrongIsComposedOfPlainOnes) {
  FakeProvider provider;
  provider.specs = {{.name = "fake", .spoil_sums = [](auto& sums) { sums[0] += 1; }}};
  Program program = lower(graph_, {.batch = 2, .training = true});
  fuse_statistics(program, {provider});
  std::vector<std::string> warnings;
  KernelOptions kernels{.autotune = Autotune::quick, .warning = [&](const auto& w) { warnings.push_back(w); }};
  Autotuner tuner(*context_, provider, kernels, true, {.clock = provider.device.clock()});
  choose_kernels(program, tuner, true);
  int composed = 0;
  for (const Op& op : program.step) {
    if (op.def != &ops::conv_fprop) continue;
    ++composed;
    EXPECT_TRUE(op.composed) << op.layer;
    EXPECT_THAT(op.note, HasSubstr(", composed: no kernel of it is right"));
    EXPECT_EQ(std::get<ConvAttrs>(op.attrs).desc.epilogue, ConvEpilogue::stats);
    EXPECT_EQ(op.kernel->name(), "fake");
  }
  EXPECT_EQ(composed, 7);
  EXPECT_FALSE(warnings.empty());
}

// The linear layers of a training step after their pass.
class LinearPass : public TunedPlan {
protected:
  Program fused(const char* net, ConvProvider& provider, bool compose) {
    Graph graph;
    network(net).build(graph);
    const PlanOptions o{.batch = 2, .training = true};
    Program program = lower(graph, o);
    fuse(program, provider, true);
    lower_training(program, o);
    fuse_linear(program, {provider, compose});
    return program;
  }
  static int count(const Program& program, ConvEpilogue epilogue) {
    return static_cast<int>(std::count_if(program.step.begin(), program.step.end(), [&](const Op& op) {
      const auto* linear = std::get_if<LinearAttrs>(&op.attrs);
      return linear != nullptr && linear->desc.epilogue == epilogue;
    }));
  }
  void choose(Program& program, FakeProvider& provider) {
    KernelOptions kernels{.autotune = Autotune::quick, .warning = [](const auto&) {}};
    Autotuner tuner(*context_, provider, kernels, true, {.clock = provider.device.clock()});
    choose_kernels(program, tuner, true);
  }
};

// Where the bits of a mask lie is its writer's affair: a library that writes one and cannot read it, or the other way
// round, may have neither composed.
TEST_F(LinearPass, AMaskIsWrittenAndReadByOne) {
  class OneOfTwo final : public ConvProvider {
  public:
    explicit OneOfTwo(ConvEpilogue lacks) : lacks_(lacks) { all_.specs = {{"fake"}}; }
    std::vector<std::unique_ptr<ConvKernel>> candidates(const ConvDesc& desc) override { return all_.candidates(desc); }
    std::vector<std::unique_ptr<ConvKernel>> candidates(const LinearDesc& desc) override {
      if (desc.epilogue == lacks_) return {};
      return all_.candidates(desc);
    }
    std::string describe() const override { return "one of two"; }
    DeviceRates rates() const override { return all_.rates(); }

  private:
    FakeProvider all_;
    ConvEpilogue lacks_;
  };
  OneOfTwo both(ConvEpilogue::join);  // which no linear layer has
  EXPECT_EQ(count(fused("lenet", both, true), ConvEpilogue::bias_relu_mask), 2);
  for (const ConvEpilogue lacks : {ConvEpilogue::bias_relu_mask, ConvEpilogue::drelu_bias_gradient}) {
    OneOfTwo provider(lacks);
    const Program program = fused("lenet", provider, true);
    EXPECT_EQ(count(program, ConvEpilogue::bias_relu_mask), 0);
    EXPECT_EQ(count(program, ConvEpilogue::drelu_bias_gradient), 0);
    EXPECT_THAT(program.pass_log, testing::Contains(HasSubstr("no kernel of one of the two")));
  }
}

// A sum can be made by a plain kernel instead; what goes through the library's mask cannot.
TEST_F(LinearPass, WhatSharesAMaskIsNotComposedAlone) {
  FakeProvider provider;
  provider.specs = {{"fake"}};  // writes no gradient of a bias
  Program sums = fused("resnet", provider, false);
  ASSERT_EQ(count(sums, ConvEpilogue::bias_gradient), 1);
  choose(sums, provider);
  for (const Op& op : sums.step) EXPECT_EQ(op.composed, op.def == &ops::linear_wgrad) << op.layer;
  Program masks = fused("lenet", provider, false);
  ASSERT_EQ(count(masks, ConvEpilogue::drelu_bias_gradient), 2);
  EXPECT_THROW(choose(masks, provider), WrongKernelsError);
}

}  // namespace
}  // namespace convolt::test
