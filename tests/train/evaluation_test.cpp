#include "convolt/evaluation.h"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "convolt/error.h"
#include "core/philox.h"

namespace convolt::test {
namespace {

using testing::ElementsAre;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Logits of two classes whose first has probability p.
void push_pair(std::vector<float>& logits, double p) {
  logits.push_back(static_cast<float>(std::log(p / (1 - p))));
  logits.push_back(0);
}

// Five samples of three classes, and one that could not be read.
const std::vector<float> kLogits{3, 1, 0, 1, 2, 0, 0, 5, 1, 0, 1, 0.5F, 2, 1, 0, kNan, kNan, kNan};
const std::vector<int32_t> kLabels{0, 0, 1, 1, 2, -1};

TEST(Evaluation, CountsByHand) {
  const Evaluation e = evaluate(kLogits, kLabels, 3, {.top_k = 2});
  EXPECT_THAT(e.predicted, ElementsAre(0, 1, 1, 1, 0, testing::_));
  EXPECT_EQ(e.samples, 5);
  EXPECT_EQ(e.top1.hits, 3);
  EXPECT_EQ(e.topk.hits, 4);
  EXPECT_DOUBLE_EQ(e.topk.value(), 0.8);
  EXPECT_THAT(confusion_matrix(kLabels, e.predicted, 3), ElementsAre(1, 1, 0, 0, 2, 0, 1, 0, 0));
}

TEST(Evaluation, ScoresOfEachClassByHand) {
  const Evaluation e = evaluate(kLogits, kLabels, 3);
  EXPECT_DOUBLE_EQ(*e.per_class[0].precision(), 0.5);
  EXPECT_DOUBLE_EQ(*e.per_class[0].recall(), 0.5);
  EXPECT_DOUBLE_EQ(*e.per_class[1].precision(), 2.0 / 3);
  EXPECT_DOUBLE_EQ(*e.per_class[1].recall(), 1);
  EXPECT_DOUBLE_EQ(*e.per_class[1].f1(), 0.8);
  EXPECT_FALSE(e.per_class[2].precision().has_value());
  EXPECT_DOUBLE_EQ(*e.per_class[2].recall(), 0);
  EXPECT_DOUBLE_EQ(e.macro.precision, (0.5 + 2.0 / 3) / 3);
  EXPECT_DOUBLE_EQ(e.macro.recall, 0.5);
  EXPECT_DOUBLE_EQ(e.macro.f1, 1.3 / 3);
}

// A class that nobody has and nothing is taken for is in no mean.
TEST(Evaluation, ClassesWithoutSamples) {
  const std::vector<float> logits{1, 0, 0, 0, 1, 0};
  const std::vector<int32_t> labels{0, 1};
  const Evaluation e = evaluate(logits, labels, 3);
  EXPECT_FALSE(e.per_class[2].recall().has_value());
  EXPECT_FALSE(e.per_class[2].f1().has_value());
  EXPECT_DOUBLE_EQ(e.macro.f1, 1);
}

TEST(Evaluation, EqualLogitsGoToTheFirstClass) {
  const std::vector<float> logits{1, 1, 1, 1, 1, 1};
  const std::vector<int32_t> labels{0, 0, 1};
  const Evaluation e = evaluate(logits, labels, 2, {.top_k = 9});
  EXPECT_THAT(e.predicted, ElementsAre(0, 0, 0));
  EXPECT_EQ(e.top1.hits, 2);
  EXPECT_EQ(e.top_k, 2);
  EXPECT_EQ(e.topk.hits, 3);
}

TEST(Evaluation, WilsonIntervals) {
  const auto near = [](Proportion p, double low, double high) {
    EXPECT_NEAR(p.interval().low, low, 5e-5);
    EXPECT_NEAR(p.interval().high, high, 5e-5);
  };
  near({8, 10}, 0.4902, 0.9433);
  near({0, 10}, 0, 0.2775);
  near({10, 10}, 0.7225, 1);
  near({932, 1017}, 0.8978, 0.9319);
  near({0, 0}, 0, 1);
  EXPECT_EQ((Proportion{10, 10}.interval().high), 1);
  EXPECT_EQ((Proportion{0, 10}.interval().low), 0);
}

TEST(Evaluation, LossIsTheMeanCrossEntropy) {
  std::vector<float> logits;
  for (const double p : {0.75, 0.75, 0.2}) push_pair(logits, p);
  const std::vector<int32_t> labels{0, 1, 1};
  const Evaluation e = evaluate(logits, labels, 2);
  EXPECT_NEAR(e.loss[0], -std::log(0.75), 1e-6);
  EXPECT_NEAR(e.loss[1], -std::log(0.25), 1e-6);
  EXPECT_NEAR(e.plain.loss, -(std::log(0.75) + std::log(0.25) + std::log(0.8)) / 3, 1e-6);
}

// Three samples at confidence 0.9, two of them right; two at 0.62, both right.
TEST(Evaluation, CalibrationErrorByHand) {
  std::vector<float> logits;
  for (const double p : {0.9, 0.9, 0.9, 0.38, 0.38}) push_pair(logits, p);
  const std::vector<int32_t> labels{0, 0, 1, 1, 1};
  const Evaluation e = evaluate(logits, labels, 2);
  EXPECT_NEAR(e.plain.ece, 0.6 * (0.9 - 2.0 / 3) + 0.4 * (1 - 0.62), 1e-6);
  ASSERT_EQ(e.plain.bins.size(), 15U);
  EXPECT_EQ(e.plain.bins[13].count, 3);  // (13/15, 14/15]
  EXPECT_NEAR(e.plain.bins[13].confidence, 0.9, 1e-6);
  EXPECT_NEAR(e.plain.bins[13].accuracy, 2.0 / 3, 1e-12);
  EXPECT_EQ(e.plain.bins[9].count, 2);
}

TEST(Evaluation, ABinHoldsItsUpperEdge) {
  const std::vector<float> logits{0, 0, 1000, 0};
  const std::vector<int32_t> labels{0, 0};
  const Evaluation e = evaluate(logits, labels, 2, {.bins = 2});
  EXPECT_EQ(e.plain.bins[0].count, 1);  // confidence 1/2
  EXPECT_EQ(e.plain.bins[1].count, 1);  // 1
}

// Logits (a, 0) of which the part f is right: sigmoid(a / T) = f.
TEST(Evaluation, TemperatureByHand) {
  const std::vector<float> logits{2, 0, 2, 0, 2, 0, 2, 0};
  const std::vector<int32_t> labels{0, 0, 0, 1};
  const Evaluation e = evaluate(logits, labels, 2);
  EXPECT_NEAR(e.temperature, 2 / std::log(3), 1e-5);
  EXPECT_NEAR(e.scaled.loss, -(0.75 * std::log(0.75) + 0.25 * std::log(0.25)), 1e-9);
  EXPECT_NEAR(e.scaled.ece, 0, 1e-5);
  EXPECT_GT(e.plain.ece, 0.1);
}

TEST(Evaluation, TemperatureAtItsLimits) {
  const std::vector<float> logits{2, 0, 3, 0};
  EXPECT_NEAR(evaluate(logits, std::vector<int32_t>{0, 0}, 2).temperature, 0.01, 1e-12);  // all right
  EXPECT_NEAR(evaluate(logits, std::vector<int32_t>{1, 1}, 2).temperature, 100, 1e-9);    // all wrong
  EXPECT_EQ(evaluate(std::vector<float>{5, -3}, std::vector<int32_t>{0, 0}, 1).temperature, 1);
  EXPECT_EQ(evaluate({}, {}, 4).temperature, 1);
}

struct Drawn {
  std::vector<float> logits;
  std::vector<int32_t> labels;
};

// Noise with a bias to the label; every eleventh sample was not read.
Drawn drawn(int64_t samples, int64_t classes, float strength) {
  Drawn d;
  for (int64_t i = 0; i < samples; ++i) {
    const auto label = static_cast<int32_t>(i % classes);
    d.labels.push_back(i % 11 == 10 ? -1 : label);
    for (int64_t k = 0; k < classes; ++k) {
      const Philox4 r = philox(9, static_cast<uint64_t>(i), static_cast<uint64_t>(k));
      d.logits.push_back(strength * (2 * uniform(r.v[0]) - 1 + (k == label ? 0.5F : 0.F)));
    }
  }
  return d;
}

double loss_at(const Drawn& d, int64_t classes, double temperature) {
  double sum = 0, count = 0;
  for (size_t i = 0; i < d.labels.size(); ++i) {
    if (d.labels[i] < 0) continue;
    double total = 0;
    const float* z = d.logits.data() + i * static_cast<size_t>(classes);
    for (int64_t k = 0; k < classes; ++k) total += std::exp(z[k] / temperature);
    sum += std::log(total) - z[d.labels[i]] / temperature;
    ++count;
  }
  return sum / count;
}

TEST(Evaluation, NoNeighbourOfTheTemperatureIsBetter) {
  for (const float strength : {0.2F, 3.F, 40.F}) {
    const Drawn d = drawn(300, 7, strength);
    const Evaluation e = evaluate(d.logits, d.labels, 7);
    EXPECT_NEAR(e.plain.loss, loss_at(d, 7, 1), 1e-9 * (1 + e.plain.loss));
    const double least = loss_at(d, 7, e.temperature);
    EXPECT_NEAR(e.scaled.loss, least, 1e-9);
    EXPECT_LE(least, loss_at(d, 7, e.temperature * 1.001)) << strength;
    EXPECT_LE(least, loss_at(d, 7, e.temperature / 1.001)) << strength;
  }
}

TEST(Evaluation, TheSameBitsForAnyNumberOfThreads) {
  const Drawn d = drawn(1000, 5, 4);
  const Evaluation one = evaluate(d.logits, d.labels, 5), three = evaluate(d.logits, d.labels, 5, {.threads = 3});
  EXPECT_EQ(one.plain.loss, three.plain.loss);
  EXPECT_EQ(one.temperature, three.temperature);
  EXPECT_EQ(one.scaled.ece, three.scaled.ece);
  EXPECT_EQ(one.predicted, three.predicted);
}

TEST(Evaluation, RefusesWhatMakesNoSense) {
  const std::vector<int32_t> label{2};
  EXPECT_THROW(evaluate(std::vector<float>{1, 2}, label, 2), UsageError);
  EXPECT_THROW(evaluate(std::vector<float>{1, 2}, label, 3), UsageError);
  EXPECT_THROW(evaluate(std::vector<float>{1, 2, 3}, label, 3, {.top_k = 0}), UsageError);
  EXPECT_THROW(evaluate(std::vector<float>{1, kNan, 3}, label, 3), NonFiniteError);
}

TEST(Softmax, OfLargeLogits) {
  const std::vector<float> logits{1000, 1000, -1000};
  EXPECT_THAT(softmax(logits), ElementsAre(0.5, 0.5, 0));
}

}  // namespace
}  // namespace convolt::test
