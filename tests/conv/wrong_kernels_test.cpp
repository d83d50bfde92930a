// Kernels that are wrong are found out, and not taken however quick they are.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "conv/autotune_fixture.h"

namespace convolt::test {
namespace {

using testing::HasSubstr;

class WrongKernels : public AutotuneTest {};

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

TEST_F(WrongKernels, AWrongResultMayNotWin) {
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

TEST_F(WrongKernels, TheFirstMayBeTheWrongOne) {
  provider_.specs = {{.name = "wrong", .cost = kMs, .spoil = [](auto& y) { y[0] += 1; }}, {"right", 2 * kMs}};
  EXPECT_EQ(choice(small_conv()), "right");
  provider_.specs[0].spoil = [](auto& y) { y.back() = NAN; };
  provider_.version = "fake 2";
  EXPECT_EQ(choice(small_conv()), "right");
}

// Of a result that is not looked at whole the end is.
TEST_F(WrongKernels, TheEndOfALongResultIsLookedAt) {
  const LinearDesc desc{.rows = 1100, .in = 1, .out = 1000};
  provider_.specs = {{"right", 2 * kMs}, {.name = "wrong", .cost = kMs, .spoil = [](auto& y) { y.end()[-2] += 1; }}};
  EXPECT_EQ(choice(desc), "right");
}

TEST_F(WrongKernels, RoundingToTf32IsRightWhereItIsAllowed) {
  provider_.specs = {{"right", 2 * kMs}, {.name = "tf32", .cost = kMs, .rounds_to_tf32 = true}};
  ConvDesc desc = small_conv();
  desc.tf32 = true;
  EXPECT_EQ(choice(desc), "tf32");
}

TEST_F(WrongKernels, WithoutARightKernelThereIsNoPlanAndNothingIsKept) {
  const auto wrong = [](auto& y) { y[0] += 1; };
  provider_.specs = {{.name = "a", .cost = kMs, .spoil = wrong}, {.name = "b", .cost = kMs, .spoil = wrong}};
  for (int i = 0; i < 2; ++i) EXPECT_THROW(choice(small_conv()), DeviceError);
  provider_.specs[1].spoil = {};
  EXPECT_EQ(choice(small_conv()), "b");
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

TEST_F(WrongKernels, OfFusedConvolutionsTheQuickestThatIsRightIsTaken) {
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

TEST_F(WrongKernels, WrongSumsAndForgottenProloguesDoNotWin) {
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
TEST_F(WrongKernels, TheOnlyKernelOfAFusionMustBeRight) {
  for (const ConvDesc& desc : fused_convs()) {
    provider_.specs = {{.name = "wrong", .cost = kMs, .spoil = [](auto& y) { y[9] += 1; }}};
    EXPECT_THROW(choice(desc), WrongKernelsError);
    provider_.specs = {{"right", kMs}};
    EXPECT_EQ(choice(desc), "right");
  }
}

}  // namespace
}  // namespace convolt::test
