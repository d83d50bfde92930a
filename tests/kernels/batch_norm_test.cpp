#include "batch_norm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "norm_on_device.h"
#include "reference/conv.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

class BatchNormTest : public OpTest {};

void expect_statistics(const Norm& norm, const Vector& x, double relative, const std::string& what) {
  const auto m = reference::channel_moments(x, norm.channels);
  const auto running =
      reference::updated_running({Vector(m.mean.size(), 0.5), Vector(m.mean.size(), 2)}, m, norm.rows, 0.25);
  Vector invstd, scale, bias;
  for (size_t c = 0; c < m.mean.size(); ++c) {
    invstd.push_back(1 / std::sqrt(m.variance[c] + norm.params.eps));
    scale.push_back(norm.params.gamma[c] * invstd[c]);
    bias.push_back(norm.params.beta[c] - m.mean[c] * scale[c]);
  }
  expect_near(norm.coefficient(0), m.mean, 1e-7, relative, what + ": mean");
  expect_near(norm.coefficient(1), invstd, 0, relative, what + ": inverse deviation");
  expect_near(norm.coefficient(2), scale, 0, relative, what + ": scale");
  expect_near(norm.coefficient(3), bias, 1e-5, relative, what + ": bias");
  expect_near(norm.running_mean.values(), running.mean, 1e-7, relative, what + ": running mean");
  expect_near(norm.running_var.values(), running.variance, 0, relative, what + ": running variance");
}

// Plain sums, as a convolution's epilogue makes them, give the same but for the accuracy that they lose: over so many
// rows the mean is less than the deviation.
TEST_P(BatchNormTest, PlainSumsFinalizeAsShiftedOnes) {
  for (const int64_t rows : {63, 64, 65, 200})
    for (const int channels : kChannels) {
      const Vector values = rounded(random_values(rows * channels, 3), dtype());
      const DeviceTensor x(ctx(), dtype(), {rows, channels}, values), sums(ctx(), DType::f32, {2, channels});
      const DeviceTensor low(ctx(), DType::f16, {2, channels});
      const Norm norm(ctx(), rows, channels), exact(ctx(), rows, channels);
      run(ctx(), [&](Stream s) {
        channel_sums(s, x, norm.scratch.as<float>(), sums.as<float>());
        BnFinalizeArgs args = norm.args();
        args.stats = sums.as<float>();
        args.raw_sums = true;
        bn_finalize(s, args);
        args = exact.args();
        args.stats = sums.as<float>();
        args.raw_sums = true;
        args.low = low;
        bn_finalize(s, args);
      });
      const std::string name = case_name("plain sums", rows, channels);
      expect_statistics(norm, values, 1e-4, name);
      norm.check_guards();
      sums.check_guards();
      low.check_guards();
      // With low ones, scale and bias are those, everywhere.
      Vector both = norm.coefficient(2), bias = norm.coefficient(3);
      both.insert(both.end(), bias.begin(), bias.end());
      for (double& v : both) v = test::rounded(v, DType::f16);
      EXPECT_EQ(low.values(), both) << name;
      Vector coefficients = exact.coefficient(2), biases = exact.coefficient(3);
      coefficients.insert(coefficients.end(), biases.begin(), biases.end());
      EXPECT_EQ(coefficients, both) << name;
    }
}

TEST_P(BatchNormTest, StatisticsAreSumsAndCoefficients) {
  for (const int64_t rows : kRows)
    for (const int channels : kChannels) {
      const Vector values = rounded(random_values(rows * channels, 3, 50, 51), dtype());
      const DeviceTensor x(ctx(), dtype(), {rows, channels}, values);
      const Norm apart(ctx(), rows, channels), together(ctx(), rows, channels);
      const DeviceTensor low(ctx(), dtype(), {2, channels}), expected_low(ctx(), dtype(), {2, channels});
      run(ctx(), [&](Stream s) {
        channel_stats(s, x, apart.stats.as<float>());
        BnFinalizeArgs args = apart.args();
        args.low = expected_low;
        bn_finalize(s, args);
        args = together.args();
        args.low = low;
        bn_statistics(s, x, together.stats.as<float>(), args);
      });
      const std::string name = case_name("statistics", rows, channels);
      const double order = ctx().device().is_cuda() ? 1e-6 : 0;  // of the double sums
      expect_near(together.coef.values(), apart.coef.values(), 0, order, name);
      expect_near(together.running_var.values(), apart.running_var.values(), 0, order, name);
      expect_near(low.values(), expected_low.values(), 0, order == 0 ? 0 : std::max(order, epsilon(dtype())), name);
      together.check_guards();
    }
}

TEST_P(BatchNormTest, APairIsFinalizedAsTwo) {
  const int64_t rows = 65;
  const DeviceTensor x(ctx(), dtype(), {rows, 40}, random_values(rows * 40, 3)),
      x2(ctx(), dtype(), {rows, 3}, random_values(rows * 3, 4));
  const Norm first(ctx(), rows, 40), second(ctx(), rows, 3), alone(ctx(), rows, 40), alone2(ctx(), rows, 3);
  const DeviceTensor sums(ctx(), DType::f32, {2, 40}), sums2(ctx(), DType::f32, {2, 3});
  run(ctx(), [&](Stream s) {
    const auto args = [](const Norm& norm, const DeviceTensor& from) {
      BnFinalizeArgs a = norm.args();
      a.stats = from.as<float>();
      a.raw_sums = true;
      return a;
    };
    channel_sums(s, x, first.scratch.as<float>(), sums.as<float>());
    channel_sums(s, x2, second.scratch.as<float>(), sums2.as<float>());
    bn_finalize_pair(s, args(first, sums), args(second, sums2));
    bn_finalize(s, args(alone, sums));
    bn_finalize(s, args(alone2, sums2));
  });
  EXPECT_EQ(first.coef.values(), alone.coef.values());
  EXPECT_EQ(second.coef.values(), alone2.coef.values());
  EXPECT_EQ(first.running_mean.values(), alone.running_mean.values());
  EXPECT_EQ(second.running_var.values(), alone2.running_var.values());
  first.check_guards();
  second.check_guards();
}

TEST_P(BatchNormTest, ByHand) {
  // Two channels: 1, 3 with mean 2 and variance 1; 10, 20 with mean 15 and variance 25.
  const DeviceTensor x(ctx(), dtype(), {2, 2}, {1, 10, 3, 20}), y(ctx(), dtype(), {2, 2});
  const Norm norm(ctx(), 2, 2, 0);
  const DeviceTensor gamma(ctx(), DType::f32, {2}, {1, 2}), beta(ctx(), DType::f32, {2}, {0, 0.5});
  const BnFinalizeArgs args{.stats = norm.stats.as<float>(),
                            .chunks = 1,
                            .rows = 2,
                            .channels = 2,
                            .gamma = gamma.as<float>(),
                            .beta = beta.as<float>(),
                            .eps = 0,
                            .momentum = 0.5F,
                            .running_mean = norm.running_mean.as<float>(),
                            .running_var = norm.running_var.as<float>(),
                            .coef = norm.coef.as<float>()};
  run(ctx(), [&](Stream s) {
    channel_stats(s, x, norm.stats.as<float>());
    bn_finalize(s, args);
    bn_apply(s, x, norm.coef.as<float>(), Tensor{}, y, Activation::relu);
  });
  // The shift, the sums and the squares of x - shift.
  expect_near(norm.stats.values(), {1, 10, 2, 10, 4, 100}, 0, 0, "statistics");
  expect_near(norm.coef.values(), {2, 15, 1, 0.2, 1, 0.4, -2, -5.5}, 1e-6, 0, "coefficients");
  expect_near(norm.running_mean.values(), {1.25, 7.75}, 0, 1e-7, "running mean");
  expect_near(norm.running_var.values(), {2, 26}, 0, 1e-7, "running variance");
  expect_near(y.values(), {0, 0, 1, 2.5}, 1e-6, epsilon(dtype()), "y");
}

TEST_P(BatchNormTest, StatisticsOfAnySize) {
  for (const int64_t rows : kRows)
    for (const int channels : kChannels) {
      const Vector x = rounded(random_values(rows * channels, 1, -1, 3), dtype());
      const DeviceTensor tx(ctx(), dtype(), {rows, channels}, x);
      const Norm norm(ctx(), rows, channels);
      run(ctx(), [&](Stream s) { norm.statistics(s, tx); });
      expect_statistics(norm, x, 2e-5, case_name("statistics", rows, channels));
      norm.check_guards();
    }
}

TEST_P(BatchNormTest, StatisticsOfMoreRowsThanChunks) {
  const int64_t rows = 33000;  // 512 chunks of more than 64 rows, the last one short
  const Vector x = rounded(random_values(rows * 3, 1), dtype());
  const DeviceTensor tx(ctx(), dtype(), {2, 150, 110, 3}, x);
  const Norm norm(ctx(), rows, 3);
  run(ctx(), [&](Stream s) { norm.statistics(s, tx); });
  expect_statistics(norm, x, 2e-5, "statistics of 33000 rows");
  norm.check_guards();
}

// Raw sums of squares in float would lose all digits of the variance here: (mean / deviation)^2 is 10^6
// (10^4 in bf16).
TEST_P(BatchNormTest, LargeMeanLosesNoAccuracy) {
  const double half_width = dtype() == DType::bf16 ? 17 : 1.7;  // bf16 stores only every fourth number near 1000
  for (const int channels : {3, 16}) {
    const int64_t rows = 5000;
    const Vector x = rounded(random_values(rows * channels, 3, 1000 - half_width, 1000 + half_width), dtype());
    const DeviceTensor tx(ctx(), dtype(), {rows, channels}, x);
    const Norm norm(ctx(), rows, channels);
    run(ctx(), [&](Stream s) { norm.statistics(s, tx); });
    const auto m = reference::channel_moments(x, channels);
    Vector invstd;
    for (const double v : m.variance) invstd.push_back(1 / std::sqrt(v + 1e-5));
    expect_near(norm.coefficient(0), m.mean, 0, 1e-7, "mean");
    expect_near(norm.coefficient(1), invstd, 0, 1e-5, "inverse deviation");
  }
}

TEST_P(BatchNormTest, ConstantChannelAndNan) {
  const DeviceTensor x(ctx(), dtype(), {3, 3}, {7, 1, 2, 7, NAN, 4, 7, 1, 6});
  const Norm norm(ctx(), 3, 3);
  run(ctx(), [&](Stream s) { norm.statistics(s, x); });
  const Vector coef = norm.coef.values();
  EXPECT_EQ(coef[0], 7);
  EXPECT_NEAR(coef[3], 1 / std::sqrt(1e-5), 0.01);  // variance 0
  EXPECT_TRUE(std::isnan(coef[1]) && std::isnan(coef[4])) << "NaN must not disappear";
  EXPECT_EQ(coef[2], 4);
  for (const auto* running : {&norm.running_mean, &norm.running_var})
    for (const double v : running->values()) EXPECT_TRUE(std::isfinite(v)) << "nor stay in the running statistics";
}

TEST_P(BatchNormTest, OneRowIsAnError) {
  const Norm norm(ctx(), 1, 4);
  EXPECT_THROW(run(ctx(), [&](Stream s) { norm.finalize(s); }), ShapeError);
}

TEST_P(BatchNormTest, ApplyWithEveryActivationAndResidual) {
  const int64_t rows = 65;
  for (const int channels : {1, 3, 8, 10, 16, 33})
    for (const Act act : all_activations())
      for (const bool with_residual : {false, true}) {
        const Vector x = rounded(random_values(rows * channels, 1, -4, 12), dtype());
        const Vector r = rounded(random_values(rows * channels, 2, -4, 4), dtype());
        const DeviceTensor tx(ctx(), dtype(), {rows, channels}, x), tr(ctx(), dtype(), {rows, channels}, r);
        const DeviceTensor y(ctx(), dtype(), {rows, channels});
        const Norm norm(ctx(), rows, channels);
        run(ctx(), [&](Stream s) {
          norm.statistics(s, tx);
          bn_apply(s, tx, norm.coef.as<float>(), with_residual ? tr.tensor() : Tensor{}, y, act);
        });
        const Vector expected = reference::batch_norm(x, reference::channel_moments(x, channels), norm.params,
                                                      with_residual ? r : Vector{}, act);
        expect_near(y.values(), expected, 1e-5, 1.01 * epsilon(dtype()), case_name("bn_apply", rows, channels));
        y.check_guards();
        // In place, over x or over the residual: the same bits.
        const Vector apart = y.values();
        const DeviceTensor& target = with_residual ? tr : tx;
        run(ctx(), [&](Stream s) {
          bn_apply(s, tx, norm.coef.as<float>(), with_residual ? tr.tensor() : Tensor{}, target, act);
        });
        EXPECT_EQ(target.values(), apart) << case_name("bn_apply in place", rows, channels);
      }
}

TEST_P(BatchNormTest, Inference) {
  const int channels = 10;
  const Norm norm(ctx(), 4, channels);
  const Vector mean = rounded(random_values(channels, 5), DType::f32);
  const Vector variance = rounded(random_values(channels, 6, 0.1, 2), DType::f32);
  const DeviceTensor tm(ctx(), DType::f32, {channels}, mean), tv(ctx(), DType::f32, {channels}, variance);
  const Vector x = rounded(random_values(40, 7), dtype());
  const DeviceTensor tx(ctx(), dtype(), {4, channels}, x), y(ctx(), dtype(), {4, channels});
  run(ctx(), [&](Stream s) {
    bn_coefficients(s, channels, norm.gamma.as<float>(), norm.beta.as<float>(), tm.as<float>(), tv.as<float>(), 1e-5F,
                    norm.coef.as<float>());
    bn_apply(s, tx, norm.coef.as<float>(), Tensor{}, y, Activation::none);
  });
  const Vector expected = reference::batch_norm(x, {mean, variance}, norm.params, {}, Activation::none);
  expect_near(y.values(), expected, 1e-6, 1.01 * epsilon(dtype()), "inference");
  expect_near(norm.coefficient(0), mean, 0, 0, "mean");
  norm.check_guards();
}

// A convolution with folded weights is the convolution followed by the inference batch norm.
TEST_P(BatchNormTest, FoldIntoConvolution) {
  const ConvGeometry g{.in_h = 4, .in_w = 4, .in_c = 3, .out_c = 5, .kernel_h = 3, .kernel_w = 3, .pad = {1, 0}};
  const Vector x = random_values(g.x_shape().elements(), 1);
  const Vector w = rounded(random_values(g.w_shape().elements(), 2), DType::f32);
  const Vector bias = rounded(random_values(5, 3), DType::f32), mean = rounded(random_values(5, 4), DType::f32);
  const Vector variance = rounded(random_values(5, 5, 0.1, 2), DType::f32);
  const Norm norm(ctx(), 2, 5);
  const DeviceTensor tw(ctx(), DType::f32, g.w_shape(), w), tb(ctx(), DType::f32, {5}, bias);
  const DeviceTensor tm(ctx(), DType::f32, {5}, mean), tv(ctx(), DType::f32, {5}, variance);
  const DeviceTensor folded(ctx(), DType::f32, g.w_shape()), folded_bias(ctx(), DType::f32, {5});
  for (const bool with_bias : {false, true}) {
    run(ctx(), [&](Stream s) {
      bn_coefficients(s, 5, norm.gamma.as<float>(), norm.beta.as<float>(), tm.as<float>(), tv.as<float>(), 1e-5F,
                      norm.coef.as<float>());
      bn_fold(s, tw, with_bias ? tb.as<float>() : nullptr, norm.coef.as<float>(), folded, folded_bias.as<float>());
    });
    const Vector new_bias = folded_bias.values();
    const Vector plain = reference::conv_fprop(g, x, w, with_bias ? &bias : nullptr);
    const Vector expected = reference::batch_norm(plain, {mean, variance}, norm.params, {}, Activation::none);
    expect_near(reference::conv_fprop(g, x, folded.values(), &new_bias), expected, 1e-5, 1e-5, "folded");
    folded.check_guards();
    folded_bias.check_guards();
  }
}

TEST_P(BatchNormTest, ChannelSumsAndBias) {
  for (const int64_t rows : {1, 64, 65, 1000})
    for (const int channels : {1, 3, 8, 10, 33, 72}) {
      const Vector x = rounded(random_values(rows * channels, 1), dtype());
      const Vector b = rounded(random_values(channels, 2), DType::f32);
      const DeviceTensor tx(ctx(), dtype(), {rows, channels}, x), y(ctx(), dtype(), {rows, channels});
      const DeviceTensor bias(ctx(), DType::f32, {channels}, b), sum(ctx(), DType::f32, {channels});
      const DeviceTensor sums(ctx(), DType::f32, {2, channels});
      const Norm norm(ctx(), rows, channels);
      run(ctx(), [&](Stream s) {
        channel_sum(s, tx, norm.scratch.as<float>(), sum.as<float>());
        channel_sums(s, tx, norm.scratch.as<float>(), sums.as<float>());
        add_bias(s, tx, bias.as<float>(), y);
      });
      Vector with_bias = x, squares = x, expected_sums = reference::bias_gradient(x, channels);
      for (double& v : squares) v *= v;
      const Vector sums_of_squares = reference::bias_gradient(squares, channels);
      expected_sums.insert(expected_sums.end(), sums_of_squares.begin(), sums_of_squares.end());
      for (size_t i = 0; i < x.size(); ++i) with_bias[i] += b[i % b.size()];
      expect_near(sum.values(), reference::bias_gradient(x, channels), 1e-6 * static_cast<double>(rows), 1e-6,
                  case_name("channel_sum", rows, channels));
      expect_near(sums.values(), expected_sums, 1e-6 * static_cast<double>(rows), 1e-6,
                  case_name("channel_sums", rows, channels));
      expect_near(y.values(), with_bias, 1e-7, 1.01 * epsilon(dtype()), case_name("add_bias", rows, channels));
      for (const DeviceTensor* t : {&y, &sum, &sums}) t->check_guards();
      norm.check_guards();
    }
}

Vector all_results(Context& context, DType dtype, int64_t rows, int channels) {
  const Shape shape{rows, channels};
  const DeviceTensor x(context, dtype, shape, random_values(rows * channels, 1));
  const DeviceTensor dy(context, dtype, shape, random_values(rows * channels, 2)), dx(context, dtype, shape);
  const Norm norm(context, rows, channels);
  const DeviceTensor sum(context, DType::f32, {channels});
  run(context, [&](Stream s) {
    norm.statistics(s, x);
    bn_backward_reduce(s, dy, x, Tensor{}, norm.coef.as<float>(), Activation::relu, norm.scratch.as<float>(),
                       norm.dgamma.as<float>(), norm.dbeta.as<float>());
    bn_backward_apply(s, dy, x, Tensor{}, norm.coef.as<float>(), Activation::relu, norm.dgamma.as<float>(),
                      norm.dbeta.as<float>(), dx, Tensor{});
    channel_sum(s, dx, norm.scratch.as<float>(), sum.as<float>());
  });
  Vector all;
  for (const DeviceTensor* t : {&norm.stats, &norm.coef, &norm.running_var, &norm.dgamma, &norm.dbeta, &dx, &sum}) {
    const Vector v = t->values();
    all.insert(all.end(), v.begin(), v.end());
  }
  return all;
}

TEST_P(BatchNormTest, TheSameBitsAgainAndWithPhasesBackwards) {
  for (const int channels : {3, 40}) {
    const Vector once = all_results(ctx(), dtype(), 3000, channels);
    EXPECT_EQ(all_results(ctx(), dtype(), 3000, channels), once);
    const PhasesBackwards backwards;
    EXPECT_EQ(all_results(ctx(), dtype(), 3000, channels), once);
  }
}

TEST(BatchNorm, TheSameBitsForAnyNumberOfThreads) {
  const auto one = Context::create({Device::cpu(), 1}), three = Context::create({Device::cpu(), 3});
  for (const int channels : {3, 40})
    EXPECT_EQ(all_results(*one, DType::f32, 3000, channels), all_results(*three, DType::f32, 3000, channels));
}

INSTANTIATE_OP_TEST(BatchNormTest);

}  // namespace
}  // namespace convolt::test
