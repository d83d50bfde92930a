#include "conv/widen.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "support/device.h"

namespace convolt::test {
namespace {

class WidenTest : public testing::TestWithParam<DType> {};

// Through 16 bits and back is rounding to nearest, ties to even, as the oracle's arithmetic on doubles does it.
TEST_P(WidenTest, NarrowingRoundsAsTheOracle) {
  std::vector<float> values{0,
                            -0.F,
                            1,
                            -1,
                            1.00390625F,
                            1.01171875F,
                            1 + 0x1p-11F,
                            1 + 3 * 0x1p-11F,
                            65504,
                            65519.996F,
                            65520,
                            1e-8F,
                            0x1p-24F,
                            0x1.8p-25F,
                            3e38F,
                            -3e38F,
                            std::numeric_limits<float>::infinity(),
                            std::numeric_limits<float>::max()};
  for (const double v : random_values(1000, 3, -4, 4)) values.push_back(static_cast<float>(v));
  std::vector<uint16_t> half(values.size());
  std::vector<float> back(values.size());
  narrow(values.data(), half.data(), GetParam(), static_cast<int64_t>(values.size()));
  widen(half.data(), GetParam(), back.data(), static_cast<int64_t>(values.size()));
  for (size_t i = 0; i < values.size(); ++i)
    EXPECT_EQ(static_cast<double>(back[i]), rounded(static_cast<double>(values[i]), GetParam())) << values[i];
}

TEST_P(WidenTest, NanStaysNan) {
  const float nan = std::nanf("1");
  uint16_t half = 0;
  float back = 0;
  narrow(&nan, &half, GetParam(), 1);
  widen(&half, GetParam(), &back, 1);
  EXPECT_TRUE(std::isnan(back));
}

// Every 16-bit number survives the way there and back.
TEST_P(WidenTest, AllNumbersSurvive) {
  std::vector<uint16_t> all(65536), again(65536);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
  std::vector<float> wide(all.size());
  widen(all.data(), GetParam(), wide.data(), 65536);
  narrow(wide.data(), again.data(), GetParam(), 65536);
  for (size_t i = 0; i < all.size(); ++i)
    if (!std::isnan(wide[i])) {
      ASSERT_EQ(again[i], all[i]);
    }
}

TEST(Widen, F32IsACopy) {
  const std::vector<float> values{1, 2.5F, -3};
  std::vector<float> there(3), back(3);
  narrow(values.data(), there.data(), DType::f32, 3);
  widen(there.data(), DType::f32, back.data(), 3);
  EXPECT_EQ(back, values);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, WidenTest, testing::Values(DType::bf16, DType::f16),
                         [](const auto& test) { return std::string(name_of(test.param)); });

}  // namespace
}  // namespace convolt::test
