// timm's policies, against its functions of a level and its ways to choose.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "augment/drawn_policies.h"
#include "augment/policy.h"

namespace convolt::test {
namespace {

TEST(Policies, TimmsRandAtItsLevels) {
  AugmentOptions o = with(Policy::timm_rand_increasing);
  std::map<std::string, int> counts;
  auto amounts = amounts_of(o, counts);
  ASSERT_EQ(counts.size(), 15U);
  for (const auto& [name, count] : counts) EXPECT_NEAR(count, 4000.0 / 15, 5 * std::sqrt(4000.0 / 15)) << name;
  using Set = std::set<double>;
  EXPECT_EQ(rounded_set(amounts["policy rotate"]), (Set{-27, 27}));
  EXPECT_EQ(rounded_set(amounts["policy color"]), (Set{0.19, 1.81}));
  EXPECT_EQ(rounded_set(amounts["policy posterize"]), (Set{1}));
  EXPECT_EQ(rounded_set(amounts["policy solarize"]), (Set{26}));
  EXPECT_EQ(rounded_set(amounts["policy solarize-add"]), (Set{99}));
  EXPECT_EQ(rounded_set(amounts["policy translate-x"]), (Set{-51.84, 51.84}));
  o.policy = Policy::timm_rand;
  amounts = amounts_of(o, counts);
  EXPECT_EQ(rounded_set(amounts["policy color"]), (Set{1.72}));
  EXPECT_EQ(rounded_set(amounts["policy posterize"]), (Set{3}));
  EXPECT_EQ(rounded_set(amounts["policy solarize"]), (Set{230}));
  // Levels spread about the magnitude are cut off at 10.
  o.magnitude = 5;
  o.magnitude_std = 0.5F;
  double sum = 0, squares = 0;
  const std::vector<double> shear = amounts_of(o, counts)["policy shear-x"];
  for (const double v : shear) {
    const double level = std::abs(v) / 0.03;
    sum += level;
    squares += level * level;
  }
  const double n = static_cast<double>(shear.size()), mean = sum / n;
  EXPECT_NEAR(mean, 5, 0.1);
  EXPECT_NEAR(std::sqrt(squares / n - mean * mean), 0.5, 0.08);
}

// Levels up to mmax, by timm's functions of a level: rotate 30 level / 10, posterize_increasing 4 - int(4 level / 10)
// (never below 0 bits), solarize_add min(128, int(110 level / 10)) and so on, at 12.
TEST(Policies, TimmsRandBeyondItsTenLevels) {
  AugmentOptions o = with(Policy::timm_rand_increasing);
  o.magnitude = o.magnitude_max = 12;
  check(o);
  std::map<std::string, int> counts;
  auto amounts = amounts_of(o, counts);
  using Set = std::set<double>;
  EXPECT_EQ(rounded_set(amounts["policy rotate"]), (Set{-36, 36}));
  EXPECT_EQ(rounded_set(amounts["policy color"]), (Set{0.1, 2.08}));
  EXPECT_EQ(rounded_set(amounts["policy posterize"]), (Set{0}));
  EXPECT_EQ(rounded_set(amounts["policy solarize"]), (Set{0}));
  EXPECT_EQ(rounded_set(amounts["policy solarize-add"]), (Set{128}));
  EXPECT_EQ(rounded_set(amounts["policy shear-x"]), (Set{-0.36, 0.36}));
  o.policy = Policy::timm_rand;
  o.magnitude_std = 5;
  amounts = amounts_of(o, counts);
  const std::vector<double>& color = amounts["policy color"];
  EXPECT_NEAR(*std::max_element(color.begin(), color.end()), 12 * 0.18 + 0.1, 1e-6);
  EXPECT_LT(*std::min_element(color.begin(), color.end()), 1);
}

// numpy's choice of two without replacement: the second is drawn from the rest, by the same weights.
TEST(Policies, TimmsWeightsChooseWithoutRepetition) {
  AugmentOptions o = with(Policy::timm_rand);
  o.op_set = AugmentOptions::OpSet::weights;
  o.policy_probability = 1;
  std::map<std::string, int> counts;
  auto amounts = amounts_of(o, counts);
  const std::map<std::string, double> weights{
      {"rotate", 3},      {"shear-x", 2},      {"shear-y", 2},     {"translate-x", 1},     {"translate-y", 1},
      {"color", 0.25},    {"sharpness", 0.25}, {"solarize", 0.05}, {"autocontrast", 0.25}, {"solarize-add", 0.05},
      {"contrast", 0.05}, {"equalize", 0.05},  {"invert", 0.05},   {"brightness", 0.05},   {"posterize", 0.05}};
  double sum = 0;
  for (const auto& [name, weight] : weights) sum += weight;
  for (const auto& [name, weight] : weights) {
    double share = weight / sum;
    for (const auto& [other, before] : weights)
      if (other != name) share += before / sum * weight / (sum - before);
    EXPECT_NEAR(counts["policy " + name], 4000 * share, 5 * std::sqrt(4000 * share)) << name;
  }
  EXPECT_EQ(rounded_set(amounts["policy color"]), (std::set<double>{0.19, 1.81})) << "stronger without inc1, too";
  o.policy_ops = 12;
  for (uint64_t sample = 0; sample < 200; ++sample) {
    std::set<std::string> names;
    for (const DrawnValues& d : drawn_of(o, Dice{7, 1, sample})) EXPECT_TRUE(names.insert(d.operation).second);
    EXPECT_EQ(names.size(), 12U);
  }
}

TEST(Policies, TimmsThreeAsASetOfRand) {
  AugmentOptions o = with(Policy::timm_rand);
  o.op_set = AugmentOptions::OpSet::three;
  std::map<std::string, int> counts;
  auto amounts = amounts_of(o, counts);
  ASSERT_EQ(counts.size(), 3U);
  for (const auto& [name, count] : counts) EXPECT_NEAR(count, 4000.0 / 3, 150) << name;
  EXPECT_EQ(rounded_set(amounts["policy solarize"]), (std::set<double>{26}));
  EXPECT_EQ(rounded_set(amounts["policy desaturate"]), (std::set<double>{0.05}));  // 1 - (0.5 + 0.5 * 0.9)
  EXPECT_EQ(rounded_set(amounts["policy blur"]), (std::set<double>{1.81}));        // 0.1 + 1.9 * 0.9
  o.op_set = AugmentOptions::OpSet::weighted_three;
  o.policy_ops = 1;
  o.policy_probability = 1;
  counts.clear();
  amounts_of(o, counts);
  ASSERT_EQ(counts.size(), 14U);
  for (const auto& [name, weight] : std::map<std::string, double>{{"blur", 6}, {"rotate", 3}, {"invert", 1}})
    EXPECT_NEAR(counts["policy " + name], 4000 * weight / 32, 5 * std::sqrt(4000 * weight / 32)) << name;
}

// timm's pairs are torchvision's or the TPU's, with timm's amounts: bits are 4 + int(4 level / 10), int(4 level / 10)
// (v0) or 4 - int(4 level / 10) (the variants with r).
TEST(Policies, TimmsAutoAugmentHasTimmsAmounts) {
  std::map<std::string, int> counts;
  using Set = std::set<double>;
  auto amounts = amounts_of(with(Policy::timm_original), counts);
  EXPECT_EQ(rounded_set(amounts["policy rotate"]), (Set{-27, -24, -9, 9, 24, 27}));
  EXPECT_EQ(rounded_set(amounts["policy posterize"]), (Set{6, 7}));               // levels 5 to 8
  EXPECT_EQ(rounded_set(amounts["policy color"]), (Set{0.1, 0.46, 0.82, 1.54}));  // levels 0, 2, 4, 8
  EXPECT_NEAR(counts["policy invert"] / 4000.0, (0.6 + 0.6 + 0.6) / 25, 0.015);
  amounts = amounts_of(with(Policy::timm_original_r), counts);
  EXPECT_EQ(rounded_set(amounts["policy posterize"]), (Set{1, 2}));
  counts.clear();
  amounts = amounts_of(with(Policy::timm_v0), counts);
  EXPECT_EQ(rounded_set(amounts["policy posterize"]), (Set{0, 2}));  // levels 2 and 6
  EXPECT_EQ(rounded_set(amounts["policy solarize"]), (Set{51, 76, 102, 204, 256}));
  EXPECT_EQ(rounded_set(amounts["policy solarize-add"]), (Set{33, 77}));
  EXPECT_NEAR(counts["policy invert"] / 4000.0, 0.4 / 25, 5e-3);
  EXPECT_NEAR(counts["policy equalize"] / 4000.0, (0.8 + 0.6 + 0.4 + 0.8 + 0.4 + 1 + 1 + 0.6 + 0.8 + 1 + 0.6) / 25,
              0.04);
  amounts = amounts_of(with(Policy::timm_v0_r), counts);
  EXPECT_EQ(rounded_set(amounts["policy posterize"]), (Set{2, 4}));
  AugmentOptions spread = with(Policy::timm_v0);
  spread.magnitude_std = 0.5F;
  EXPECT_GT(rounded_set(amounts_of(spread, counts)["policy rotate"]).size(), 100U);
}

}  // namespace
}  // namespace convolt::test
