// Pointwise convolutions with sums in their epilogues, against products in double. On the CPU each runs twice, with its
// phases backwards and its asynchronous copies early as well.
#include "pointwise.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernel_test.h"
#include "reference/conv.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

using Vector = std::vector<double>;

struct Sizes {
  int64_t rows, depth, channels;
  std::string text() const {
    return "[" + std::to_string(rows) + ", " + std::to_string(depth) + "] to " + std::to_string(channels);
  }
};
// One element and one more than a tile in each direction, several tiles across, and many for each team. The narrow,
// middle and wide tiles, with weights that are kept and, of the first two, that are not.
constexpr Sizes kProducts[] = {{1, 8, 8},       {127, 40, 24},   {128, 32, 64},  {130, 72, 72},   {257, 96, 136},
                               {300, 200, 264}, {64, 24, 128},   {77000, 8, 16}, {135, 256, 504}, {70, 264, 136},
                               {129, 520, 72},  {131, 1032, 16}, {17100, 8, 256}};

class PointwiseTest : public OpTest {
protected:
  void SetUp() override {
    OpTest::SetUp();
    if (!std::get<0>(GetParam()).is_cuda() && !pointwise_on_cpu())
      GTEST_SKIP() << "a build for GPUs has none for the CPU";
  }
  DeviceTensor values(Shape shape, uint64_t seed, double size = 1) {
    return {ctx(), dtype(), shape, random_values(shape.elements(), seed, -size, size)};
  }
  DeviceTensor floats(Shape shape) { return {ctx(), DType::f32, shape}; }
  DeviceTensor scratch(const Sizes& n, int sums) {
    return floats({pointwise_scratch(n.rows, n.depth, n.channels, sums) / 4});
  }
  // In both orders of the phases where there are any.
  void run_both_ways(const std::function<void(Stream)>& work, const std::function<void(const std::string&)>& check) {
    run(ctx(), work);
    check("");
    if (ctx().device().is_cuda()) return;
    const PhasesBackwards backwards;
    run(ctx(), work);
    check(", backwards");
  }
};

// a [rows, depth] times b [channels, depth], or [depth, channels] where along.
Vector product(const Vector& a, const Vector& b, const Sizes& n, bool along) {
  Vector y(static_cast<size_t>(n.rows * n.channels));
  for (int64_t r = 0; r < n.rows; ++r)
    for (int64_t c = 0; c < n.channels; ++c) {
      double sum = 0;
      for (int64_t k = 0; k < n.depth; ++k)
        sum += a[static_cast<size_t>(r * n.depth + k)] *
               b[static_cast<size_t>(along ? k * n.channels + c : c * n.depth + k)];
      y[static_cast<size_t>(r * n.channels + c)] = sum;
    }
  return y;
}

// The sum over the rows of term(i, c) for each channel.
template <class F>
Vector sums_of(const Sizes& n, F term) {
  Vector sums(static_cast<size_t>(n.channels));
  for (int64_t i = 0; i < n.rows * n.channels; ++i)
    sums[static_cast<size_t>(i % n.channels)] += term(static_cast<size_t>(i), static_cast<size_t>(i % n.channels));
  return sums;
}
// Of float sums of as many terms of about `size`.
void expect_sums(const Vector& found, const Vector& expected, const Sizes& n, double size, const std::string& what) {
  expect_near(found, expected, 1e-6 * std::sqrt(static_cast<double>(n.rows)) * size, 2e-6, what);
}

// y, and the sums of what is there and of its squares. `error`: of a product, for each deviation of the results;
// `spread`: how much larger they are than of operands within 1.
void expect_results(const DeviceTensor& y, const DeviceTensor& sums, const Vector& expected, const Sizes& n,
                    const std::string& what, double error = 8e-6, double spread = 1) {
  const Vector found = y.values(), totals = sums.values();
  const double size = std::sqrt(static_cast<double>(n.depth)) / 3;
  expect_near(found, expected, error * size, epsilon(y.tensor().dtype) * 1.01, what);
  const auto middle = totals.begin() + n.channels;
  expect_sums({totals.begin(), middle}, sums_of(n, [&](size_t i, size_t) { return found[i]; }), n, spread * size,
              "sums, " + what);
  expect_sums({middle, totals.end()}, sums_of(n, [&](size_t i, size_t) { return found[i] * found[i]; }), n,
              spread * spread * size * size, "squares, " + what);
}

TEST_P(PointwiseTest, SumsWhatItStores) {
  for (const Sizes& n : kProducts) {
    const DeviceTensor x = values({n.rows, n.depth}, 1), w = values({n.channels, 1, 1, n.depth}, 2);
    const DeviceTensor y = values({n.rows, n.channels}, 3), sums = floats({2, n.channels}), partials = scratch(n, 2);
    const Vector expected = product(x.values(), w.values(), n, false);
    run_both_ways([&](Stream s) { pointwise_stats(s, x, w, y, nullptr, partials.as<float>(), sums.as<float>()); },
                  [&](const std::string& order) {
                    expect_results(y, sums, expected, n, n.text() + order);
                    for (const DeviceTensor* t : {&y, &sums, &partials}) t->check_guards();
                  });
  }
}

TEST_P(PointwiseTest, NormalisesOnLoad) {
  if (dtype() != DType::f16) GTEST_SKIP() << "of f16 alone";
  for (const Sizes& n : kProducts) {
    const DeviceTensor x = values({n.rows, n.depth}, 1), w = values({n.channels, 1, 1, n.depth}, 2);
    const DeviceTensor y = values({n.rows, n.channels}, 3), sums = floats({2, n.channels}), partials = scratch(n, 2);
    const DeviceTensor norm = values({2, n.depth}, 4);
    Vector normalised = x.values();
    const Vector factors = norm.values();
    const auto depth = static_cast<size_t>(n.depth);
    for (size_t i = 0; i < normalised.size(); ++i)
      normalised[i] = std::max(0.0, normalised[i] * factors[i % depth] + factors[depth + i % depth]);
    const Vector expected = product(normalised, w.values(), n, false);
    run_both_ways(
        [&](Stream s) { pointwise_stats(s, x, w, y, norm.tensor().data, partials.as<float>(), sums.as<float>()); },
        [&](const std::string& order) {
          // What is normalised is rounded before it is multiplied.
          expect_results(y, sums, expected, n, n.text() + order, epsilon(dtype()) * 4, 2);
          for (const DeviceTensor* t : {&y, &sums, &partials}) t->check_guards();
        });
  }
}

TEST_P(PointwiseTest, SumsWindows) {
  for (const ConvGeometry& g :
       {ConvGeometry{.n = 2, .in_h = 19, .in_w = 12, .in_c = 16, .out_c = 64, .kernel_h = 4, .kernel_w = 4},
        {.n = 3, .in_h = 7, .in_w = 9, .in_c = 8, .out_c = 24, .kernel_h = 3, .kernel_w = 5},
        {.n = 1, .in_h = 5, .in_w = 21, .in_c = 24, .out_c = 72, .kernel_h = 1, .kernel_w = 2},
        {.n = 1, .in_h = 6, .in_w = 6, .in_c = 40, .out_c = 96, .kernel_h = 6, .kernel_w = 4}}) {
    const Sizes n{g.n * g.out_h() * g.out_w(), g.kernel_h * g.kernel_w * g.in_c, g.out_c};
    const DeviceTensor x = values(g.x_shape(), 1), w = values(g.w_shape(), 2), y = values(g.y_shape(), 3);
    const DeviceTensor sums = floats({2, n.channels}), partials = scratch(n, 2);
    const Vector expected = reference::conv_fprop(g, x.values(), w.values(), nullptr);
    run_both_ways([&](Stream s) { window_stats(s, x, w, y, partials.as<float>(), sums.as<float>()); },
                  [&](const std::string& order) {
                    expect_results(y, sums, expected, n, g.to_string() + order);
                    for (const DeviceTensor* t : {&y, &sums, &partials}) t->check_guards();
                  });
  }
}

struct EndCase {
  Gate gate;
  bool two, second;
};

TEST_P(PointwiseTest, JoinsGatesAndSumsTheGradient) {
  for (const EndCase& end : {EndCase{Gate::recomputed, false, false},
                             {Gate::mask, false, false},
                             {Gate::mask, true, false},
                             {Gate::mask, true, true}})
    for (const Sizes& n : kProducts) {
      // Of two sums and of three: what many tiles add up is the same by any gate.
      if (n.rows > 10000 && end.gate == Gate::mask && !end.second) continue;
      const Shape shape{n.rows, n.channels};
      const DeviceTensor dy = values({n.rows, n.depth}, 1), w = values({n.depth, 1, 1, n.channels}, 2);
      const DeviceTensor dy2 = values(shape, 3), x = values(shape, 4, 2), x2 = values(shape, 5, 2),
                         dz = values(shape, 6);
      const DeviceTensor coef(ctx(), DType::f32, {4, n.channels}, random_values(4 * n.channels, 7, -1, 1));
      const DeviceTensor coef2(ctx(), DType::f32, {4, n.channels}, random_values(4 * n.channels, 8, -1, 1));
      const DeviceTensor mask(ctx(), DType::u8, {shape.elements() / 8},
                              random_values(shape.elements() / 8, 9, 0, 255.9));
      const DeviceTensor sums = floats({4, n.channels}), partials = scratch(n, end.second ? 3 : 2);
      auto* const out = sums.as<float>();
      const GradientJoinArgs args{.dy2 = end.two ? dy2.tensor() : Tensor{},
                                  .x = x,
                                  .coef = coef.as<float>(),
                                  .gate = end.gate,
                                  .gate_data = end.gate == Gate::mask ? mask.tensor().data : nullptr,
                                  .x2 = end.second ? x2.tensor() : Tensor{},
                                  .coef2 = end.second ? coef2.as<float>() : nullptr,
                                  .dz = dz,
                                  .scratch = partials.as<float>(),
                                  .dgamma = out,
                                  .dbeta = out + n.channels,
                                  .dgamma2 = end.second ? out + 2 * n.channels : nullptr,
                                  .dbeta2 = end.second ? out + 3 * n.channels : nullptr};
      const Vector xs = x.values(), x2s = x2.values(), c = coef.values(), c2 = coef2.values(), bits = mask.values();
      const auto channels = static_cast<size_t>(n.channels);
      Vector expected = product(dy.values(), w.values(), n, true);
      const Vector others = dy2.values();
      for (size_t i = 0; i < expected.size(); ++i) {
        if (end.two) expected[i] += others[i];
        const size_t channel = i % channels;
        // The gate is that of floats, which a sum near 0 must not cross.
        const bool open = end.gate == Gate::mask
                              ? (static_cast<int>(bits[i / 8]) >> i % 8 & 1) != 0
                              : static_cast<float>(xs[i] * c[2 * channels + channel] + c[3 * channels + channel]) > 0;
        if (!open) expected[i] = 0;
      }
      run_both_ways([&](Stream s) { pointwise_dgrad(s, dy, w, args); },
                    [&](const std::string& order) {
                      const std::string what = n.text() + ", gate " + std::to_string(static_cast<int>(end.gate)) +
                                               (end.two ? ", two" : "") + (end.second ? ", second" : "") + order;
                      const Vector found = dz.values(), totals = sums.values();
                      const double size = 1 + std::sqrt(static_cast<double>(n.depth)) / 3;
                      // A product is rounded before another gradient is added, as if it had been stored.
                      const double product_error = end.two ? epsilon(dtype()) * size * 5 : 1e-6 * size * 8;
                      expect_near(found, expected, product_error, epsilon(dtype()) * 1.01, what);
                      const auto row = [&](int64_t k) {
                        return Vector(totals.begin() + k * n.channels, totals.begin() + (k + 1) * n.channels);
                      };
                      const auto xhat_sum = [&](const Vector& v, const Vector& k) {
                        return sums_of(
                            n, [&](size_t i, size_t j) { return found[i] * ((v[i] - k[j]) * k[channels + j]); });
                      };
                      expect_sums(row(0), xhat_sum(xs, c), n, 2 * size, "dgamma, " + what);
                      const Vector dbeta = sums_of(n, [&](size_t i, size_t) { return found[i]; });
                      expect_sums(row(1), dbeta, n, size, "dbeta, " + what);
                      if (end.second) {
                        expect_sums(row(2), xhat_sum(x2s, c2), n, 2 * size, "dgamma2, " + what);
                        expect_sums(row(3), dbeta, n, size, "dbeta2, " + what);
                      }
                      for (const DeviceTensor* t : {&dz, &sums, &partials}) t->check_guards();
                    });
    }
}

// Every second pixel of every second line against the same with zeros between them.
TEST_P(PointwiseTest, JoinsAThinSecondGradient) {
  const Sizes n{2 * 9 * 11, 40, 136};
  const Shape shape{2, 9, 11, n.channels}, half{2, 5, 6, n.channels};
  const DeviceTensor dy = values({2, 9, 11, n.depth}, 1), w = values({n.depth, 1, 1, n.channels}, 2);
  const DeviceTensor thin = values(half, 3), x = values(shape, 4, 2), found = values(shape, 5),
                     whole = values(shape, 6);
  const DeviceTensor coef(ctx(), DType::f32, {4, n.channels}, random_values(4 * n.channels, 7, -1, 1));
  const DeviceTensor mask(ctx(), DType::u8, {shape.elements() / 8}, random_values(shape.elements() / 8, 9, 0, 255.9));
  const DeviceTensor wide(ctx(), dtype(), shape, with_zeros_between(thin.values(), shape)),
      sums = floats({4, n.channels}), partials = scratch(n, 2);
  auto* const out = sums.as<float>();
  const auto join = [&](const DeviceTensor& dy2, const DeviceTensor& dz, float* to) {
    const GradientJoinArgs args{.dy2 = dy2,
                                .x = x,
                                .coef = coef.as<float>(),
                                .gate = Gate::mask,
                                .gate_data = mask.tensor().data,
                                .dz = dz,
                                .scratch = partials.as<float>(),
                                .dgamma = to,
                                .dbeta = to + n.channels};
    run(ctx(), [&](Stream s) { pointwise_dgrad(s, dy, w, args); });
  };
  join(thin, found, out);
  join(wide, whole, out + 2 * n.channels);
  EXPECT_EQ(found.values(), whole.values());
  const Vector totals = sums.values();
  EXPECT_EQ(Vector(totals.begin(), totals.begin() + 2 * n.channels),
            Vector(totals.begin() + 2 * n.channels, totals.end()));
}

TEST_P(PointwiseTest, SaysWhatItCannotDo) {
  const Sizes n{4, 8, 8};
  const DeviceTensor x = values({4, 8}, 1), w = values({8, 1, 1, 8}, 2), y = values({4, 8}, 3), sums = floats({2, 8});
  const DeviceTensor odd = values({4, 12}, 1), wide = values({8, 1, 1, 12}, 2), partials = scratch(n, 2);
  const auto stats = [&](const DeviceTensor& a, const DeviceTensor& b) {
    run(ctx(), [&](Stream s) { pointwise_stats(s, a, b, y, nullptr, partials.as<float>(), sums.as<float>()); });
  };
  const DeviceTensor single(ctx(), DType::f32, {4, 8}), other(ctx(), DType::bf16, {4, 8});
  EXPECT_THROW(stats(single, w), Error);
  EXPECT_THROW(
      run(ctx(),
          [&](Stream s) { pointwise_stats(s, other, w, y, x.tensor().data, partials.as<float>(), sums.as<float>()); }),
      Error);
  EXPECT_THROW(stats(odd, wide), ShapeError);
  EXPECT_THROW(stats(odd, w), ShapeError);
  const DeviceTensor picture = values({1, 4, 4, 8}, 1), window = values({8, 2, 2, 8}, 2),
                     small = values({1, 3, 2, 8}, 3);
  EXPECT_THROW(
      run(ctx(), [&](Stream s) { window_stats(s, picture, window, small, partials.as<float>(), sums.as<float>()); }),
      ShapeError);
  const DeviceTensor many = values({136, 2, 2, 8}, 2), all = values({1, 3, 3, 136}, 3);
  EXPECT_THROW(
      run(ctx(), [&](Stream s) { window_stats(s, picture, many, all, partials.as<float>(), sums.as<float>()); }),
      ShapeError);
  EXPECT_THROW(run(ctx(), [&](Stream s) { pointwise_dgrad(s, y, w, {.x = x, .gate = Gate::output, .dz = x}); }), Error);
}

// Of 16 bits alone.
INSTANTIATE_TEST_SUITE_P(Op, PointwiseTest,
                         testing::Combine(testing::Values(Device::cpu(), Device::cuda()),
                                          testing::Values(DType::bf16, DType::f16)),
                         op_test_name);

}  // namespace
}  // namespace convolt::test
