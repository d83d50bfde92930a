#include "convolt/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace convolt::test {
namespace {

TEST(Schedule, CosineFallsFromBaseToMinimum) {
  const ScheduleOptions o{.kind = ScheduleOptions::Kind::cosine, .base = 1, .total_steps = 100, .minimum = 0.2};
  EXPECT_DOUBLE_EQ(learning_rate(o, 0), 1);
  EXPECT_NEAR(learning_rate(o, 50), 0.6, 1e-12);
  EXPECT_NEAR(learning_rate(o, 25), 0.2 + 0.8 * (1 + std::sqrt(0.5)) / 2, 1e-12);
  EXPECT_NEAR(learning_rate(o, 100), 0.2, 1e-12);
}

TEST(Schedule, WarmUpIsLinearAndTheRestFollowsIt) {
  const ScheduleOptions o{
      .kind = ScheduleOptions::Kind::cosine, .base = 2, .total_steps = 110, .warmup_steps = 10, .warmup_factor = 0.1};
  EXPECT_DOUBLE_EQ(learning_rate(o, 0), 0.2);
  EXPECT_NEAR(learning_rate(o, 5), 1.1, 1e-12);
  EXPECT_DOUBLE_EQ(learning_rate(o, 10), 2);
  EXPECT_NEAR(learning_rate(o, 60), 1, 1e-12);
}

TEST(Schedule, StepDecaysCountFromTheEndOfTheWarmUp) {
  const ScheduleOptions o{.kind = ScheduleOptions::Kind::step,
                          .base = 1,
                          .total_steps = 100,
                          .warmup_steps = 5,
                          .step_size = 10,
                          .gamma = 0.5};
  EXPECT_DOUBLE_EQ(learning_rate(o, 14), 1);
  EXPECT_DOUBLE_EQ(learning_rate(o, 15), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(o, 25), 0.25);
}

TEST(Schedule, ConstantIsConstant) {
  const ScheduleOptions o{.kind = ScheduleOptions::Kind::constant, .base = 0.3, .total_steps = 10};
  EXPECT_DOUBLE_EQ(learning_rate(o, 0), 0.3);
  EXPECT_DOUBLE_EQ(learning_rate(o, 9), 0.3);
}

}  // namespace
}  // namespace convolt::test
