#include "loss.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "kernel_test.h"
#include "reference/loss.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

using Vector = std::vector<double>;

class LossTest : public OpTest {};

// One batch of logits with labels and weights on the device, and the state that loss_and_gradient writes.
struct Batch {
  Batch(Context& context, DType dtype, int64_t classes, const Vector& logit_values, std::vector<int32_t> label_values,
        std::vector<float> weight_values, float loss_scale = 1)
      : rows(static_cast<int64_t>(label_values.size())),
        logits(context, dtype, {rows, classes}, logit_values),
        dlogits(context, dtype, {rows, classes}),
        row_values(context, DType::f32, {rows, 4}),
        labels(context, label_values),
        weights(context, weight_values),
        input(context, {make_input(labels.get(), weights.get(), weight_values)}),
        meters(context, {Meters{}}),
        status(context, {StepStatus{.loss_scale = loss_scale}}),
        context_(&context) {}

  static StepInput make_input(const int32_t* labels, const float* weights, const std::vector<float>& values) {
    StepInput in;
    in.step = 17;
    in.labels = labels;
    in.weights = weights;
    in.weight_sum = std::accumulate(values.begin(), values.end(), 0.F);
    return in;
  }
  void operator()(float smoothing = 0, bool gradient = true) const {
    run(*context_, [&](Stream s) {
      loss_and_gradient(s, {.logits = logits,
                            .dlogits = gradient ? dlogits.tensor() : Tensor{},
                            .smoothing = smoothing,
                            .input = input.get(),
                            .row_values = row_values.as<float>(),
                            .meters = meters.get(),
                            .status = status.get(),
                            .leaves_out_bad = leaves_out_bad});
    });
    for (const DeviceTensor* t : {&dlogits, &row_values}) t->check_guards();
  }

  int64_t rows;
  DeviceTensor logits, dlogits, row_values;
  DeviceArray<int32_t> labels;
  DeviceArray<float> weights;
  DeviceArray<StepInput> input;
  DeviceArray<Meters> meters;
  DeviceArray<StepStatus> status;
  bool leaves_out_bad = false;

private:
  Context* context_;
};

TEST_P(LossTest, ByHand) {
  // Equal logits: probability 1/2 each, loss log 2 in both rows; the second row weighs 3 of 4.
  const Batch batch(ctx(), dtype(), 2, {0, 0, 5, 5}, {0, 1}, {1, 3});
  batch();
  expect_near(batch.dlogits.values(), {-0.125, 0.125, 0.375, -0.375}, 1e-6, epsilon(dtype()), "dlogits");
  const float log2 = std::log(2.F);
  expect_near(batch.row_values.values(), {log2, 1, 1, 1, log2, 3, 0, 1}, 1e-6, 0, "row values");
  const Meters m = batch.meters.value();
  expect_near({m.loss, m.weight, m.top1, m.top5}, {4 * std::log(2.0), 4, 1, 4}, 1e-6, 0, "meters");
  EXPECT_EQ(batch.status.value().first_bad_step, -1);
}

// Around the 128 threads of a block, and the class counts of MNIST, CIFAR and ImageNet.
TEST_P(LossTest, AgainstReference) {
  for (const int64_t classes : {1, 2, 3, 8, 10, 33, 127, 128, 129, 1000})
    for (const float smoothing : {0.F, 0.1F}) {
      const int64_t rows = 9;
      const Vector x = rounded(random_values(rows * classes, 1, -6, 6), dtype());
      std::vector<int32_t> labels;
      std::vector<float> weights;
      for (int32_t n = 0; n < rows; ++n) {
        labels.push_back(static_cast<int32_t>(n * 7 % classes));
        weights.push_back(n == 4 ? 0.F : 0.5F * static_cast<float>(n + 1));
      }
      const Batch batch(ctx(), dtype(), classes, x, labels, weights, 256);
      batch(smoothing);
      const auto expected =
          reference::softmax_xent(x, classes, labels, {weights.begin(), weights.end()}, static_cast<double>(smoothing));
      Vector scaled = expected.dlogits;
      for (double& v : scaled) v *= 256;
      const std::string what = std::to_string(classes) + " classes";
      expect_near(batch.dlogits.values(), scaled, 256e-7, 1e-5 + epsilon(dtype()), what + ": dlogits");
      const Meters m = batch.meters.value();
      expect_near({m.loss / m.weight, m.top1, m.top5}, {expected.loss, expected.top1, expected.top5}, 1e-6, 1e-6,
                  what + ": meters");
      const Vector values = batch.row_values.values();
      for (size_t n = 0; n < expected.row_losses.size(); ++n)
        EXPECT_NEAR(values[4 * n], expected.row_losses[n], 1e-5) << what << ", row " << n;
    }
}

TEST_P(LossTest, MetersAddUpAndGradientsDoNot) {
  const Batch batch(ctx(), dtype(), 2, {1, 0, 0, 1}, {0, 0}, {1, 1});
  batch();
  const Meters once = batch.meters.value();
  const Vector gradient = batch.dlogits.values();
  batch();
  const Meters twice = batch.meters.value();
  expect_near({twice.loss, twice.weight, twice.top1, twice.top5},
              {2 * once.loss, 2 * once.weight, 2 * once.top1, 2 * once.top5}, 0, 1e-12, "meters");
  EXPECT_EQ(batch.dlogits.values(), gradient);
}

TEST_P(LossTest, WithoutGradient) {
  const Batch batch(ctx(), dtype(), 2, {1, 0}, {0}, {1});
  const Vector untouched = batch.dlogits.values();
  batch(0, false);
  EXPECT_EQ(batch.dlogits.values(), untouched);
  EXPECT_NEAR(batch.meters.value().loss, std::log(1 + std::exp(-1.0)), 1e-6);
}

// Seven equal logits: the index decides. Then one larger, and one equal that comes later.
TEST_P(LossTest, TiesRankByIndex) {
  const auto top = [&](const Vector& logits, int32_t label) {
    const Batch batch(ctx(), dtype(), static_cast<int64_t>(logits.size()), logits, {label}, {1});
    batch();
    const Meters m = batch.meters.value();
    return static_cast<int>(m.top1) * 10 + static_cast<int>(m.top5);
  };
  const Vector equal(7, 1.5);
  EXPECT_EQ(top(equal, 0), 11);
  EXPECT_EQ(top(equal, 1), 1);
  EXPECT_EQ(top(equal, 4), 1);
  EXPECT_EQ(top(equal, 5), 0);
  EXPECT_EQ(top({1, 2, 3}, 2), 11);
  EXPECT_EQ(top({3, 2, 3}, 2), 1);
  EXPECT_EQ(top({3, 2, 3}, 0), 11);
}

TEST_P(LossTest, LargeLogitsStayFinite) {
  const Batch batch(ctx(), dtype(), 3, {-60000, 60000, 59968, -60000, -60000, -60000}, {1, 2}, {1, 1});
  batch(0.1F);
  EXPECT_EQ(batch.status.value().first_bad_step, -1);
  for (const double g : batch.dlogits.values()) EXPECT_TRUE(std::isfinite(g));
  // Masked classes: probability 0, and no NaN without smoothing.
  const Batch masked(ctx(), dtype(), 3, {0, -INFINITY, 0}, {0}, {1});
  masked();
  expect_near(masked.dlogits.values(), {-0.5, 0, 0.5}, 1e-6, 0, "masked");
  EXPECT_NEAR(masked.meters.value().loss, std::log(2.0), 1e-6);
}

// A padded row may hold anything: its logits, its label, even NaN.
TEST_P(LossTest, RowsWithoutWeightDoNotCount) {
  const Batch batch(ctx(), dtype(), 2, {NAN, INFINITY, 0, 0}, {-5, 0}, {0, 2});
  batch();
  expect_near(batch.dlogits.values(), {0, 0, -0.5, 0.5}, 1e-6, epsilon(dtype()), "dlogits");
  EXPECT_NEAR(batch.meters.value().loss, 2 * std::log(2.0), 1e-6);
  EXPECT_EQ(batch.meters.value().weight, 2);
  EXPECT_EQ(batch.status.value().first_bad_step, -1);
  const Batch none(ctx(), dtype(), 2, {1, 2}, {0}, {0});
  none();
  EXPECT_EQ(none.dlogits.values(), (Vector{0, 0}));
  EXPECT_EQ(none.meters.value().loss, 0);
}

TEST_P(LossTest, NonFiniteLossIsLatchedOnce) {
  const Vector bad_logits[] = {{0, NAN}, {INFINITY, 0}, {-INFINITY, 0}, {-INFINITY, -INFINITY}};
  for (const Vector& logits : bad_logits) {
    Vector x = logits;
    x.insert(x.end(), {0, 0});
    const Batch batch(ctx(), dtype(), 2, x, {0, 1}, {1, 1});
    batch();
    EXPECT_EQ(batch.status.value().first_bad_step, 17) << logits[0] << ", " << logits[1];
    EXPECT_FALSE(std::isfinite(batch.meters.value().loss));
  }
  const Batch invalid(ctx(), dtype(), 2, {0, 0, 0, 0}, {2, 0}, {1, 1});
  invalid();
  EXPECT_TRUE(std::isnan(invalid.row_values.values()[0]));
  EXPECT_EQ(invalid.row_values.values()[3], 0);
  StepInput later = invalid.input.value();
  later.step = 30;
  ctx().compute().copy(invalid.input.get(), &later, sizeof later);
  invalid();
  EXPECT_EQ(invalid.status.value().first_bad_step, 17);
  EXPECT_EQ(invalid.status.value().last_bad_step, 30);
}

TEST_P(LossTest, ABadBatchCanBeLeftOutOfTheMeters) {
  Batch batch(ctx(), dtype(), 2, {0, 0, 0, NAN}, {0, 1}, {1, 1});
  batch.leaves_out_bad = true;
  batch();
  const Meters m = batch.meters.value();
  EXPECT_EQ(m.loss, 0);
  EXPECT_EQ(m.weight, 0);
  EXPECT_EQ(m.top1, 0);
  EXPECT_EQ(batch.status.value().last_bad_step, 17);
  Batch good(ctx(), dtype(), 2, {0, 0}, {0}, {1});
  good.leaves_out_bad = true;
  good();
  EXPECT_EQ(good.meters.value().weight, 1);
  EXPECT_EQ(good.status.value().last_bad_step, -1);
}

TEST_P(LossTest, Softmax) {
  for (const int64_t classes : {1, 3, 128, 300}) {
    const Vector x = rounded(random_values(5 * classes, 1, -20, 20), dtype());
    const DeviceTensor logits(ctx(), dtype(), {5, classes}, x), p(ctx(), DType::f32, {5, classes});
    run(ctx(), [&](Stream s) { softmax(s, logits, p.as<float>()); });
    expect_near(p.values(), reference::softmax(x, classes), 1e-12, 5e-6, "softmax");
    p.check_guards();
  }
}

TEST_P(LossTest, TheSameBitsAgainAndWithPhasesBackwards) {
  const int64_t classes = 300, rows = 600;
  std::vector<int32_t> labels(static_cast<size_t>(rows), 3);
  const Batch batch(ctx(), dtype(), classes, random_values(rows * classes, 1, -3, 3), labels,
                    std::vector<float>(static_cast<size_t>(rows), 0.7F));
  const DeviceTensor p(ctx(), DType::f32, {rows, classes});
  const auto results = [&] {
    const Meters zero;
    ctx().compute().copy(batch.meters.get(), &zero, sizeof zero);
    ctx().compute().synchronize();
    batch(0.1F);
    run(ctx(), [&](Stream s) { softmax(s, batch.logits, p.as<float>()); });
    const Meters m = batch.meters.value();
    Vector all{m.loss, m.weight, m.top1, m.top5};
    for (const DeviceTensor* t : {&batch.dlogits, &batch.row_values, &p}) {
      const Vector v = t->values();
      all.insert(all.end(), v.begin(), v.end());
    }
    return all;
  };
  const Vector once = results();
  EXPECT_EQ(results(), once);
  const PhasesBackwards backwards;
  EXPECT_EQ(results(), once);
}

// Losses and derivatives from elsewhere are weighted, scaled and counted as those of any kind.
TEST_P(LossTest, GivenLossesAndGradient) {
  const Batch batch(ctx(), dtype(), 3, {1, 2, 3, 6, 5, 4, 0, 0, 0}, {2, 1, 0}, {1, 3, 0}, 8);
  const DeviceTensor losses(ctx(), DType::f32, {3}, {0.5, 2, NAN});
  const DeviceTensor slopes(ctx(), DType::f32, {3, 3}, {1, -1, 0.5, 2, 0, -2, NAN, NAN, NAN});
  run(ctx(), [&](Stream s) {
    loss_and_gradient(s, {.logits = batch.logits,
                          .dlogits = batch.dlogits,
                          .given_losses = losses.as<float>(),
                          .given_gradient = slopes.as<float>(),
                          .input = batch.input.get(),
                          .row_values = batch.row_values.as<float>(),
                          .meters = batch.meters.get(),
                          .status = batch.status.get()});
  });
  batch.dlogits.check_guards();
  EXPECT_EQ(batch.dlogits.values(), (Vector{2, -2, 1, 12, 0, -12, 0, 0, 0}));  // times 8 weight / 4
  EXPECT_EQ(batch.row_values.values(), (Vector{0.5, 1, 1, 1, 2, 3, 0, 1, 0, 0, 0, 0}));
  const Meters m = batch.meters.value();
  expect_near({m.loss, m.weight, m.top1, m.top5}, {6.5, 4, 1, 4}, 0, 0, "meters");
  EXPECT_EQ(batch.status.value().first_bad_step, -1);
}

INSTANTIATE_OP_TEST(LossTest);

}  // namespace
}  // namespace convolt::test
