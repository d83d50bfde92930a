#include "data/order.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "data/sampler.h"
#include "loader_fixture.h"

namespace convolt::test {
namespace {

// Classes 0, 2 and 5 of 1, 3 and 8 samples; sample i weighs i + 1.
class Uneven final : public Dataset {
public:
  int64_t size() const override { return 12; }
  RawSample read(int64_t i) const override { return {numbered_ppm(2, 2, static_cast<int>(i)), 0, 0, 0, label(i)}; }
  int32_t label(int64_t i) const override { return i == 4 ? 0 : i % 4 == 1 ? 2 : 5; }
  float weight(int64_t i) const override { return static_cast<float>(i + 1); }
};

TEST(Order, ShufflesAsThePermutationDoes) {
  const Uneven data;
  const Order order(data, Sampler::shuffle, 9);
  for (uint32_t epoch = 0; epoch < 3; ++epoch)
    for (int64_t p = 0; p < 12; ++p) {
      const int64_t sample = Permutation(12, 9, epoch)(p);
      EXPECT_EQ(order(epoch, p), (Shown{sample, static_cast<uint64_t>(sample)}));
    }
}

TEST(Order, BalancedShowsEachClassInEachRoundAndItsSamplesInTurn) {
  const Uneven data;
  const Order order(data, Sampler::balanced, 9);
  std::set<std::vector<int32_t>> orders_of_classes;
  for (uint32_t epoch = 0; epoch < 2; ++epoch) {
    std::map<int32_t, std::vector<int64_t>> shown;
    std::set<uint64_t> drawn;
    for (int64_t round = 0; round < 24; ++round) {
      std::vector<int32_t> classes;
      for (int64_t p = 3 * round; p < 3 * round + 3; ++p) {
        const Shown s = order(epoch, p);
        classes.push_back(data.label(s.sample));
        shown[classes.back()].push_back(s.sample);
        EXPECT_TRUE(drawn.insert(s.drawn_as).second) << p;
        EXPECT_EQ(static_cast<int64_t>(s.drawn_as % 12), s.sample);
      }
      orders_of_classes.insert(classes);
      EXPECT_EQ(std::set<int32_t>(classes.begin(), classes.end()), (std::set<int32_t>{0, 2, 5}));
    }
    EXPECT_EQ(order(epoch, 5), order(epoch, 5));
    for (const auto& [label, samples] : shown) {
      const size_t size = label == 0 ? 1 : label == 2 ? 3 : 8;
      std::set<std::vector<int64_t>> passes;
      for (size_t i = 0; i < samples.size(); i += size) {
        const std::vector<int64_t> pass(samples.begin() + static_cast<int64_t>(i),
                                        samples.begin() + static_cast<int64_t>(i + size));
        EXPECT_EQ(std::set<int64_t>(pass.begin(), pass.end()).size(), size) << label << ", pass " << i / size;
        passes.insert(pass);
      }
      EXPECT_GT(passes.size(), size > 1 ? 1U : 0U) << label;
    }
  }
  EXPECT_GT(orders_of_classes.size(), 3U);
  EXPECT_NE(order(0, 0), Order(data, Sampler::balanced, 10)(0, 0));
}

TEST(Order, WeightedDrawsByWeight) {
  const Uneven data;
  const Order order(data, Sampler::weighted, 9);
  std::vector<int> counts(12);
  std::set<uint64_t> drawn;
  constexpr int kDraws = 20000;
  for (int p = 0; p < kDraws; ++p) {
    const Shown s = order(3, p);
    ++counts[static_cast<size_t>(s.sample)];
    EXPECT_TRUE(drawn.insert(s.drawn_as).second);
  }
  for (size_t i = 0; i < 12; ++i) {
    const double expected = kDraws * static_cast<double>(i + 1) / 78;
    EXPECT_NEAR(counts[i], expected, 4 * std::sqrt(expected)) << i;
  }
}

TEST(Order, RepeatsAnyOrderAndDrawsEachAnew) {
  const Uneven data;
  for (const Sampler sampler : {Sampler::shuffle, Sampler::balanced, Sampler::weighted}) {
    const Order once(data, sampler, 9), thrice(data, sampler, 9, 3);
    std::set<uint64_t> drawn;
    for (int64_t p = 0; p < 12; ++p) {
      const Shown s = thrice(1, p);
      EXPECT_EQ(s.sample, once(1, p / 3).sample);
      EXPECT_EQ(static_cast<int64_t>(s.drawn_as % 12), s.sample);
      EXPECT_TRUE(drawn.insert(s.drawn_as).second) << p;
    }
  }
}

class OrderedLoader : public LoaderTest {};

// Through the loader: the rows, the weights of the loss, and other pictures of what is shown again.
TEST_P(OrderedLoader, RowsAreTheSamplesOfTheOrder) {
  const Uneven data;
  for (const Sampler sampler : {Sampler::balanced, Sampler::weighted}) {
    LoaderOptions o = options(12, 3);
    o.sampler = sampler;
    o.augment.rotate = 30;
    const auto batches = take(*Loader::create(context(), data, o), 12, 2);
    const Order order(data, sampler, o.seed);
    for (uint32_t epoch = 0; epoch < 2; ++epoch)
      for (int64_t p = 0; p < 12; ++p) {
        const Row& row = batches[epoch][static_cast<size_t>(p)];
        EXPECT_EQ(row.sample, order(epoch, p).sample);
        EXPECT_EQ(row.weight, sampler == Sampler::weighted ? 1 : data.weight(row.sample));
      }
    std::map<int64_t, std::set<float>> turns;
    int shown = 0;
    for (const Row& row : batches[0]) shown += turns[row.sample].insert(row.record.map[1]).second ? 1 : 0;
    EXPECT_LT(turns.size(), 12U);
    EXPECT_EQ(shown, 12) << "the same picture looks the same twice";
    EXPECT_EQ(take(*Loader::create(context(), data, o), 12, 2), batches);
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, OrderedLoader, testing::Values(Device::cpu(), Device::cuda()), device_name);

}  // namespace
}  // namespace convolt::test
