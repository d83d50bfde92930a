// Which kernel is taken, of kernels that are quick or slow as they are told to be, and what is kept of their times.
#include "conv/autotune.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "conv/autotune_fixture.h"

namespace convolt::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST_F(AutotuneTest, TakesTheQuickestInEveryPass) {
  provider_.specs = {{"slow", 3 * kMs}, {"quick", kMs}, {"middling", 2 * kMs}};
  for (const ConvPass pass : {ConvPass::fprop, ConvPass::dgrad, ConvPass::wgrad})
    EXPECT_EQ(choice(small_conv(pass)), "quick");
  EXPECT_EQ(choice(LinearDesc{.rows = 5, .in = 7, .out = 3}), "quick");
  EXPECT_EQ(origin_, Autotuner::Origin::tuned);
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(AutotuneTest, AFusionPaysThatIsNoSlowerThanWhatItReplaces) {
  ConvDesc fused = small_conv(), plain = fused;
  fused.epilogue = ConvEpilogue::stats;
  const auto pays = [&](int64_t apart) {
    return Autotuner(context_, provider_, options_, true, tools()).pays(fused, plain, apart);
  };
  provider_.specs = {{"slow", 5 * kMs}, {"quick", 3 * kMs}};
  EXPECT_TRUE(pays(0));  // the same kernels for both
  EXPECT_EQ(choices_.size(), 0U);
  for (FakeSpec& spec : provider_.specs) spec.sums_cost = 2 * kMs;
  provider_.version = "fake 2";
  EXPECT_TRUE(pays(2 * kMs));
  EXPECT_FALSE(pays(2 * kMs - 1));
  const int timed = runs();
  EXPECT_FALSE(pays(kMs));  // timed once
  EXPECT_EQ(runs(), timed);
  // As it was decided then.
  Autotuner tuner(context_, provider_, options_, true, tools());
  tuner.choose(fused);
  options_.recorded = tuner.choices();
  EXPECT_TRUE(pays(kMs));
  options_.recorded.clear();
  Autotuner again(context_, provider_, options_, true, tools());
  again.choose(plain);
  options_.recorded = again.choices();
  EXPECT_FALSE(pays(2 * kMs));
  options_.recorded.clear();
  options_.autotune = Autotune::off;
  EXPECT_TRUE(pays(kMs));
}

TEST_F(AutotuneTest, OffTakesTheFirstAndInEvaluationTheFirstThatPacks) {
  options_.autotune = Autotune::off;
  provider_.specs = {{"first", 3 * kMs},
                     {.name = "packs", .cost = 2 * kMs, .pack_cost = 0},
                     {.name = "packs too", .cost = kMs, .pack_cost = 0}};
  EXPECT_EQ(choice(small_conv(), true), "first");
  EXPECT_EQ(choice(small_conv(), false), "packs");
  options_.autotune.reset();  // on the CPU the same
  EXPECT_EQ(choice(small_conv(), true), "first");
  EXPECT_EQ(runs(), 0);
  EXPECT_THAT(folder_.names(), IsEmpty());
}

// In training weights are packed, and their gradients unpacked, in each step.
TEST_F(AutotuneTest, PackingCountsInTrainingAlone) {
  provider_.specs = {{"plain", 3 * kMs}, {.name = "packs", .cost = kMs, .pack_cost = 4 * kMs}};
  EXPECT_EQ(choice(small_conv(ConvPass::fprop), true), "plain");
  EXPECT_EQ(choice(small_conv(ConvPass::dgrad), true), "plain");
  EXPECT_EQ(choice(small_conv(ConvPass::wgrad), true), "plain");
  EXPECT_EQ(choice(small_conv(ConvPass::fprop), false), "packs");
}

TEST_F(AutotuneTest, AWorkspaceAboveTheLimitIsNotUsed) {
  provider_.specs = {{.name = "small", .cost = 3 * kMs, .workspace = 1000},
                     {.name = "large", .cost = kMs, .workspace = 1001}};
  options_.workspace_limit = 1000;
  EXPECT_EQ(choice(small_conv()), "small");
  options_.workspace_limit.reset();
  EXPECT_EQ(choice(small_conv()), "large");
  options_.workspace_limit = 1000;
  const int before = runs();
  EXPECT_EQ(choice(small_conv()), "small");  // known from both
  EXPECT_EQ(runs(), before);
  options_.workspace_limit = 999;
  EXPECT_EQ(choice(small_conv()), "");
  EXPECT_THAT(Autotuner(context_, provider_, options_, true, tools()).allowed().describe(),
              HasSubstr("at most 999 bytes (--workspace-limit)"));
}

TEST_F(AutotuneTest, DeterministicTakesWhatRepeats) {
  provider_.specs = {{.name = "first, does not repeat", .cost = 2 * kMs, .repeatable = false},
                     {"repeats", 3 * kMs},
                     {.name = "quick, does not repeat", .cost = kMs, .repeatable = false}};
  options_.deterministic = true;
  for (const Autotune mode : {Autotune::off, Autotune::quick}) {
    options_.autotune = mode;
    EXPECT_EQ(choice(small_conv()), "repeats");
  }
  options_.deterministic = false;
  EXPECT_EQ(choice(small_conv()), "quick, does not repeat");
}

TEST_F(AutotuneTest, TheSecondStartTimesNothing) {
  provider_.specs = {{"slow", 2 * kMs}, {"quick", kMs}};
  const int64_t before = context_.counters().tunings;
  EXPECT_EQ(choice(small_conv()), "quick");
  EXPECT_EQ(context_.counters().tunings - before, 1);
  const int timed = runs();
  EXPECT_EQ(choice(small_conv()), "quick");
  EXPECT_EQ(origin_, Autotuner::Origin::tuned);
  EXPECT_EQ(runs(), timed);
  EXPECT_EQ(context_.counters().tunings - before, 1);
}

TEST_F(AutotuneTest, OtherLibrariesAndOtherKernelsAreTimedAnew) {
  provider_.specs = {{"a", 2 * kMs}, {"b", 3 * kMs}};
  EXPECT_EQ(choice(small_conv()), "a");
  provider_.version = "fake 2";
  provider_.specs[1].cost = kMs;
  EXPECT_EQ(choice(small_conv()), "b");
  provider_.specs.push_back({"c", kMs / 2});
  EXPECT_EQ(choice(small_conv()), "c");
  provider_.specs.pop_back();
  const int timed = runs();
  EXPECT_EQ(choice(small_conv()), "b");
  EXPECT_EQ(runs(), timed);
}

TEST_F(AutotuneTest, FullRunsMoreAndIsGoodEnoughForQuick) {
  provider_.specs = {{"a", 2 * kMs}, {"b", 3 * kMs}};
  const auto count = [&] { return std::exchange(provider_.device.runs["b"], 0); };
  choice(small_conv());
  EXPECT_EQ(count(), 1 + 1 + 3);  // checked, warmed up, timed
  options_.autotune = Autotune::full;
  choice(small_conv());
  EXPECT_EQ(count(), 1 + 1 + 10);
  options_.autotune = Autotune::quick;
  choice(small_conv());
  EXPECT_EQ(count(), 0);
}

TEST_F(AutotuneTest, WhatTakesTwiceAsLongIsNotTimedAgain) {
  provider_.specs = {
      {"quick", 2 * kMs}, {"slow", 5 * kMs}, {.name = "short", .cost = kMs / 100, .spoil = [](auto& y) { y[0] = 9; }}};
  choice(small_conv());
  EXPECT_EQ(provider_.device.runs["quick"], 1 + 1 + 3);
  EXPECT_EQ(provider_.device.runs["slow"], 1 + 1 + 1);
  EXPECT_EQ(provider_.device.runs["short"], 1);
}

// A run that is much shorter than what surrounds it is timed as part of many.
TEST_F(AutotuneTest, ShortRunsAreTimedTogether) {
  provider_.specs = {{"a", kMs / 4}, {"b", kMs / 5}};
  EXPECT_EQ(choice(small_conv()), "b");
  EXPECT_EQ(provider_.device.runs["a"], 1 + 1 + 3 * 4);
  const TuningTable kept = tools().cache.read();
  EXPECT_EQ(kept.begin()->second.at("a").nanoseconds, kMs / 4);
}

TEST_F(AutotuneTest, OneKernelNeedsNoTiming) {
  provider_.specs = {{"only"}};
  EXPECT_EQ(choice(small_conv()), "only");
  EXPECT_EQ(runs(), 0);
}

// Two of one name that differ in nothing that can be seen are one; of packed and plain weights they are two.
TEST_F(AutotuneTest, NamesTellKernelsApart) {
  provider_.specs = {{"gemm", 2 * kMs}, {"gemm", 3 * kMs}, {.name = "gemm", .cost = kMs, .pack_cost = 0}};
  Autotuner tuner(context_, provider_, options_, true, tools());
  EXPECT_GT(tuner.choose(small_conv()).kernel->packed_bytes(), 0);
  EXPECT_EQ(tuner.choices().begin()->second, "gemm, packed weights");
  tuner.finish();
  EXPECT_EQ(tools().cache.read().begin()->second.size(), 2U);
  provider_.specs = {{"tab\tand\nline", 2 * kMs}, {"b", 3 * kMs}};
  for (int i = 0; i < 2; ++i) EXPECT_EQ(choice(small_conv()), "tab\tand\nline");
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(AutotuneTest, WhatWasRecordedIsTakenAgain) {
  provider_.specs = {{"slow", 3 * kMs}, {"quick", kMs}};
  options_.autotune = Autotune::off;
  choice(small_conv());
  options_.recorded = choices_;
  std::reverse(provider_.specs.begin(), provider_.specs.end());
  for (const Autotune mode : {Autotune::off, Autotune::full}) {
    options_.autotune = mode;
    EXPECT_EQ(choice(small_conv()), "slow");
    EXPECT_EQ(origin_, Autotuner::Origin::recorded);
  }
  EXPECT_EQ(runs(), 0);
  EXPECT_THAT(warnings_, IsEmpty());
  EXPECT_EQ(choice(small_conv(ConvPass::dgrad)), "quick");  // of which nothing is recorded
}

// The longer search is for full; what it found is offered later where it was timed or recorded.
TEST_F(AutotuneTest, OnlyFullSearchesLonger) {
  provider_.specs = {{"slow", 3 * kMs}, {"usual", 2 * kMs}};
  provider_.more = {{"found", kMs}};
  for (int i = 0; i < 2; ++i) EXPECT_EQ(choice(small_conv()), "usual");
  EXPECT_EQ(provider_.device.runs.count("found"), 0U);
  options_.autotune = Autotune::full;
  EXPECT_EQ(choice(small_conv()), "found");
  const KernelChoices found = choices_;

  const int timed = runs();
  options_.autotune = Autotune::quick;
  EXPECT_EQ(choice(small_conv()), "found");
  EXPECT_EQ(runs(), timed);
  options_.autotune = Autotune::off;
  EXPECT_EQ(choice(small_conv()), "slow");
  options_.recorded = found;
  EXPECT_EQ(choice(small_conv()), "found");
  EXPECT_EQ(origin_, Autotuner::Origin::recorded);
  EXPECT_EQ(runs(), timed);
  EXPECT_THAT(warnings_, IsEmpty());
  options_.deterministic = true;
  provider_.more[0].repeatable = false;
  EXPECT_EQ(choice(small_conv()), "slow");
}

TEST_F(AutotuneTest, WhatWasRecordedAndIsGoneIsSaidOnce) {
  provider_.specs = {{"slow", 3 * kMs}, {.name = "quick", .cost = kMs, .workspace = 64}};
  for (const ConvPass pass : {ConvPass::fprop, ConvPass::dgrad}) {
    choice(small_conv(pass));
    options_.recorded.insert(choices_.begin(), choices_.end());
  }
  options_.workspace_limit = 0;
  Autotuner tuner(context_, provider_, options_, true, tools());
  EXPECT_EQ(tuner.choose(small_conv()).kernel->name(), "slow");
  EXPECT_EQ(tuner.choose(small_conv(ConvPass::dgrad)).kernel->name(), "slow");
  tuner.finish();
  ASSERT_EQ(warnings_.size(), 1U);
  EXPECT_THAT(warnings_[0],
              HasSubstr("2 of the recorded kernels are not offered here, the first being 'quick' of fprop "
                        "n2 6x6x8 -> 8, 3x3 s1 p1, f32, weights packed each step"));
}

TEST_F(AutotuneTest, ADamagedCacheIsMadeAnewWithOneWarning) {
  provider_.specs = {{"slow", 2 * kMs}, {"quick", kMs}};
  std::filesystem::create_directories(folder_.path("cache"));
  put_contents(folder_.path("cache/tuning-1.txt"), "convolt-tuning 1 00000000\nhalf a li");
  EXPECT_EQ(choice(small_conv()), "quick");
  ASSERT_EQ(warnings_.size(), 1U);
  EXPECT_THAT(warnings_[0], HasSubstr("damaged"));
  const int timed = runs();
  EXPECT_EQ(choice(small_conv()), "quick");
  EXPECT_EQ(runs(), timed);
  EXPECT_EQ(warnings_.size(), 1U);
}

TEST_F(AutotuneTest, ACacheThatCannotBeWrittenEndsNothing) {
  provider_.specs = {{"slow", 2 * kMs}, {"quick", kMs}};
  put_contents(folder_.path("cache"), "a file where the folder should be");
  Autotuner tuner(context_, provider_, options_, true, tools());
  EXPECT_EQ(tuner.choose(small_conv()).kernel->name(), "quick");
  EXPECT_EQ(tuner.choose(small_conv(ConvPass::dgrad)).kernel->name(), "quick");
  const int timed = runs();
  EXPECT_EQ(tuner.choose(small_conv()).kernel->name(), "quick");  // known within the process
  EXPECT_EQ(runs(), timed);
  tuner.finish();
  ASSERT_EQ(warnings_.size(), 1U);
  EXPECT_THAT(warnings_[0], HasSubstr("the timings of kernels are lost"));
}

TEST_F(AutotuneTest, TuningMemoryIsCountedApartAndGivenBack) {
  provider_.specs = {{.name = "slow", .cost = 2 * kMs, .workspace = 4096}, {"quick", kMs}};
  const auto context = Context::create(Device::cpu());
  Autotuner tuner(*context, provider_, options_, true, tools());
  tuner.choose(small_conv());
  const Counters& counters = context->counters();
  EXPECT_EQ(counters.device_allocations, 0);
  EXPECT_EQ(counters.device_bytes_peak, 0);
  EXPECT_EQ(counters.tuning_bytes, 0);
  EXPECT_EQ(counters.tuning_bytes_peak, 4 * (2 * 6 * 6 * 8 + 8 * 3 * 3 * 8 + 2 * 6 * 6 * 8) + 4096);
}

TEST_F(AutotuneTest, AWorkspaceThatFitsNoMemoryIsLeftOut) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the sanitizer's allocator ends the program instead";
#endif
  provider_.specs = {
      {.name = "huge", .cost = kMs, .workspace = int64_t{1} << 60}, {"slow", 3 * kMs}, {"quick", 2 * kMs}};
  EXPECT_EQ(choice(small_conv()), "quick");
  ASSERT_EQ(warnings_.size(), 1U);
  EXPECT_THAT(warnings_[0], HasSubstr("'huge'"));
}

TEST_F(AutotuneTest, OfDescriptionsThatCannotBeTriedTheFirstIsTaken) {
  provider_.specs = {{"slow", 3 * kMs}, {"quick", kMs}};
  ConvDesc desc = small_conv();
  desc.prologue = ConvPrologue::scale_bias;
  EXPECT_EQ(choice(desc), "slow");
  EXPECT_EQ(runs(), 0);
}

}  // namespace
}  // namespace convolt::test
