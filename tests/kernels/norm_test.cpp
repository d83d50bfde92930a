#include "norm.h"

#include <gtest/gtest.h>

#include <cmath>

#include "batch_norm.h"
#include "kernel_test.h"
#include "reference/norm.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

using Vector = std::vector<double>;

class NormTest : public OpTest {};

struct Case {
  int64_t pictures, pixels, channels, groups;
};
// Layer norms of one channel, off and on the packet, of more packets than lanes; group norms of one channel, of less
// than a packet, of several, of one and a half, of a whole picture; sets large enough for a block each; more sets than
// a block holds.
const Case kCases[] = {{3, 1, 1, 1},    {70, 1, 3, 1},  {65, 1, 8, 1},  {9, 1, 96, 1},   {2, 1, 768, 1},
                       {3, 1, 1000, 1}, {2, 6, 4, 4},   {3, 35, 6, 3},  {2, 20, 64, 32}, {2, 49, 24, 3},
                       {2, 12, 64, 4},  {2, 9, 24, 2},  {1, 9, 10, 1},  {2, 600, 16, 2}, {1, 500, 33, 3},
                       {2, 700, 12, 1}, {300, 1, 6, 1}, {300, 1, 3, 1}, {2, 640, 20, 5}};

// One normalisation on the device, and its gradient.
struct Norm {
  Norm(Context& context, DType dtype, const Case& c, double low, double high)
      : sets{c.pixels, c.groups},
        shape{c.pictures, c.pixels, c.channels},
        params{rounded(random_values(c.channels, 1, 0.5, 1.5), DType::f32),
               rounded(random_values(c.channels, 2), DType::f32), c.pixels, c.groups, 1e-4},
        x(rounded(random_values(shape.elements(), 3, low, high), dtype)),
        dy(rounded(random_values(shape.elements(), 4), dtype)),
        tx(context, dtype, shape, x),
        tdy(context, dtype, shape, dy),
        y(context, dtype, shape),
        dx(context, dtype, shape),
        gamma(context, DType::f32, {c.channels}, params.gamma),
        beta(context, DType::f32, {c.channels}, params.beta),
        stats(context, DType::f32, {c.pictures * c.groups, 2}),
        means(context, DType::f32, {c.pictures * c.groups, 2}),
        scratch(context, DType::f32, {norm_backward_params_scratch(shape) / 4}),
        dgamma(context, DType::f32, {c.channels}),
        dbeta(context, DType::f32, {c.channels}) {}

  void run_all(Context& context) const {
    run(context, [&](Stream s) {
      norm_stats(s, tx, sets, static_cast<float>(params.eps), stats.as<float>());
      norm_apply(s, tx, sets, stats.as<float>(), gamma.as<float>(), beta.as<float>(), y);
      norm_backward_params(s, tdy, tx, sets, stats.as<float>(), scratch.as<float>(), dgamma.as<float>(),
                           dbeta.as<float>());
      norm_backward(s, tdy, tx, sets, stats.as<float>(), gamma.as<float>(), means.as<float>(), dx);
    });
  }
  std::vector<const DeviceTensor*> outputs() const { return {&y, &dx, &stats, &means, &dgamma, &dbeta}; }
  Vector all_values() const {
    Vector all;
    for (const DeviceTensor* t : outputs()) {
      const Vector v = t->values();
      all.insert(all.end(), v.begin(), v.end());
    }
    return all;
  }

  NormSets sets;
  Shape shape;
  reference::NormParams params;
  Vector x, dy;
  DeviceTensor tx, tdy, y, dx, gamma, beta, stats, means, scratch, dgamma, dbeta;
};

TEST_P(NormTest, AgreesWithTheReferenceForwardsAndBackwards) {
  for (const Case& c : kCases) {
    const Norm norm(ctx(), dtype(), c, -2, 4);
    norm.run_all(ctx());
    const std::string what = " of " + norm.shape.to_string() + " by " + std::to_string(c.groups);
    expect_near(norm.y.values(), reference::norm(norm.x, norm.params), 2e-5, 1.01 * epsilon(dtype()), "norm" + what);
    const auto g = reference::norm_backward(norm.dy, norm.x, norm.params);
    const double sum_error = 1e-6 * static_cast<double>(c.pictures * c.pixels);
    expect_near(norm.dgamma.values(), g.dgamma, sum_error, 1e-5, "dgamma" + what);
    expect_near(norm.dbeta.values(), g.dbeta, sum_error, 1e-5, "dbeta" + what);
    expect_near(norm.dx.values(), g.dx, 5e-5, 1.01 * epsilon(dtype()), "dx" + what);
    for (const DeviceTensor* t : norm.outputs()) t->check_guards();
    norm.scratch.check_guards();
  }
}

// Raw sums of squares would leave nothing of a variance of 1 around a mean of 1000 in f32.
TEST_P(NormTest, ALargeMeanCostsNoAccuracy) {
  if (dtype() != DType::f32) GTEST_SKIP() << "16-bit numbers around 1000 have no such fractions";
  for (const Case& c : {Case{3, 1, 96, 1}, Case{2, 600, 16, 2}}) {
    const Norm norm(ctx(), dtype(), c, 1000 - std::sqrt(3.0), 1000 + std::sqrt(3.0));
    norm.run_all(ctx());
    expect_near(norm.y.values(), reference::norm(norm.x, norm.params), 3e-4, 0, "norm");
  }
}

TEST_P(NormTest, InPlaceTheSameBitsAgainAndWithPhasesBackwards) {
  for (const Case& c : {kCases[3], kCases[8], kCases[13], kCases[14]}) {
    const Norm norm(ctx(), dtype(), c, -2, 4);
    norm.run_all(ctx());
    const Vector once = norm.all_values();
    {
      const PhasesBackwards backwards;
      norm.run_all(ctx());
      EXPECT_EQ(norm.all_values(), once);
    }
    const Vector y = norm.y.values(), dx = norm.dx.values();
    run(ctx(), [&](Stream s) {
      norm_backward(s, norm.tdy, norm.tx, norm.sets, norm.stats.as<float>(), norm.gamma.as<float>(),
                    norm.means.as<float>(), norm.tdy);
      norm_apply(s, norm.tx, norm.sets, norm.stats.as<float>(), norm.gamma.as<float>(), norm.beta.as<float>(), norm.tx);
    });
    EXPECT_EQ(norm.tdy.values(), dx);
    EXPECT_EQ(norm.tx.values(), y);
  }
}

// One sweep against the two gradients above and the sum of what is stored, also in place and with phases backwards.
TEST_P(NormTest, ALayerNormsGradientInOneSweep) {
  // The last two: several chunks of several tiles, and as many packets as threads.
  const Case cases[] = {kCases[2],        kCases[3],        kCases[4],       kCases[5],
                        {5000, 1, 24, 1}, {70000, 1, 8, 1}, {70, 1, 2048, 1}};
  const bool cuda = ctx().device().is_cuda();
  for (const Case& c : cases) {
    const Norm norm(ctx(), dtype(), c, -2, 4);
    ASSERT_TRUE(sweeps_layer_norm(norm.shape, norm.sets));
    const int64_t rows = c.pictures * c.pixels;
    const DeviceTensor dx(ctx(), dtype(), norm.shape), sums(ctx(), DType::f32, {3, c.channels}),
        dsum(ctx(), DType::f32, {c.channels}),
        scratch(ctx(), DType::f32, {layer_norm_backward_scratch(norm.shape) / 4});
    float* const f = sums.as<float>();
    LayerNormBackwardArgs args{.dy = norm.tdy,
                               .x = norm.tx,
                               .stats = norm.stats.as<float>(),
                               .gamma = norm.gamma.as<float>(),
                               .dx = dx,
                               .scratch = scratch.as<float>(),
                               .dgamma = f,
                               .dbeta = f + c.channels,
                               .dsum = f + 2 * c.channels};
    norm.run_all(ctx());
    run(ctx(), [&](Stream s) {
      layer_norm_backward(s, args);
      channel_sum(s, norm.dx, norm.scratch.as<float>(), dsum.as<float>());
    });
    Vector expected = norm.dgamma.values();
    for (const DeviceTensor* t : {&norm.dbeta, &dsum})
      for (const double v : t->values()) expected.push_back(v);
    const std::string what = " of " + norm.shape.to_string();
    const double e = cuda ? 4 * epsilon(dtype()) : 0;
    expect_near(dx.values(), norm.dx.values(), e, e, "dx" + what);
    // Sums of several rows at once, of many channels, come in another order.
    const double of_sums = std::max(e, 4 * epsilon(DType::f32));
    expect_near(sums.values(), expected, of_sums * static_cast<double>(rows), of_sums, "sums" + what);
    for (const DeviceTensor* t : {&dx, &sums, &scratch}) t->check_guards();
    const Vector once = sums.values(), gradient = dx.values();
    const PhasesBackwards backwards;
    args.dx = norm.tdy;
    run(ctx(), [&](Stream s) { layer_norm_backward(s, args); });
    EXPECT_EQ(sums.values(), once) << what;
    EXPECT_EQ(norm.tdy.values(), gradient) << what;
  }
}

TEST_P(NormTest, AConstantSetIsItsBiasAndNanStaysInItsSet) {
  const DeviceTensor x(ctx(), dtype(), {2, 2}, {7, 7, 1, NAN}), y(ctx(), dtype(), {2, 2});
  const DeviceTensor gamma(ctx(), DType::f32, {2}, {2, 3}), beta(ctx(), DType::f32, {2}, {0.5, -1}),
      stats(ctx(), DType::f32, {2, 2});
  run(ctx(), [&](Stream s) {
    norm_stats(s, x, {}, 1e-5F, stats.as<float>());
    norm_apply(s, x, {}, stats.as<float>(), gamma.as<float>(), beta.as<float>(), y);
  });
  const Vector v = y.values();
  EXPECT_EQ(v[0], 0.5);
  EXPECT_EQ(v[1], -1);
  EXPECT_TRUE(std::isnan(v[2]) && std::isnan(v[3])) << "NaN must not disappear";
}

INSTANTIATE_OP_TEST(NormTest);

}  // namespace
}  // namespace convolt::test
