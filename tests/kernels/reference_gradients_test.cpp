// The double references are the truth of all other tests; here central differences and small hand-made cases prove
// them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numeric>

#include "kernel_test.h"
#include "reference/batch_norm.h"
#include "reference/channels.h"
#include "reference/conv.h"
#include "reference/loss.h"
#include "reference/norm.h"
#include "reference/optimizer.h"
#include "reference/pooling.h"
#include "reference/resample.h"
#include "support/device.h"

namespace convolt::test {
namespace {

using testing::DoubleNear;
using testing::Pointwise;
using Vector = std::vector<double>;

double dot(const Vector& a, const Vector& b) { return std::inner_product(a.begin(), a.end(), b.begin(), 0.0); }

// EXPECTs that `gradient` is the gradient at x of dot(dy, f(x)).
void expect_gradient(const std::function<Vector(const Vector&)>& f, const Vector& dy, Vector x, const Vector& gradient,
                     const char* what) {
  ASSERT_EQ(x.size(), gradient.size()) << what;
  constexpr double kStep = 1e-5;
  for (size_t i = 0; i < x.size(); ++i) {
    const double kept = x[i];
    x[i] = kept + kStep;
    const double above = dot(f(x), dy);
    x[i] = kept - kStep;
    const double below = dot(f(x), dy);
    x[i] = kept;
    EXPECT_NEAR(gradient[i], (above - below) / (2 * kStep), 1e-7) << what << "[" << i << "]";
  }
}

TEST(Reference, ConvolutionByHand) {
  // 3x3 picture, 2x2 ones as weights: sums of the windows.
  const Vector x{1, 2, 3, 4, 5, 6, 7, 8, 9}, ones(4, 1), bias{10};
  const ConvGeometry plain{.in_h = 3, .in_w = 3, .kernel_h = 2, .kernel_w = 2};
  EXPECT_EQ(reference::conv_fprop(plain, x, ones, nullptr), (Vector{12, 16, 24, 28}));
  EXPECT_EQ(reference::conv_fprop(plain, x, ones, &bias), (Vector{22, 26, 34, 38}));
  ConvGeometry strided = plain;
  strided.stride_h = strided.stride_w = 2;
  strided.pad = 1;
  EXPECT_EQ(reference::conv_fprop(strided, x, ones, nullptr), (Vector{1, 5, 11, 28}));
  ConvGeometry dilated = plain;
  dilated.dilation_h = dilated.dilation_w = 2;
  EXPECT_EQ(reference::conv_fprop(dilated, x, {1, 10, 100, 1000}, nullptr), (Vector{1 + 30 + 700 + 9000}));
  // Two groups of two channels into two outputs each, at one pixel: OHWI weights [4, 1, 1, 2].
  const ConvGeometry grouped{.in_c = 4, .out_c = 4, .groups = 2};
  EXPECT_EQ(reference::conv_fprop(grouped, {1, 2, 3, 4}, {1, 0, 0, 1, 1, 1, 2, -1}, nullptr), (Vector{1, 2, 7, 2}));
}

TEST(Reference, ConvolutionGradients) {
  const ConvGeometry geometries[] = {
      {.n = 2, .in_h = 4, .in_w = 3, .in_c = 2, .out_c = 3, .kernel_h = 3, .kernel_w = 2, .pad = {1, 0}},
      {.in_h = 5,
       .in_w = 6,
       .in_c = 2,
       .out_c = 2,
       .kernel_h = 3,
       .kernel_w = 3,
       .stride_h = 2,
       .stride_w = 3,
       .pad = {1, 2}},
      {.in_h = 5, .in_w = 5, .in_c = 1, .out_c = 2, .kernel_h = 2, .kernel_w = 2, .dilation_h = 3, .dilation_w = 2},
      {.in_h = 3, .in_w = 3, .in_c = 4, .out_c = 6, .kernel_h = 2, .kernel_w = 2, .pad = {0, 1}, .groups = 2},
      {.in_h = 3, .in_w = 3, .in_c = 3, .out_c = 3, .kernel_h = 3, .kernel_w = 3, .pad = 1, .groups = 3}};
  for (const ConvGeometry& g : geometries) {
    const Vector x = random_values(g.x_shape().elements(), 1), w = random_values(g.w_shape().elements(), 2);
    const Vector dy = random_values(g.y_shape().elements(), 3), bias = random_values(g.out_c, 4);
    const std::string what = g.to_string();
    expect_gradient([&](const Vector& v) { return reference::conv_fprop(g, v, w, &bias); }, dy, x,
                    reference::conv_dgrad(g, dy, w), (what + " dgrad").c_str());
    expect_gradient([&](const Vector& v) { return reference::conv_fprop(g, x, v, &bias); }, dy, w,
                    reference::conv_wgrad(g, x, dy), (what + " wgrad").c_str());
    expect_gradient([&](const Vector& v) { return reference::conv_fprop(g, x, w, &v); }, dy, bias,
                    reference::bias_gradient(dy, g.out_c), (what + " bias").c_str());
  }
}

TEST(Reference, Linear) {
  const LinearDesc d{.rows = 2, .in = 3, .out = 2};
  const Vector x{1, 2, 3, 4, 5, 6}, w{1, 0, 0, 1, 1, 1}, bias{10, 20}, dy{1, 2, -1, 3};
  EXPECT_EQ(reference::linear_fprop(d, x, w, &bias), (Vector{11, 26, 14, 35}));
  expect_gradient([&](const Vector& v) { return reference::linear_fprop(d, v, w, nullptr); }, dy, x,
                  reference::linear_dgrad(d, dy, w), "linear dgrad");
  expect_gradient([&](const Vector& v) { return reference::linear_fprop(d, x, v, nullptr); }, dy, w,
                  reference::linear_wgrad(d, x, dy), "linear wgrad");
}

TEST(Reference, Activations) {
  const Vector x{-4, -2, -0.5, 0.5, 2.9, 3.1, 5.9, 6.1, 9}, dy{-3, 1, 2, 3, 4, 8, 5, 6, 7};
  for (const Act a : all_activations())
    expect_gradient([&](const Vector& v) { return reference::activation(v, a); }, dy, x,
                    reference::activation_backward(dy, x, a), std::string(name_of(a.kind)).c_str());
}

TEST(Reference, ActivationsAsTorch) {
  // x = torch.tensor([-3.5, -1, 0.5, 2], dtype=torch.float64); torch.nn.functional.silu(x), ...
  const Vector x{-3.5, -1, 0.5, 2};
  const std::pair<Act, Vector> all[] = {
      {Activation::silu, {-0.102592807629747, -0.268941421369995, 0.311229665600927, 1.76159415595576}},
      {Activation::gelu, {-0.00081420177662439, -0.158655253931457, 0.345731230637007, 1.95449973610364}},
      {Activation::hardswish, {-0, -0.333333333333333, 0.291666666666667, 1.66666666666667}},
      {Activation::hardsigmoid, {0, 0.333333333333333, 0.583333333333333, 0.833333333333333}},
      {Activation::mish, {-0.104095754486371, -0.303401461374109, 0.375245211304895, 1.94395895953399}},
      {Activation::sigmoid, {0.0293122307513563, 0.268941421369995, 0.622459331201855, 0.880797077977882}},
      {Activation::tanh, {-0.998177897611199, -0.761594155955765, 0.46211715726001, 0.964027580075817}},
      {{Activation::leaky_relu, 0.25F}, {-0.875, -0.25, 0.5, 2}}};
  for (const auto& [act, y] : all)
    EXPECT_THAT(reference::activation(x, act), Pointwise(DoubleNear(1e-12), y)) << name_of(act.kind);
}

TEST(Reference, BatchNormByHand) {
  // One channel 1, 3: mean 2, variance 1, unbiased 2.
  const auto m = reference::channel_moments({1, 3}, 1);
  EXPECT_EQ(m.mean, Vector{2});
  EXPECT_EQ(m.variance, Vector{1});
  const reference::BatchNormParams p{{2}, {5}, 0};
  EXPECT_EQ(reference::batch_norm({1, 3}, m, p, {}, Activation::none), (Vector{3, 7}));
  EXPECT_EQ(reference::batch_norm({1, 3}, m, p, {-4, -4}, Activation::relu), (Vector{0, 3}));
  const auto running = reference::updated_running({{0}, {1}}, m, 2, 0.25);
  EXPECT_EQ(running.mean, Vector{0.5});
  EXPECT_EQ(running.variance, Vector{1.25});
}

TEST(Reference, BatchNormGradients) {
  const int64_t channels = 3;
  const Vector x = random_values(21, 1, 0, 3), dy = random_values(21, 2), residual = random_values(21, 3);
  const reference::BatchNormParams p{{1.5, -0.5, 0.8}, {0.1, 0.2, -0.3}, 1e-3};
  for (const Act act : all_activations())
    for (const Vector& r : {Vector{}, residual}) {
      const auto forward = [&](const Vector& v, const reference::BatchNormParams& q, const Vector& s) {
        return reference::batch_norm(v, reference::channel_moments(v, channels), q, s, act);
      };
      const auto g = reference::batch_norm_backward(dy, x, p, r, act);
      expect_gradient([&](const Vector& v) { return forward(v, p, r); }, dy, x, g.dx, "bn dx");
      const auto of_gamma = [&](const Vector& v) { return forward(x, {v, p.beta, p.eps}, r); };
      expect_gradient(of_gamma, dy, p.gamma, g.dgamma, "bn dgamma");
      const auto of_beta = [&](const Vector& v) { return forward(x, {p.gamma, v, p.eps}, r); };
      expect_gradient(of_beta, dy, p.beta, g.dbeta, "bn dbeta");
      if (!r.empty())
        expect_gradient([&](const Vector& v) { return forward(x, p, v); }, dy, r, g.dresidual, "bn dresidual");
    }
}

TEST(Reference, NormByHand) {
  // One picture of two pixels and four channels: two groups with 1, 3, 5, 7 and 2, 3, 2, 3; then pixel by pixel.
  const double d = std::sqrt(5.0);
  const reference::NormParams groups{{1, 2, 1, 1}, {0, 0, 0, 9}, 2, 2, 0.0};
  const Vector y = reference::norm({1, 3, 2, 3, 5, 7, 2, 3}, groups);
  EXPECT_THAT(y, Pointwise(DoubleNear(1e-12), Vector{-3 / d, -2 / d, -1, 10, 1 / d, 6 / d, -1, 10}));
  const reference::NormParams pixels{{1, 1, 1, 1}, {0, 0, 0, 0}, 1, 1, 0.0};
  EXPECT_THAT(reference::norm({1, 3, 1, 3, 5, 5, 7, 7}, pixels),
              Pointwise(DoubleNear(1e-12), Vector{-1, 1, -1, 1, -1, -1, 1, 1}));
}

TEST(Reference, NormGradients) {
  const Vector x = random_values(36, 1, 0, 3), dy = random_values(36, 2);  // 36: 3 x 2 pixels, 6 channels
  for (const auto& [pixels, groups] : {std::pair<int64_t, int64_t>{1, 1}, {2, 3}, {3, 2}, {6, 1}, {2, 6}}) {
    const reference::NormParams p{{1.5, -0.5, 0.8, 1, 2, -1}, {0.1, 0.2, -0.3, 0, 1, 2}, pixels, groups, 1e-2};
    const auto with = [&](const Vector& gamma, const Vector& beta) {
      return reference::NormParams{gamma, beta, p.pixels, p.groups, p.eps};
    };
    const auto g = reference::norm_backward(dy, x, p);
    expect_gradient([&](const Vector& v) { return reference::norm(v, p); }, dy, x, g.dx, "norm dx");
    expect_gradient([&](const Vector& v) { return reference::norm(x, with(v, p.beta)); }, dy, p.gamma, g.dgamma,
                    "norm dgamma");
    expect_gradient([&](const Vector& v) { return reference::norm(x, with(p.gamma, v)); }, dy, p.beta, g.dbeta,
                    "norm dbeta");
  }
}

TEST(Reference, Pools) {
  const Shape shape{2, 5, 4, 3};
  const Vector x = random_values(shape.elements(), 5);
  for (const PoolWindow w : {PoolWindow{}, PoolWindow{3, 3, 2, 2, {1, 1}}, PoolWindow{3, 2, 1, 1, {0, 1}},
                             PoolWindow{3, 3, 2, 2, {1, 1}, true}, PoolWindow{2, 3, 2, 2, {0, 1, 1, 0}, true, false}}) {
    const Vector dy = random_values(reference::pooled_shape(shape, w).elements(), 6);
    expect_gradient([&](const Vector& v) { return reference::max_pool(v, shape, w).y; }, dy, x,
                    reference::max_pool_backward(dy, x, shape, w), "max pool");
    expect_gradient([&](const Vector& v) { return reference::avg_pool(v, shape, w); }, dy, x,
                    reference::avg_pool_backward(dy, shape, w), "avg pool");
  }
  const Vector dy = random_values(6, 7);
  expect_gradient([&](const Vector& v) { return reference::global_avg_pool(v, shape); }, dy, x,
                  reference::global_avg_pool_backward(dy, shape), "global pool");
  const Vector sliced = random_values(2 * 3 * 2 * 7, 8);
  expect_gradient([&](const Vector& v) { return reference::slice_pad(v, shape, 7, 2, 2); }, sliced, x,
                  reference::slice_pad_backward(sliced, shape, 7, 2, 2), "slice_pad");
}

TEST(Reference, AdaptivePools) {
  const Shape shape{2, 5, 4, 2};
  const Vector x = random_values(shape.elements(), 5);
  for (const Size2 size : {Size2(1), Size2(3, 2), Size2(2, 7)}) {
    const Vector dy = random_values(int64_t{4} * size.h * size.w, 6);
    expect_gradient([&](const Vector& v) { return reference::adaptive_avg_pool(v, shape, size.h, size.w); }, dy, x,
                    reference::adaptive_avg_pool_backward(dy, shape, size.h, size.w), "adaptive pool");
  }
  // torch.nn.functional.adaptive_avg_pool1d([1, 2, 4, 8, 16], 3) and back to 4 from 3.
  EXPECT_THAT(reference::adaptive_avg_pool({1, 2, 4, 8, 16}, {1, 5, 1, 1}, 3, 1),
              Pointwise(DoubleNear(1e-12), Vector{1.5, 14. / 3, 12}));
  EXPECT_THAT(reference::adaptive_avg_pool({1, 2, 4}, {1, 1, 3, 1}, 1, 4),
              Pointwise(DoubleNear(1e-12), Vector{1, 1.5, 3, 4}));
}

TEST(Reference, BordersAndOtherSizes) {
  // torch.nn.functional.interpolate of [[1, 2, 4], [8, 16, 32]] to 3 x 5.
  const Vector x{1, 2, 4, 8, 16, 32};
  const Shape shape{1, 2, 3, 1};
  EXPECT_THAT(reference::resample(x, shape, 3, 5, true),
              Pointwise(DoubleNear(1e-12), Vector{1, 1.4, 2, 3.2, 4, 4.5, 6.3, 9, 14.4, 18, 8, 11.2, 16, 25.6, 32}));
  EXPECT_EQ(reference::resample(x, shape, 3, 5, false), (Vector{1, 1, 2, 2, 4, 1, 1, 2, 2, 4, 8, 8, 16, 16, 32}));
  EXPECT_EQ(reference::pad(x, shape, {1, 0, 0, 1}, 9), (Vector{9, 9, 9, 9, 1, 2, 4, 9, 8, 16, 32, 9}));
  const Shape odd{2, 3, 4, 2};
  const Vector v = random_values(48, 1);
  for (const Size2 size : {Size2(7, 3), Size2(1), Size2(3, 9)})
    for (const bool bilinear : {false, true}) {
      const Vector dy = random_values(int64_t{4} * size.h * size.w, 2);
      expect_gradient([&](const Vector& u) { return reference::resample(u, odd, size.h, size.w, bilinear); }, dy, v,
                      reference::resample_backward(dy, odd, size.h, size.w, bilinear), "resample");
    }
  const Vector dy = random_values(2 * 6 * 7 * 2, 3);
  expect_gradient(
      [&](const Vector& u) {
        return reference::pad(u, odd, {1, 3, 2, 0}, 5);
      },
      dy, v, reference::pad_backward(dy, odd, {1, 3, 2, 0}), "pad");
}

TEST(Reference, FrozenBatchNormGradients) {
  const Vector x = random_values(21, 1, 0, 3), dy = random_values(21, 2), residual = random_values(21, 3);
  const reference::ChannelMoments m{{0.5, 1, 2}, {2, 0.5, 1}};
  const reference::BatchNormParams p{{1.5, -0.5, 0.8}, {0.1, 0.2, -0.3}, 1e-3};
  for (const Activation act : {Activation::none, Activation::relu})
    for (const Vector& r : {Vector{}, residual}) {
      const auto g = reference::frozen_batch_norm_backward(dy, x, m, p, r, act);
      const auto forward = [&](const Vector& v, const Vector& gamma, const Vector& beta, const Vector& s) {
        return reference::batch_norm(v, m, {gamma, beta, p.eps}, s, act);
      };
      expect_gradient([&](const Vector& v) { return forward(v, p.gamma, p.beta, r); }, dy, x, g.dx, "dx");
      expect_gradient([&](const Vector& v) { return forward(x, v, p.beta, r); }, dy, p.gamma, g.dgamma, "dgamma");
      expect_gradient([&](const Vector& v) { return forward(x, p.gamma, v, r); }, dy, p.beta, g.dbeta, "dbeta");
      if (!r.empty())
        expect_gradient([&](const Vector& v) { return forward(x, p.gamma, p.beta, v); }, dy, r, g.dresidual, "dres");
    }
}

TEST(Reference, Channels) {
  const Vector x{1, 2, 3, 4, 5, 6};  // two rows of three channels
  EXPECT_EQ(reference::concat({x, {7, 8}}, {3, 1}), (Vector{1, 2, 3, 7, 4, 5, 6, 8}));
  EXPECT_EQ(reference::slice_channels(x, 3, 1, 2), (Vector{2, 3, 5, 6}));
  EXPECT_EQ(reference::channel_shuffle(x, 6, 2), (Vector{1, 4, 2, 5, 3, 6}));
  expect_gradient([&](const Vector& v) { return reference::slice_channels(v, 3, 1, 2); }, {1, 2, 3, 4}, x,
                  reference::slice_channels_backward({1, 2, 3, 4}, 3, 1, 2), "slice");
  const Vector dy = random_values(6, 3);
  expect_gradient([&](const Vector& v) { return reference::channel_shuffle(v, 6, 3); }, dy, x,
                  reference::channel_shuffle_backward(dy, 6, 3), "shuffle");
}

TEST(Reference, Products) {
  // Two pictures of two pixels of three channels, and factors per picture, per pixel and per channel.
  const Vector a = random_values(12, 1), dy = random_values(12, 2);
  EXPECT_EQ(reference::mul({1, 2, 3, 4, 5, 6, 7, 8}, {1, 10, 100, 1000}, 2, 2),
            (Vector{1, 20, 3, 40, 500, 6000, 700, 8000}));
  for (const int64_t pixels : {1, 2, 4}) {
    const Vector b = random_values(12 / pixels, 3);
    const auto g = reference::mul_backward(dy, a, b, pixels, 3);
    expect_gradient([&](const Vector& v) { return reference::mul(v, b, pixels, 3); }, dy, a, g.da, "mul da");
    expect_gradient([&](const Vector& v) { return reference::mul(a, v, pixels, 3); }, dy, b, g.db, "mul db");
  }
}

// What torch.nn.functional gives for 1, 2, 3 ... in rows of five, and in one row of six.
TEST(Reference, PoolsInCeilModeAndWithoutCountedPaddingAreTorchs) {
  Vector x(20);
  std::iota(x.begin(), x.end(), 1.0);
  const Shape shape{1, 4, 5, 1};
  EXPECT_EQ(reference::max_pool(x, shape, {2, 2, 2, 2, {}, true}).y, (Vector{7, 9, 10, 17, 19, 20}));
  const auto mean = [&](bool ceil_mode, bool count_include_pad) {
    return reference::avg_pool(x, shape, {3, 3, 2, 2, {1, 1}, ceil_mode, count_include_pad});
  };
  const auto expect = [](const Vector& found, const Vector& expected) {
    EXPECT_THAT(found, Pointwise(DoubleNear(1e-12), expected));
  };
  expect(mean(true, true), {16. / 9, 11. / 3, 28. / 9, 23. / 3, 13, 29. / 3, 5.5, 9, 6.5});
  expect(mean(false, true), {16. / 9, 11. / 3, 28. / 9, 23. / 3, 13, 29. / 3});
  expect(mean(true, false), {4, 5.5, 7, 11.5, 13, 14.5, 16.5, 18, 19.5});
  expect(mean(false, false), {4, 5.5, 7, 11.5, 13, 14.5});
  const Vector row{1, 2, 3, 4, 5, 6};
  expect(reference::avg_pool(row, {1, 1, 6, 1}, {1, 4, 1, 3, {0, 1}, true}), {1.5, 4.5, 3});
  expect(reference::avg_pool(row, {1, 1, 6, 1}, {1, 4, 1, 3, {0, 1}, true, false}), {2, 4.5, 6});
  expect(reference::max_pool(row, {1, 1, 6, 1}, {1, 4, 1, 3, {0, 2}, true}).y, {2, 5, 6});
  EXPECT_EQ(reference::pooled_shape({1, 1, 6, 1}, {1, 7, 1, 2, {}, true}), (Shape{1, 1, 1, 1}));
}

TEST(Reference, PoolsByHand) {
  const Shape shape{1, 3, 3, 1};
  const Vector x{1, 2, 3, 4, 9, 6, 7, 8, 5};
  const PoolWindow overlapping{2, 2, 1, 1, {0, 0}}, padded{3, 3, 2, 2, {1, 1}};
  EXPECT_EQ(reference::max_pool(x, shape, overlapping).y, (Vector{9, 9, 9, 9}));
  EXPECT_EQ(reference::max_pool(x, shape, overlapping).index, (Vector{3, 2, 1, 0}));
  EXPECT_EQ(reference::avg_pool(x, shape, overlapping), (Vector{4, 5, 7, 7}));
  const Vector corners{16. / 9, 20. / 9, 28. / 9, 28. / 9};
  EXPECT_THAT(reference::avg_pool(x, shape, padded), Pointwise(DoubleNear(1e-12), corners));
  EXPECT_EQ(reference::global_avg_pool(x, shape), Vector{5});
  EXPECT_EQ(reference::slice_pad(x, shape, 3, 2, 1), (Vector{0, 1, 0, 0, 3, 0, 0, 7, 0, 0, 5, 0}));
}

TEST(Reference, SoftmaxCrossEntropy) {
  const int64_t classes = 6;
  const Vector x = random_values(4 * classes, 9, -2, 2), weights{1, 0.5, 0, 2};
  const std::vector<int32_t> labels{0, 5, -7, 3};
  for (const double smoothing : {0.0, 0.1}) {
    const auto loss = [&](const Vector& v) {
      return Vector{reference::softmax_xent(v, classes, labels, weights, smoothing).loss};
    };
    expect_gradient(loss, {1}, x, reference::softmax_xent(x, classes, labels, weights, smoothing).dlogits, "xent");
  }
  // Two equal logits: probability 1/2 each; three classes of odds 1 : 2 : 1.
  EXPECT_NEAR(reference::softmax_xent({3, 3}, 2, {1}, {1}, 0).loss, std::log(2.0), 1e-15);
  const Vector odds{0, std::log(2.0), 0}, quarters{0.25, 0.5, 0.25};
  EXPECT_THAT(reference::softmax(odds, 3), Pointwise(DoubleNear(1e-15), quarters));
  const double smoothed = -(0.8 * std::log(0.5) + 0.1 * std::log(0.25) + 0.1 * std::log(0.25));
  EXPECT_NEAR(reference::softmax_xent(odds, 3, {1}, {1}, 0.3).loss, smoothed, 1e-15);
}

// The general loss agrees with the one above, whose gradient is a formula; kernels/loss_test.cpp holds torch's values.
TEST(Reference, LossesAgree) {
  const Vector x = random_values(12, 9, -2, 2), weights{1, 0.5, 0, 2};
  const std::vector<int32_t> labels{0, 2, -7, 1};
  const auto expected = reference::softmax_xent(x, 3, labels, weights, 0.125);
  reference::LossCase c;  // g++ 12 takes the members of one made by designated initialisers for uninitialised
  c.options.smoothing = 0.125F;
  c.classes = 3;
  c.weights = weights;
  c.labels = labels;
  EXPECT_NEAR(reference::loss(c, x), expected.loss, 1e-14);
  EXPECT_THAT(reference::loss_gradient(c, x), Pointwise(DoubleNear(1e-9), expected.dlogits));
}

// The first two steps on w = 1 with the gradient 1 and rate 0.1, by hand.
TEST(Reference, Optimizers) {
  using Kind = OptimizerKind;
  const auto two_steps = [](const reference::Optimizer& optimizer) {
    Vector w{1}, first{0}, second{0}, seen;
    for (int step = 1; step <= 2; ++step) {
      optimizer.step(w, first, second, {1}, step);
      seen.push_back(w[0]);
    }
    return seen;
  };
  EXPECT_THAT(two_steps({}), Pointwise(DoubleNear(1e-12), Vector{0.9, 0.71}));
  EXPECT_THAT(two_steps({.nesterov = true}), Pointwise(DoubleNear(1e-12), Vector{0.81, 0.539}));
  EXPECT_THAT(two_steps({.momentum = 0, .weight_decay = 0.5}), Pointwise(DoubleNear(1e-12), Vector{0.85, 0.7075}));
  // A constant gradient: its corrected mean is 1, and so is its corrected square.
  EXPECT_THAT(two_steps({.kind = Kind::adam, .eps = 0}), Pointwise(DoubleNear(1e-12), Vector{0.9, 0.8}));
  EXPECT_THAT(two_steps({.kind = Kind::adamw, .weight_decay = 0.5, .eps = 0}),
              Pointwise(DoubleNear(1e-12), Vector{0.85, 0.7075}));
  // The square's average is 1/2, then 3/4.
  EXPECT_THAT(
      two_steps({.kind = Kind::rmsprop, .momentum = 0, .alpha = 0.5, .eps = 0}),
      Pointwise(DoubleNear(1e-12), Vector{1 - 0.1 * std::sqrt(2), 1 - 0.1 * (std::sqrt(2) + std::sqrt(4. / 3))}));
  // The ratio is 1/2 |w| / 1.
  EXPECT_THAT(two_steps({.kind = Kind::lars, .momentum = 0, .trust = 0.5}),
              Pointwise(DoubleNear(1e-12), Vector{0.95, 0.9025}));
  EXPECT_THAT(two_steps({.kind = Kind::lars, .momentum = 0, .adapts = false}),
              Pointwise(DoubleNear(1e-12), Vector{0.9, 0.8}));
  EXPECT_THAT(two_steps({.kind = Kind::lion, .weight_decay = 0.5}), Pointwise(DoubleNear(1e-12), Vector{0.85, 0.7075}));
}

}  // namespace
}  // namespace convolt::test
