#include "data/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <vector>

namespace convolt::test {
namespace {

std::vector<int64_t> order(int64_t n, uint64_t seed, uint32_t epoch) {
  const Permutation permutation(n, seed, epoch);
  std::vector<int64_t> result;
  for (int64_t i = 0; i < n; ++i) result.push_back(permutation(i));
  return result;
}

TEST(Permutation, TakesEachSampleOnce) {
  for (int64_t n = 1; n < 200; ++n) {
    const std::vector<int64_t> result = order(n, 5, 2);
    const std::set<int64_t> distinct(result.begin(), result.end());
    EXPECT_EQ(static_cast<int64_t>(distinct.size()), n);
    EXPECT_EQ(*distinct.begin(), 0);
    EXPECT_EQ(*distinct.rbegin(), n - 1);
  }
}

TEST(Permutation, DependsOnSeedAndEpochAlone) {
  EXPECT_EQ(order(100, 1, 0), order(100, 1, 0));
  EXPECT_NE(order(100, 1, 0), order(100, 1, 1));
  EXPECT_NE(order(100, 1, 0), order(100, 2, 0));
}

// The order is part of a run's format: resumed runs of older checkpoints need the same one.
TEST(Permutation, NeverChanges) {
  const std::vector<int64_t> found = order(10, 1, 0);
  EXPECT_EQ(found, (std::vector<int64_t>{2, 5, 9, 7, 3, 1, 0, 4, 6, 8}));
}

// Each sample comes to each place about equally often.
TEST(Permutation, IsFair) {
  constexpr int kSize = 7, kEpochs = 14000;
  std::array<std::array<int, kSize>, kSize> counts{};
  for (uint32_t epoch = 0; epoch < kEpochs; ++epoch) {
    const Permutation permutation(kSize, 11, epoch);
    for (int64_t i = 0; i < kSize; ++i) ++counts[static_cast<size_t>(i)][static_cast<size_t>(permutation(i))];
  }
  for (const auto& row : counts)
    for (const int count : row) EXPECT_NEAR(count, kEpochs / kSize, 6 * std::sqrt(kEpochs / kSize));
}

TEST(Permutation, LargeSetsStayInside) {
  const int64_t n = (int64_t{1} << 40) + 12345;
  const Permutation permutation(n, 3, 9);
  std::set<int64_t> distinct;
  for (int64_t i = 0; i < 1000; ++i) {
    const int64_t sample = permutation(n - 1 - i);
    EXPECT_GE(sample, 0);
    EXPECT_LT(sample, n);
    distinct.insert(sample);
  }
  EXPECT_EQ(distinct.size(), 1000U);
}

TEST(ReplacementSample, IsPureAndInside) {
  std::set<int64_t> drawn;
  for (int attempt = 0; attempt < 16; ++attempt) {
    const int64_t sample = replacement_sample(1, 2, 3, attempt, 1000);
    EXPECT_EQ(sample, replacement_sample(1, 2, 3, attempt, 1000));
    EXPECT_GE(sample, 0);
    EXPECT_LT(sample, 1000);
    drawn.insert(sample);
  }
  EXPECT_GT(drawn.size(), 12U);
  EXPECT_NE(replacement_sample(1, 2, 3, 0, 1 << 30), replacement_sample(1, 2, 4, 0, 1 << 30));
}

}  // namespace
}  // namespace convolt::test
