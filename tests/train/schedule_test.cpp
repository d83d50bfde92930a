#include "convolt/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <utility>
#include <vector>

#include "convolt/error.h"

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

using Kind = ScheduleOptions::Kind;

void expect_rates(const ScheduleOptions& o, const std::vector<std::pair<int64_t, double>>& expected) {
  for (const auto& [step, rate] : expected) EXPECT_NEAR(learning_rate(o, step), rate, 1e-11) << "step " << step;
}

// Numbers of torch 2.15: the optimizer's rate before each step of 0.5-rate schedulers from torch.optim.lr_scheduler.
TEST(Schedule, AgreesWithTorch) {
  // MultiStepLR(o, [3, 7], 0.1)
  expect_rates({.kind = Kind::multistep, .base = 0.5, .total_steps = 10, .milestones = {3, 7}, .gamma = 0.1},
               {{2, 0.5}, {3, 0.05}, {6, 0.05}, {7, 0.005}});
  // PolynomialLR(o, 10, 2.0)
  expect_rates({.kind = Kind::polynomial, .base = 0.5, .total_steps = 10, .power = 2},
               {{0, 0.5}, {1, 0.405}, {5, 0.125}, {9, 0.005}});
  // ExponentialLR(o, 0.9)
  expect_rates({.kind = Kind::exponential, .base = 0.5, .total_steps = 10, .step_size = 1, .gamma = 0.9},
               {{0, 0.5}, {1, 0.45}, {5, 0.295245}, {9, 0.1937102445}});
  // CosineAnnealingLR(o, 10, 0.01)
  expect_rates({.kind = Kind::cosine, .base = 0.5, .total_steps = 10, .minimum = 0.01},
               {{0, 0.5}, {1, 0.488008846492}, {5, 0.255}, {9, 0.0219911535077}});
  // CosineAnnealingWarmRestarts(o, 10, 2, 0.01)
  expect_rates(
      {.kind = Kind::cosine_restarts, .base = 0.5, .total_steps = 70, .minimum = 0.01, .restarts = 2, .cycle_mult = 2},
      {{0, 0.5},
       {1, 0.488008846492},
       {9, 0.0219911535077},
       {10, 0.5},
       {29, 0.0130163565542},
       {30, 0.5},
       {31, 0.499244746765},
       {69, 0.0107552532354}});
  // OneCycleLR(o, 0.5, total_steps=20)
  expect_rates(
      {.kind = Kind::one_cycle, .base = 0.5, .total_steps = 20},
      {{0, 0.02}, {1, 0.06583592135}, {4, 0.45416407865}, {5, 0.5}, {6, 0.493732003118}, {12, 0.250001}, {19, 2e-06}});
  // Where nothing is left to rise in, it begins at the top.
  expect_rates({.kind = Kind::one_cycle, .base = 0.5, .total_steps = 10, .rise = 0.1}, {{0, 0.5}, {9, 2e-06}});
  expect_rates({.kind = Kind::one_cycle, .base = 0.5, .total_steps = 1}, {{0, 0.5}});
}

// ReduceLROnPlateau(o, factor=0.5, patience=1, threshold=0.01) after each of these losses.
TEST(Schedule, PlateauAgreesWithTorch) {
  ScheduleOptions o{.kind = Kind::plateau, .base = 0.5, .gamma = 0.5, .patience = 1, .threshold = 0.01};
  PlateauState state, of_accuracy;
  const std::pair<double, double> expected[] = {{1, 0.5},    {0.9, 0.5},   {0.895, 0.5}, {0.893, 0.25}, {0.8, 0.25},
                                                {0.8, 0.25}, {0.8, 0.125}, {0.8, 0.125}, {0.8, 0.0625}, {0.7, 0.0625}};
  for (const auto& [loss, rate] : expected) {
    observe(o, state, loss);
    EXPECT_DOUBLE_EQ(learning_rate(o, 0, state), rate) << "loss " << loss;
  }
  o.minimum = 0.1;
  EXPECT_DOUBLE_EQ(learning_rate(o, 0, state), 0.1);
  o.of_accuracy = true;
  for (const double top1 : {0.5, 0.6, 0.6}) observe(o, of_accuracy, top1);
  EXPECT_EQ(of_accuracy.scale, 1);
  observe(o, of_accuracy, 0.6);
  EXPECT_EQ(of_accuracy.scale, 0.5);
}

TEST(Schedule, NaNIsNoBestForPlateau) {
  const ScheduleOptions o{.kind = Kind::plateau, .base = 1, .gamma = 0.5, .patience = 1};
  PlateauState state;
  for (const double loss : {static_cast<double>(NAN), 0.9, 0.8, 0.7, 0.6}) observe(o, state, loss);
  EXPECT_EQ(learning_rate(o, 0, state), 1);
  EXPECT_EQ(state.best, 0.6);
  for (const double loss : {static_cast<double>(NAN), static_cast<double>(NAN)}) observe(o, state, loss);
  EXPECT_EQ(learning_rate(o, 0, state), 0.5);
  EXPECT_EQ(state.best, 0.6);
}

TEST(Schedule, CoolDownIsLinearFromWhereTheScheduleHasCome) {
  const ScheduleOptions o{.kind = Kind::constant,
                          .base = 1,
                          .total_steps = 100,
                          .warmup_steps = 10,
                          .warmup_factor = 0.5,
                          .cooldown_steps = 20,
                          .minimum = 0.2};
  expect_rates(o, {{0, 0.5}, {5, 0.75}, {10, 1}, {79, 1}, {80, 1}, {90, 0.6}, {99, 0.24}, {100, 0.2}, {500, 0.2}});
  // The schedule itself ends where the cool-down begins.
  const ScheduleOptions poly{
      .kind = Kind::polynomial, .base = 1, .total_steps = 30, .warmup_steps = 10, .cooldown_steps = 10, .minimum = 0.5};
  expect_rates(poly, {{10, 1}, {15, 0.75}, {20, 0.5}, {29, 0.5}});
}

TEST(Schedule, NamesGoBothWays) {
  for (const char* name : {"constant", "step", "multistep", "cosine", "cosine-restarts", "one-cycle", "polynomial",
                           "exponential", "plateau"})
    EXPECT_EQ(name_of(schedule_kind_from_name(name)), name);
  EXPECT_THROW(schedule_kind_from_name("cos"), UsageError);
}

}  // namespace
}  // namespace convolt::test
