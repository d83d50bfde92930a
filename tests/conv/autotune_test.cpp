// Which kernel is taken, of kernels that are right or wrong and quick or slow as they are told to be.
#include "conv/autotune.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "conv/fake_provider.h"
#include "support/device.h"
#include "support/temp_folder.h"

namespace convolt::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr int64_t kMs = 1'000'000;

ConvDesc small_conv(ConvPass pass = ConvPass::fprop) {
  return {.pass = pass,
          .geometry = {.n = 2, .in_h = 6, .in_w = 6, .in_c = 8, .out_c = 8, .kernel_h = 3, .kernel_w = 3, .pad = 1}};
}

class AutotuneTest : public testing::Test {
protected:
  AutotuneTest() {
    options_.autotune = Autotune::quick;
    options_.warning = [this](const std::string& message) { warnings_.push_back(message); };
  }

  TuningTools tools() { return {TuningCache(folder_.path("cache/tuning-1.txt")), provider_.device.clock()}; }
  // By a tuner of its own, as another process would; "" where there is no kernel.
  template <class Desc>
  std::string choice(const Desc& desc, bool training = true) {
    Autotuner tuner(context_, provider_, options_, training, tools());
    const auto [kernel, origin] = tuner.choose(desc);
    origin_ = origin;
    choices_ = tuner.choices();
    tuner.finish();
    return kernel ? kernel->name() : "";
  }
  int runs() const {
    int all = 0;
    for (const auto& [name, count] : provider_.device.runs) all += count;
    return all;
  }

  Context& context_ = context_of(Device::cpu());
  TempFolder folder_;
  FakeProvider provider_;
  KernelOptions options_;
  std::vector<std::string> warnings_;
  Autotuner::Origin origin_ = Autotuner::Origin::order;
  KernelChoices choices_;
};

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

struct Fault {
  const char* name;
  FakeSpec spec;
};
// An element that is not among those compared with plain sums.
size_t unsampled() {
  const std::vector<int64_t> places = PlainSums(small_conv()).places();
  const std::set<int64_t> looked_at(places.begin(), places.end());
  int64_t i = 0;
  while (looked_at.contains(i)) ++i;
  return static_cast<size_t>(i);
}

TEST_F(AutotuneTest, AWrongResultMayNotWin) {
  const Fault faults[] = {{"a little too large",
                           {.spoil =
                                [](auto& y) {
                                  for (double& v : y) v *= 1.001;
                                }}},
                          {"one corner", {.spoil = [](auto& y) { y.back() += 0.01; }}},
                          {"one element somewhere", {.spoil = [](auto& y) { y[unsampled()] += 0.01; }}},
                          {"not a number", {.spoil = [](auto& y) { y[0] = NAN; }}},
                          {"zeros", {.spoil = [](auto& y) { std::fill(y.begin(), y.end(), 0.0); }}},
                          {"left out", {.leaves_out_last = true}},
                          {"throws", {.spoil = [](auto&) { throw DeviceError("it cannot"); }}},
                          {"rounds what it multiplies", {.rounds_to_tf32 = true}}};
  for (const Fault& fault : faults) {
    SCOPED_TRACE(fault.name);
    warnings_.clear();
    FakeSpec wrong = fault.spec;
    wrong.name = std::string("wrong: ") + fault.name;
    wrong.cost = kMs / 10;
    provider_.specs = {{"right", 2 * kMs}, wrong};
    EXPECT_EQ(choice(small_conv()), "right");
    ASSERT_EQ(warnings_.size(), 1U);
    EXPECT_THAT(warnings_[0], HasSubstr(wrong.name));
    EXPECT_EQ(choice(small_conv()), "right");  // also from the cache
    EXPECT_EQ(warnings_.size(), 1U);
  }
}

TEST_F(AutotuneTest, TheFirstMayBeTheWrongOne) {
  provider_.specs = {{.name = "wrong", .cost = kMs, .spoil = [](auto& y) { y[0] += 1; }}, {"right", 2 * kMs}};
  EXPECT_EQ(choice(small_conv()), "right");
  provider_.specs[0].spoil = [](auto& y) { y.back() = NAN; };
  provider_.version = "fake 2";
  EXPECT_EQ(choice(small_conv()), "right");
}

// Of a result that is not looked at whole the end is.
TEST_F(AutotuneTest, TheEndOfALongResultIsLookedAt) {
  const LinearDesc desc{.rows = 1100, .in = 1, .out = 1000};
  provider_.specs = {{"right", 2 * kMs}, {.name = "wrong", .cost = kMs, .spoil = [](auto& y) { y.end()[-2] += 1; }}};
  EXPECT_EQ(choice(desc), "right");
}

TEST_F(AutotuneTest, RoundingToTf32IsRightWhereItIsAllowed) {
  provider_.specs = {{"right", 2 * kMs}, {.name = "tf32", .cost = kMs, .rounds_to_tf32 = true}};
  ConvDesc desc = small_conv();
  desc.tf32 = true;
  EXPECT_EQ(choice(desc), "tf32");
}

TEST_F(AutotuneTest, WithoutARightKernelThereIsNoPlanAndNothingIsKept) {
  const auto wrong = [](auto& y) { y[0] += 1; };
  provider_.specs = {{.name = "a", .cost = kMs, .spoil = wrong}, {.name = "b", .cost = kMs, .spoil = wrong}};
  for (int i = 0; i < 2; ++i) EXPECT_THROW(choice(small_conv()), DeviceError);
  provider_.specs[1].spoil = {};
  EXPECT_EQ(choice(small_conv()), "b");
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

std::vector<ConvDesc> fused_convs() {
  ConvDesc statistics = small_conv(), prologue = small_conv(), both = small_conv(),
           gradient = small_conv(ConvPass::dgrad), join = small_conv(ConvPass::dgrad),
           weights = small_conv(ConvPass::wgrad);
  statistics.epilogue = both.epilogue = ConvEpilogue::stats;
  prologue.prologue = both.prologue = weights.prologue = ConvPrologue::scale_bias_relu;
  gradient.epilogue = ConvEpilogue::drelu_bn_reduce;
  join.epilogue = ConvEpilogue::join;
  return {statistics, prologue, both, gradient, join, weights};
}

TEST_F(AutotuneTest, OfFusedConvolutionsTheQuickestThatIsRightIsTaken) {
  for (const ConvDesc& desc : fused_convs()) {
    provider_.specs = {
        {"slow", 3 * kMs}, {"quick", kMs}, {.name = "wrong", .cost = kMs / 10, .spoil = [](auto& y) { y[9] += 1; }}};
    warnings_.clear();
    EXPECT_EQ(choice(desc), "quick");
    EXPECT_EQ(origin_, Autotuner::Origin::tuned);
    EXPECT_EQ(warnings_.size(), 1U);
    EXPECT_EQ(choices_.size(), 1U);
  }
}

TEST_F(AutotuneTest, WrongSumsAndForgottenProloguesDoNotWin) {
  const std::function<void(std::vector<double>&)> faults[] = {
      [](auto& sums) { sums[3] *= 1.01; },      // of the first row, and that is small beside the second
      [](auto& sums) { sums.back() *= 0.99; },  // one channel's sum of squares, or of gradients
      [](auto& sums) { std::fill(sums.begin(), sums.end(), 0); }, [](auto& sums) { sums[0] = NAN; }};
  int warned = 0;
  for (const ConvDesc& desc : fused_convs()) {
    const bool sums = desc.epilogue != ConvEpilogue::none, prologue = desc.prologue != ConvPrologue::none;
    provider_.specs = {{"right", 2 * kMs}};
    if (prologue) provider_.specs.push_back({.name = "plain", .cost = kMs, .forgets_prologue = true});
    if (sums)
      for (const auto& fault : faults)
        provider_.specs.push_back(
            {.name = fmt::format("wrong {}", provider_.specs.size()), .cost = kMs, .spoil_sums = fault});
    warned += static_cast<int>(provider_.specs.size()) - 1;
    EXPECT_EQ(choice(desc), "right");
    EXPECT_EQ(warnings_.size(), static_cast<size_t>(warned));
  }
}

// There is nothing to choose, but a fusion that is wrong would train on in silence.
TEST_F(AutotuneTest, TheOnlyKernelOfAFusionMustBeRight) {
  for (const ConvDesc& desc : fused_convs()) {
    provider_.specs = {{.name = "wrong", .cost = kMs, .spoil = [](auto& y) { y[9] += 1; }}};
    EXPECT_THROW(choice(desc), WrongKernelsError);
    provider_.specs = {{"right", kMs}};
    EXPECT_EQ(choice(desc), "right");
  }
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
