#include "channels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "kernel_test.h"
#include "reference/channels.h"
#include "stochastic_depth.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

using Vector = std::vector<double>;

class ChannelsTest : public OpTest {
protected:
  Vector random(int64_t n, uint64_t seed) const { return rounded(random_values(n, seed), dtype()); }
};

TEST_P(ChannelsTest, CopyOfRanges) {
  struct Case {
    int64_t rows, from_channels, from_first, to_channels, to_first, count;
  };
  // Whole packets; one extent after the other off the packet; single channels; everything.
  const Case cases[] = {{3, 16, 8, 24, 16, 8}, {3, 17, 8, 24, 16, 8}, {3, 16, 8, 25, 16, 8},
                        {3, 16, 7, 24, 16, 8}, {3, 16, 8, 24, 15, 8}, {3, 16, 8, 24, 16, 7},
                        {1, 1, 0, 1, 0, 1},    {65, 5, 4, 3, 0, 1},   {70, 32, 0, 32, 0, 32}};
  for (const Case& c : cases)
    for (const bool zeros : {false, true}) {
      const Vector x = random(c.rows * c.from_channels, 1), before = random(c.rows * c.to_channels, 2);
      const DeviceTensor from(ctx(), dtype(), {c.rows, c.from_channels}, x),
          to(ctx(), dtype(), {c.rows, c.to_channels}, before);
      run(ctx(),
          [&](Stream s) { copy_channels(s, zeros ? Tensor{} : from.tensor(), c.from_first, to, c.to_first, c.count); });
      Vector expected = before;
      for (int64_t row = 0; row < c.rows; ++row)
        for (int64_t i = 0; i < c.count; ++i)
          expected[static_cast<size_t>(row * c.to_channels + c.to_first + i)] =
              zeros ? 0 : x[static_cast<size_t>(row * c.from_channels + c.from_first + i)];
      EXPECT_EQ(to.values(), expected) << c.from_channels << " from " << c.from_first << " to " << c.to_channels
                                       << " from " << c.to_first << ": " << c.count;
      to.check_guards();
    }
}

TEST_P(ChannelsTest, ShuffleByHandAndBack) {
  const DeviceTensor x(ctx(), dtype(), {1, 6}, {0, 1, 2, 3, 4, 5}), y(ctx(), dtype(), {1, 6});
  run(ctx(), [&](Stream s) { channel_shuffle(s, x, y, 2); });
  EXPECT_EQ(y.values(), (Vector{0, 3, 1, 4, 2, 5}));
  for (const auto& [rows, channels, groups] :
       {std::array<int64_t, 3>{3, 16, 2}, {2, 24, 3}, {5, 15, 5}, {1, 1, 1}, {65, 8, 8}, {4, 58, 2}}) {
    const Vector v = random(rows * channels, 3);
    const DeviceTensor from(ctx(), dtype(), {rows, channels}, v), to(ctx(), dtype(), {rows, channels}),
        back(ctx(), dtype(), {rows, channels});
    run(ctx(), [&](Stream s) {
      channel_shuffle(s, from, to, groups);
      channel_shuffle(s, to, back, channels / groups);
    });
    EXPECT_EQ(to.values(), reference::channel_shuffle(v, channels, groups)) << channels << " by " << groups;
    EXPECT_EQ(back.values(), v) << channels << " by " << groups;
    EXPECT_EQ(reference::channel_shuffle_backward(to.values(), channels, groups), v);
    to.check_guards();
  }
}

TEST_P(ChannelsTest, ProductsAndTheirGradients) {
  for (const int64_t channels : {1, 3, 8, 10, 16, 40, 264})
    for (const int64_t pixels : {1, 5, 130}) {
      const int64_t pictures = 3;
      const Shape shape{pictures, pixels, 1, channels};
      const Vector a = random(shape.elements(), 1), b = random(pictures * channels, 2),
                   dy = random(shape.elements(), 3);
      const DeviceTensor ta(ctx(), dtype(), shape, a), tb(ctx(), dtype(), {pictures, channels}, b),
          tdy(ctx(), dtype(), shape, dy), y(ctx(), dtype(), shape), db(ctx(), dtype(), {pictures, channels});
      run(ctx(), [&](Stream s) {
        mul(s, ta, tb, y);
        mul_backward_broadcast(s, tdy, ta, db);
      });
      const std::string what = " of " + shape.to_string();
      expect_near(y.values(), reference::mul(a, b, pixels, channels), 0x1p-24, 1.01 * epsilon(dtype()), "mul" + what);
      expect_near(db.values(), reference::mul_backward(dy, a, b, pixels, channels).db,
                  1e-6 * static_cast<double>(pixels), 1.01 * epsilon(dtype()), "db" + what);
      for (const DeviceTensor* t : {&y, &db}) t->check_guards();
      // In place; and equal shapes over the other operand.
      const Vector apart = y.values();
      run(ctx(), [&](Stream s) { mul(s, ta, tb, ta); });
      EXPECT_EQ(ta.values(), apart) << what;
      run(ctx(), [&](Stream s) { mul(s, y, tdy, tdy); });
      expect_near(tdy.values(), reference::mul(apart, dy, 1, channels), 0x1p-24, 1.01 * epsilon(dtype()),
                  "equal shapes" + what);
    }
}

TEST_P(ChannelsTest, LearntScales) {
  for (const int64_t rows : {1, 64, 65, 1000})
    for (const int64_t channels : {1, 3, 8, 10, 33, 72}) {
      const Vector x = random(rows * channels, 1), dy = random(rows * channels, 2);
      const Vector scale = rounded(random_values(channels, 3), DType::f32);
      const DeviceTensor tx(ctx(), dtype(), {rows, channels}, x), tdy(ctx(), dtype(), {rows, channels}, dy),
          ts(ctx(), DType::f32, {channels}, scale), y(ctx(), dtype(), {rows, channels}),
          dscale(ctx(), DType::f32, {channels}),
          scratch(ctx(), DType::f32, {scale_channels_scratch(rows, channels) / 4});
      const auto backward = [&] {
        run(ctx(), [&](Stream s) { scale_channels_backward(s, tdy, tx, scratch.as<float>(), dscale.as<float>()); });
      };
      run(ctx(), [&](Stream s) { scale_channels(s, tx, ts.as<float>(), y); });
      backward();
      const std::string what = " of " + tx.tensor().shape.to_string();
      expect_near(y.values(), reference::mul(x, scale, rows, channels), 0x1p-24, 1.01 * epsilon(dtype()),
                  "scale" + what);
      expect_near(dscale.values(), reference::mul_backward(dy, x, scale, rows, channels).db,
                  1e-6 * static_cast<double>(rows), 1e-6, "dscale" + what);
      for (const DeviceTensor* t : {&y, &dscale, &scratch}) t->check_guards();
      const Vector once = dscale.values();
      const PhasesBackwards backwards;
      backward();
      EXPECT_EQ(dscale.values(), once) << what;
    }
}

TEST_P(ChannelsTest, StochasticDepthKeepsOrDropsWholeRows) {
  const int64_t rows = 2000;
  for (const int64_t row_elements : {1, 5, 8, 24}) {
    const Vector x = rounded(random_values(rows * row_elements, 1, 1, 2), dtype());
    const DeviceTensor tx(ctx(), dtype(), {rows, row_elements}, x), y(ctx(), dtype(), {rows, row_elements});
    const auto drawn = [&](int64_t step, uint32_t layer, int64_t first_row) {
      const DeviceArray<StepInput> input(ctx(), {StepInput{.step = step, .seed = 7, .first_row = first_row}});
      run(ctx(), [&](Stream s) { stochastic_depth(s, tx, y, 0.25F, layer, input.get()); });
      Vector kept;
      const Vector values = y.values();
      for (int64_t row = 0; row < rows; ++row) {
        const auto first = static_cast<size_t>(row * row_elements);
        kept.push_back(values[first] != 0);
        for (size_t i = first; i < first + static_cast<size_t>(row_elements); ++i)
          EXPECT_NEAR(values[i], kept.back() * x[i] / 0.75, 1e-6 + 2 * epsilon(dtype()) * x[i]);
      }
      y.check_guards();
      return kept;
    };
    const Vector kept = drawn(3, 1, 0), shifted = drawn(3, 1, 10);
    double count = 0;
    for (const double k : kept) count += k;
    EXPECT_NEAR(count / static_cast<double>(rows), 0.75, 0.04);
    EXPECT_NE(kept, drawn(4, 1, 0));
    EXPECT_NE(kept, drawn(3, 2, 0));
    EXPECT_TRUE(std::equal(kept.begin() + 10, kept.end(), shifted.begin())) << "rows of the global batch";
  }
}

INSTANTIATE_OP_TEST(ChannelsTest);

}  // namespace
}  // namespace convolt::test
