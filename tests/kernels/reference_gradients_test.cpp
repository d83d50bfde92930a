// The double references are the truth of all other tests; here central differences and small hand-made cases prove
// them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numeric>

#include "reference/batch_norm.h"
#include "reference/conv.h"
#include "reference/loss.h"
#include "reference/optimizer.h"
#include "reference/pooling.h"
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
  strided.pad_h = strided.pad_w = 1;
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
      {.n = 2, .in_h = 4, .in_w = 3, .in_c = 2, .out_c = 3, .kernel_h = 3, .kernel_w = 2, .pad_h = 1},
      {.in_h = 5,
       .in_w = 6,
       .in_c = 2,
       .out_c = 2,
       .kernel_h = 3,
       .kernel_w = 3,
       .stride_h = 2,
       .stride_w = 3,
       .pad_h = 1,
       .pad_w = 2},
      {.in_h = 5, .in_w = 5, .in_c = 1, .out_c = 2, .kernel_h = 2, .kernel_w = 2, .dilation_h = 3, .dilation_w = 2},
      {.in_h = 3, .in_w = 3, .in_c = 4, .out_c = 6, .kernel_h = 2, .kernel_w = 2, .pad_w = 1, .groups = 2},
      {.in_h = 3, .in_w = 3, .in_c = 3, .out_c = 3, .kernel_h = 3, .kernel_w = 3, .pad_h = 1, .pad_w = 1, .groups = 3}};
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
  const Vector x{-2, -0.5, 0.5, 3, 5.9, 6.1, 9}, dy{1, 2, 3, 4, 5, 6, 7};
  for (const Activation a : {Activation::none, Activation::relu, Activation::relu6})
    expect_gradient([&](const Vector& v) { return reference::activation(v, a); }, dy, x,
                    reference::activation_backward(dy, reference::activation(x, a), a), "activation");
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
  for (const Activation act : {Activation::none, Activation::relu, Activation::relu6})
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

TEST(Reference, Pools) {
  const Shape shape{2, 5, 4, 3};
  const Vector x = random_values(shape.elements(), 5);
  for (const PoolWindow w : {PoolWindow{}, PoolWindow{3, 3, 2, 2, 1, 1}, PoolWindow{3, 2, 1, 1, 0, 1}}) {
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

TEST(Reference, PoolsByHand) {
  const Shape shape{1, 3, 3, 1};
  const Vector x{1, 2, 3, 4, 9, 6, 7, 8, 5};
  const PoolWindow overlapping{2, 2, 1, 1, 0, 0}, padded{3, 3, 2, 2, 1, 1};
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
