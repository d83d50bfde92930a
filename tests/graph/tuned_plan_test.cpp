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

}  // namespace
}  // namespace convolt::test
