// Every kind of loss, with every kind of target, against the references.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "kernel_test.h"
#include "loss.h"
#include "reference/loss.h"
#include "reference/mix.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

using Vector = std::vector<double>;

// Runs any loss of options, targets and teacher as the reference takes them.
class AnyLossTest : public OpTest {
protected:
  struct Found {
    double loss;
    Vector gradient;  // without the loss scale
    Meters meters;
    StepStatus status;
  };
  static constexpr float kScale = 8;

  Found run_loss(const reference::LossCase& c, const Vector& logits, const std::vector<RowMix>& mixes = {},
                 int32_t micro_batch = 0) const {
    const LossOptions& o = c.options;
    const auto rows = static_cast<int64_t>(c.weights.size());
    const Shape shape{rows, c.classes};
    const auto or_one = [](const auto& values) {
      return values.empty() ? Vector{0} : Vector(values.begin(), values.end());
    };
    const auto of_size = [](const Vector& v) { return Shape{static_cast<int64_t>(v.size())}; };
    const auto tensor = [&](const Vector& v) { return DeviceTensor(ctx(), DType::f32, of_size(v), v); };
    const DeviceTensor x(ctx(), dtype(), shape, logits), dx(ctx(), dtype(), shape),
        values(ctx(), DType::f32, {rows, 4});
    const DeviceTensor targets = tensor(or_one(c.targets)), teacher = tensor(or_one(c.teacher)),
                       weights = tensor(c.weights);
    const DeviceTensor class_weights = tensor(or_one(o.class_weights)), positive = tensor(or_one(o.positive_weights));
    const DeviceArray<int32_t> labels(ctx(), c.labels.empty() ? std::vector<int32_t>{0} : c.labels);
    const DeviceArray<RowMix> device_mixes(ctx(), mixes.empty() ? std::vector<RowMix>(1) : mixes);
    StepInput in;
    in.labels = labels.get();
    in.weights = weights.as<float>();
    in.targets = targets.as<float>();
    in.teacher = teacher.as<float>();
    in.mixes = device_mixes.get();
    in.weight_sum = static_cast<float>(std::accumulate(c.weights.begin(), c.weights.end(), 0.0));
    in.micro_batch = micro_batch;
    const DeviceArray<StepInput> input(ctx(), {in});
    const DeviceArray<Meters> meters(ctx(), {Meters{}});
    const DeviceArray<StepStatus> status(ctx(), {StepStatus{.loss_scale = kScale, .gradient_weight = 3}});
    LossArgs args{.logits = x, .dlogits = dx, .kind = o.kind, .dense = o.target == LossOptions::Target::dense};
    args.mixed = !mixes.empty();
    args.smoothing = o.smoothing;
    args.target_threshold = o.target_threshold.value_or(-1);
    args.class_weights = o.class_weights.empty() ? nullptr : class_weights.as<float>();
    args.positive_weights = o.positive_weights.empty() ? nullptr : positive.as<float>();
    args.ignores = o.ignore_index.has_value();
    args.ignore_index = o.ignore_index.value_or(0);
    args.focal_gamma = o.focal_gamma;
    args.focal_alpha = o.focal_alpha;
    args.distill_alpha = o.distill_alpha;
    args.temperature = o.temperature;
    args.input = input.get();
    args.row_values = values.as<float>();
    args.meters = meters.get();
    args.status = status.get();
    run(ctx(), [&](Stream s) { loss_and_gradient(s, args); });
    for (const DeviceTensor* t : {&dx, &values}) t->check_guards();
    Found found{0, dx.values(), meters.value(), status.value()};
    if (found.meters.weight > 0) found.loss = found.meters.loss / found.meters.weight;
    for (double& g : found.gradient) g /= static_cast<double>(kScale);
    return found;
  }

  void expect_as_reference(const reference::LossCase& c, const Vector& logits, const std::string& what) const {
    const Found found = run_loss(c, logits);
    const double expected = reference::loss(c, logits);
    EXPECT_NEAR(found.loss, expected, 2e-6 * std::max(1.0, expected)) << what;
    expect_near(found.gradient, reference::loss_gradient(c, logits), 1e-7, 1e-5 + epsilon(dtype()),
                what + ": gradient");
    EXPECT_EQ(found.status.first_bad_step, -1) << what;
  }
};

constexpr LossKind kAllLosses[] = {LossKind::cross_entropy, LossKind::focal, LossKind::binary_cross_entropy,
                                   LossKind::sigmoid_focal, LossKind::mean_squared_error};

// Targets of both types, and a teacher, for a few rows of which one has no weight.
reference::LossCase random_case(LossKind kind, int64_t classes, bool dense) {
  reference::LossCase c{.options = {.kind = kind}, .classes = classes, .weights = {1, 0.5, 0, 2, 1, 1}};
  const auto rows = static_cast<int64_t>(c.weights.size());
  if (dense) {
    c.options.target = LossOptions::Target::dense;
    c.targets = rounded(random_values(rows * classes, 5, 0, 1), DType::f32);
  }
  for (int64_t n = 0; n < rows; ++n) c.labels.push_back(static_cast<int32_t>(n * 7 % classes));
  c.teacher = rounded(random_values(rows * classes, 6, -3, 3), DType::f32);
  return c;
}

std::vector<float> some_weights(int64_t classes) {
  std::vector<float> w;
  for (const double v : random_values(classes, 9, 0.2, 3)) w.push_back(static_cast<float>(v));
  return w;
}

// What micro-batches are weighted by: the divisor of their loss.
TEST_P(AnyLossTest, TellsTheUpdateWhatItsGradientIsAMeanBy) {
  reference::LossCase c{.classes = 3, .weights = {1, 0.5, 0, 2, 4}, .labels = {0, 1, 1, 2, 0}};
  const Vector x = rounded(random_values(15, 1, -5, 5), dtype());
  const auto expect = [&](float divisor) {
    for (const int32_t micro_batch : {0, 1}) {
      const StepStatus status = run_loss(c, x, {}, micro_batch).status;
      EXPECT_EQ(status.loss_weight, divisor);
      EXPECT_EQ(status.gradient_weight, divisor + (micro_batch == 0 ? 0.F : 3.F));
    }
  };
  expect(7.5F);
  c.options.ignore_index = 0;
  expect(2.5F);
  c.options.class_weights = {8, 0.5F, 0.25F};
  expect(0.75F);
  c.options.ignore_index.reset();
  expect(40.75F);
  c.options.kind = LossKind::binary_cross_entropy;
  expect(7.5F);
}

TEST_P(AnyLossTest, EveryKindAndTarget) {
  for (const int64_t classes : {1, 2, 3, 9, 129})
    for (const LossKind kind : kAllLosses)
      for (const bool dense : {false, true}) {
        const Vector x = rounded(random_values(6 * classes, 1, -5, 5), dtype());
        const std::string what = "loss " + std::to_string(static_cast<int>(kind)) +
                                 (dense ? ", dense, " : ", labels, ") + std::to_string(classes) + " classes";
        reference::LossCase c = random_case(kind, classes, dense);
        const auto expect = [&](const char* now) {
          if (classes < 100) expect_as_reference(c, x, what + now);
        };
        expect("");
        if (kind != LossKind::mean_squared_error) {
          c.options.smoothing = 0.1F;
          expect(", smoothed");
        }
        if (kind != LossKind::sigmoid_focal && kind != LossKind::mean_squared_error) {
          c.options.class_weights = some_weights(classes);
          expect(", class weights");
        }
        if (!dense) {
          c.options.ignore_index = c.labels[1];
          expect(", rows ignored");
        }
        c.options.distill_alpha = 0.7F;
        c.options.temperature = 3;
        expect_as_reference(c, x, what + ", all and distilled");
      }
}

TEST_P(AnyLossTest, ParametersOfFocalAndBinaryLosses) {
  const Vector x = rounded(random_values(6 * 5, 1, -5, 5), dtype());
  for (const bool dense : {false, true}) {
    for (const float gamma : {0.F, 0.5F, 1.F, 3.5F})
      for (const float alpha : {-1.F, 0.6F})
        for (const LossKind kind : {LossKind::focal, LossKind::sigmoid_focal}) {
          reference::LossCase c = random_case(kind, 5, dense);
          c.options.focal_gamma = gamma;
          c.options.focal_alpha = alpha;
          expect_as_reference(c, x, "gamma " + std::to_string(gamma) + ", alpha " + std::to_string(alpha));
        }
    reference::LossCase binary = random_case(LossKind::binary_cross_entropy, 5, dense);
    binary.options.positive_weights = some_weights(5);
    expect_as_reference(binary, x, "positive weights");
    for (const float threshold : {0.F, 0.2F, 0.75F}) {
      binary.options.target_threshold = threshold;
      binary.options.smoothing = 0.1F;
      expect_as_reference(binary, x, "a threshold of " + std::to_string(threshold));
    }
  }
}

// import torch, torch.nn.functional as F; torch.set_default_dtype(torch.float64)
// x = torch.tensor([[1., -2, .5], [0, 3, -1], [2, 2, -.5], [-1, .25, .75]]); y = torch.tensor([0, 2, 1, 1])
// c = torch.tensor([.5, 2, 1.5]); t = torch.tensor([[.7, .2, .1], [0, 1, 0], [.25, .25, .5], [1/3, 1/3, 1/3]])
// m = torch.tensor([[1., 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]])
TEST_P(AnyLossTest, AsTorch) {
  const Vector x{1, -2, 0.5, 0, 3, -1, 2, 2, -0.5, -1, 0.25, 0.75};
  const Vector t{0.7, 0.2, 0.1, 0, 1, 0, 0.25, 0.25, 0.5, 1. / 3, 1. / 3, 1. / 3},
      m{1, 0, 1, 0, 1, 0, 0, 0, 0, 1, 1, 1};
  const std::vector<float> c{0.5F, 2, 1.5F};
  const auto dense = LossOptions::Target::dense;
  const auto loss = [&](const LossOptions& o, const Vector& targets = {}, std::vector<int32_t> labels = {0, 2, 1, 1}) {
    // z = torch.tensor([[0., 1, 2], [3, -1, 0], [.5, .5, .5], [2, 0, -2]])
    return run_loss({.options = o,
                     .classes = 3,
                     .weights = {1, 1, 1, 1},
                     .labels = std::move(labels),
                     .targets = targets,
                     .teacher = {0, 1, 2, 3, -1, 0, 0.5, 0.5, 0.5, 2, 0, -2}},
                    x)
        .loss;
  };
  // F.cross_entropy(x, y)
  EXPECT_NEAR(loss({}), 1.59515876899079, 1e-6);
  // F.cross_entropy(x, torch.tensor([0, 2, -100, 1]), weight=c, label_smoothing=.1, ignore_index=-100)
  EXPECT_NEAR(loss({.smoothing = 0.1F, .class_weights = c, .ignore_index = -100}, {}, {0, 2, -100, 1}),
              2.08617315883581, 1e-6);
  // F.cross_entropy(x, t, weight=c, label_smoothing=.1)
  EXPECT_NEAR(loss({.target = dense, .smoothing = 0.1F, .class_weights = c}, t), 1.60943808806613, 1e-6);
  // F.binary_cross_entropy_with_logits(x, m, weight=c, pos_weight=torch.tensor([2, 1, .5]))
  EXPECT_NEAR(loss({.kind = LossKind::binary_cross_entropy,
                    .target = dense,
                    .class_weights = c,
                    .positive_weights = {2, 1, 0.5F}},
                   m),
              0.88500379651531, 1e-6);
  // timm.loss.BinaryCrossEntropy(target_threshold=.2)(x, t), and (smoothing=.1, target_threshold=.02)(x, y)
  EXPECT_NEAR(loss({.kind = LossKind::binary_cross_entropy, .target = dense, .target_threshold = 0.2F}, t),
              0.49777233518094, 1e-6);
  EXPECT_NEAR(loss({.kind = LossKind::binary_cross_entropy, .smoothing = 0.1F, .target_threshold = 0.02F}),
              0.70610566851427, 1e-6);
  // lp = F.log_softmax(x, 1).gather(1, y[:, None])[:, 0]; (-c[y] * (1 - lp.exp())**2 * lp).mean()
  EXPECT_NEAR(loss({.kind = LossKind::focal, .class_weights = c}), 1.81584360581333, 1e-6);
  // torchvision.ops.sigmoid_focal_loss(x, m, .25, 2, "mean")
  EXPECT_NEAR(loss({.kind = LossKind::sigmoid_focal, .target = dense}, m), 0.24247634634433, 1e-6);
  // F.mse_loss(x, t)
  EXPECT_NEAR(loss({.kind = LossKind::mean_squared_error, .target = dense}, t), 1.59777777777778, 1e-6);
  // .7 * 9 * F.kl_div(F.log_softmax(x / 3, 1), F.softmax(z / 3, 1), reduction="batchmean") + .3 * F.cross_entropy(x, y)
  EXPECT_NEAR(loss({.distill_alpha = 0.7F, .temperature = 3}), 1.98820297845673, 1e-6);
}

TEST_P(AnyLossTest, LargeLogitsStayFinite) {
  const double large = dtype() == DType::f16 ? 4e4 : 1e6;
  for (const LossKind kind : kAllLosses) {
    reference::LossCase c = random_case(kind, 2, false);
    c.options.distill_alpha = 0.5F;
    const Vector x{large, -large, -large, large, 0, 0, large, large, 100, -100, -100, 100};
    const Found found = run_loss(c, x);
    EXPECT_EQ(found.status.first_bad_step, -1) << static_cast<int>(kind);
    // The gradient of a square may leave f16; no other is large.
    if (kind == LossKind::mean_squared_error) continue;
    for (const double g : found.gradient) EXPECT_LE(std::abs(g), 4) << static_cast<int>(kind);
  }
}

TEST_P(AnyLossTest, WhatCountsAsRight) {
  const auto counts = [&](LossKind kind, const Vector& targets, const Vector& x) {
    LossOptions o{.kind = kind, .target = LossOptions::Target::dense};
    const Meters m = run_loss({.options = o, .classes = 7, .weights = {1}, .targets = targets}, x).meters;
    return static_cast<int>(m.top1) * 10 + static_cast<int>(m.top5);
  };
  const Vector falling{7, 6, 5, 4, 3, 2, 1};
  EXPECT_EQ(counts(LossKind::cross_entropy, {0.4, 0.3, 0.3, 0, 0, 0, 0}, falling), 11);
  EXPECT_EQ(counts(LossKind::cross_entropy, {0.2, 0, 0, 0, 0.4, 0.4, 0}, falling), 1) << "the first of the largest";
  EXPECT_EQ(counts(LossKind::mean_squared_error, {-3, -2, -5, -4, -3, -1, -9}, falling), 0);
  // Several labels at once: is the best guess one of them?
  EXPECT_EQ(counts(LossKind::binary_cross_entropy, {1, 0, 0, 0, 0, 1, 1}, falling), 11);
  EXPECT_EQ(counts(LossKind::sigmoid_focal, {0, 0, 0, 0, 1, 1, 1}, falling), 1);
  EXPECT_EQ(counts(LossKind::binary_cross_entropy, {0, 0, 0, 0, 0, 1, 1}, falling), 0);
  EXPECT_EQ(counts(LossKind::binary_cross_entropy, Vector(7, 0), falling), 0) << "nothing to find";
}

TEST_P(AnyLossTest, ABatchOfIgnoredRowsOrWeightlessClassesIsZero) {
  reference::LossCase c{.options = {.ignore_index = 1}, .classes = 2, .weights = {1, 1}, .labels = {1, 1}};
  const Found ignored = run_loss(c, {NAN, 1, 2, 3});
  EXPECT_EQ(ignored.meters.weight, 0);
  EXPECT_EQ(ignored.gradient, Vector(4));
  c.options = {.class_weights = {1, 0}};
  const Found weightless = run_loss(c, {0, 1, 2, 3});
  EXPECT_EQ(weightless.loss, 0);
  EXPECT_EQ(weightless.gradient, Vector(4));
}

// For random_case(): its third row and so the fourth have no share in each other.
const std::vector<RowMix> kMixes{{0.3F, {}}, {0.5F, {1, 2, 3, 4}}, {}, {}, {0.8F, {}}, {1, {}}};

// Labels of mixed rows are the dense targets that timm makes of them.
TEST_P(AnyLossTest, MixedLabelsAreDenseTargets) {
  for (const int64_t classes : {1, 2, 3, 9})
    for (const LossKind kind : kAllLosses)
      for (const float smoothing : {0.F, 0.1F}) {
        if (smoothing > 0 && kind == LossKind::mean_squared_error) continue;
        const Vector x = rounded(random_values(6 * classes, 1, -5, 5), dtype());
        reference::LossCase labels = random_case(kind, classes, false);
        labels.options.smoothing = smoothing;
        labels.options.distill_alpha = smoothing;  // with it too
        reference::LossCase dense = labels;
        dense.options.target = LossOptions::Target::dense;
        dense.options.smoothing = 0;
        dense.targets = reference::mixed_targets(labels.labels, classes, static_cast<double>(smoothing), kMixes);
        const Found found = run_loss(labels, x, kMixes);
        const double expected = reference::loss(dense, x);
        const std::string what = "loss " + std::to_string(static_cast<int>(kind));
        EXPECT_NEAR(found.loss, expected, 2e-6 * std::max(1.0, expected)) << what << ", " << classes << " classes";
        expect_near(found.gradient, reference::loss_gradient(dense, x), 1e-7, 1e-5 + epsilon(dtype()), what);
      }
}

TEST_P(AnyLossTest, MixedLabelsByHand) {
  reference::LossCase c{.options = {.smoothing = 0.1F}, .classes = 4, .weights = {1, 1}, .labels = {0, 2}};
  // mixup_target(tensor([0, 2]), 4, 0.7, 0.1) is [[.655, .025, .295, .025], [.295, .025, .655, .025]].
  const Found found = run_loss(c, Vector(8), {{0.7F, {}}, {0.7F, {}}});
  const double far = 0.5 * (0.25 - 0.655), near = 0.5 * (0.25 - 0.295), none = 0.5 * (0.25 - 0.025);
  expect_near(found.gradient, {far, none, near, none, near, none, far, none}, 1e-7, epsilon(dtype()), "gradient");
  EXPECT_NEAR(found.loss, std::log(4.0), 1e-6);
}

// A threshold makes each label of a mixed row 1 whose part is larger.
TEST_P(AnyLossTest, AThresholdOfMixedLabels) {
  reference::LossCase labels = random_case(LossKind::binary_cross_entropy, 5, false);
  labels.options.smoothing = 0.05F;
  labels.options.target_threshold = 0.25F;
  reference::LossCase dense = labels;
  dense.options.target = LossOptions::Target::dense;
  dense.options.smoothing = 0;
  dense.targets = reference::mixed_targets(labels.labels, 5, 0.05, kMixes);
  const Vector x = rounded(random_values(6 * 5, 1, -5, 5), dtype());
  const Found found = run_loss(labels, x, kMixes);
  EXPECT_NEAR(found.loss, reference::loss(dense, x), 2e-6);
  expect_near(found.gradient, reference::loss_gradient(dense, x), 1e-7, 1e-5 + epsilon(dtype()), "gradient");
}

// Each label's class weight counts for its part, in the sum and in what it is divided by.
TEST_P(AnyLossTest, ClassWeightsOfMixedLabels) {
  for (const LossKind kind : {LossKind::cross_entropy, LossKind::focal, LossKind::binary_cross_entropy}) {
    const Vector x = rounded(random_values(6 * 5, 1, -5, 5), dtype());
    reference::LossCase labels = random_case(kind, 5, false);
    labels.options.class_weights = some_weights(5);
    reference::LossCase dense = labels;
    dense.options.target = LossOptions::Target::dense;
    dense.targets = reference::mixed_targets(labels.labels, 5, 0, kMixes);
    double all = 0, divisor = 0;
    for (size_t n = 0; n < 6; ++n) {
      all += dense.weights[n];
      for (size_t k = 0; k < 5; ++k)
        divisor += dense.weights[n] * dense.targets[n * 5 + k] * static_cast<double>(labels.options.class_weights[k]);
    }
    const double factor = kind == LossKind::cross_entropy ? all / divisor : 1;
    Vector gradient = reference::loss_gradient(dense, x);
    for (double& g : gradient) g *= factor;
    const Found found = run_loss(labels, x, kMixes);
    EXPECT_NEAR(found.loss, factor * reference::loss(dense, x), 1e-5);
    expect_near(found.gradient, gradient, 1e-7, 1e-5 + epsilon(dtype()), "gradient");
  }
}

TEST_P(AnyLossTest, AMixedRowIsCountedByTheLabelOfTheLargerPart) {
  const reference::LossCase c{.options = {}, .classes = 6, .weights = {1, 1}, .labels = {0, 5}};
  Vector x;
  for (const double first : {9.0, 9.0})
    for (int k = 0; k < 6; ++k) x.push_back(first - k);
  const auto right = [&](float first, float second) {
    const Meters m = run_loss(c, x, {{first, {}}, {second, {}}}).meters;
    return std::pair{m.top1, m.top5};
  };
  EXPECT_EQ(right(1, 1), (std::pair{1.0, 1.0}));
  EXPECT_EQ(right(0.5F, 0.5F), (std::pair{1.0, 1.0}));
  EXPECT_EQ(right(0.5F, 0.4F), (std::pair{2.0, 2.0}));
  EXPECT_EQ(right(0.4F, 0.9F), (std::pair{0.0, 0.0}));
}

TEST_P(AnyLossTest, AnInvalidLabelOfEitherRowIsNoNumber) {
  const reference::LossCase c{.options = {}, .classes = 2, .weights = {1, 0}, .labels = {0, 7}};
  EXPECT_TRUE(std::isnan(run_loss(c, Vector(4), {{0.5F, {}}, {}}).loss));
  EXPECT_FALSE(std::isnan(run_loss(c, Vector(4), {{1, {}}, {}}).loss));
}

TEST_P(AnyLossTest, TheSameBitsWithPhasesBackwards) {
  for (const LossKind kind : kAllLosses)
    for (const bool dense : {false, true}) {
      reference::LossCase c = random_case(kind, 200, dense);
      if (kind == LossKind::cross_entropy) c.options.class_weights = some_weights(200);
      c.options.distill_alpha = 0.5F;
      c.options.temperature = 2;
      const Vector x = random_values(6 * 200, 1, -5, 5);
      const Found forwards = run_loss(c, x);
      const PhasesBackwards backwards;
      const Found again = run_loss(c, x);
      EXPECT_EQ(again.gradient, forwards.gradient) << static_cast<int>(kind);
      EXPECT_EQ(again.loss, forwards.loss) << static_cast<int>(kind);
      EXPECT_EQ(again.meters.top5, forwards.meters.top5) << static_cast<int>(kind);
    }
}

INSTANTIATE_OP_TEST(AnyLossTest);

}  // namespace
}  // namespace convolt::test
