// The fused sweeps of batch norms against compositions of the plain kernels, which have references of their own.
#include "block_end.h"

#include <gtest/gtest.h>

#include "batch_norm.h"
#include "bn_pool.h"
#include "kernel_test.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

using Vector = std::vector<double>;

class BlockEndTest : public OpTest {
protected:
  DeviceTensor values(Shape shape, uint64_t seed) {
    return {ctx(), dtype(), shape, random_values(shape.elements(), seed, -2, 2)};
  }
  DeviceTensor empty(Shape shape) { return {ctx(), dtype(), shape}; }
  DeviceTensor floats(Shape shape) { return {ctx(), DType::f32, shape}; }
  // mean, inverse deviation, scale, bias.
  DeviceTensor coefficients(int64_t channels, uint64_t seed) {
    return {ctx(), DType::f32, {4, channels}, random_values(4 * channels, seed, 0.25, 1.5)};
  }
  // Contraction to FMA on the GPU moves the last bit.
  void expect_same(const DeviceTensor& found, const DeviceTensor& expected, const std::string& what) {
    const double e = ctx().device().is_cuda() ? 4 * epsilon(dtype()) : 0;
    expect_near(found.values(), expected.values(), e, e, what);
    found.check_guards();
  }
};

std::string case_of(int64_t rows, int64_t channels) {
  return "[" + std::to_string(rows) + ", " + std::to_string(channels) + "]";
}
constexpr int64_t kRows[] = {2, 63, 130};
constexpr int64_t kChannels[] = {1, 8, 10, 40};

TEST_P(BlockEndTest, ByHand) {
  // 2 * 2 - 5 + 1 is not positive, 2 * 3 - 5 + 4 is.
  const DeviceTensor x(ctx(), dtype(), {1, 8}, {2, 3, 0, 0, 0, 0, 0, 0});
  const DeviceTensor r(ctx(), dtype(), {1, 8}, {1, 4, 6, 5, 0, 0, 0, 7}), y = empty({1, 8});
  Vector c(32, 0);
  for (size_t i = 0; i < 8; ++i) c[16 + i] = 2, c[24 + i] = -5;
  const DeviceTensor coef(ctx(), DType::f32, {4, 8}, c), mask(ctx(), DType::u8, {1}, {0});
  run(ctx(), [&](Stream s) {
    block_end(
        s,
        {.x = x, .coef = coef.as<float>(), .residual = r, .y = y, .mask = mask.as<uint8_t>(), .act = Activation::relu});
  });
  EXPECT_EQ(y.values(), (Vector{0, 5, 1, 0, 0, 0, 0, 2}));
  EXPECT_EQ(mask.values(), (Vector{0b10000110}));
}

TEST_P(BlockEndTest, IsBatchNormsAdditionAndReLU) {
  for (const int64_t rows : kRows)
    for (const int64_t channels : kChannels)
      for (const bool scaled : {false, true})
        for (const Activation act : {Activation::none, Activation::relu}) {
          const Shape shape{rows, channels};
          const DeviceTensor x = values(shape, 1), r = values(shape, 2), y = empty(shape), expected = empty(shape);
          const DeviceTensor coef = coefficients(channels, 3), coef2 = coefficients(channels, 4);
          const bool masked = act == Activation::relu && channels % 8 == 0;
          const DeviceTensor mask(ctx(), DType::u8, {(shape.elements() + 7) / 8}), branch = empty(shape);
          run(ctx(), [&](Stream s) {
            block_end(s, {.x = x,
                          .coef = coef.as<float>(),
                          .residual = r,
                          .residual_coef = scaled ? coef2.as<float>() : nullptr,
                          .y = y,
                          .mask = masked ? mask.as<uint8_t>() : nullptr,
                          .act = act});
            if (scaled) bn_apply(s, r, coef2.as<float>(), {}, branch, Activation::none);
            bn_apply(s, x, coef.as<float>(), scaled ? branch : r, expected, act);
          });
          const std::string name = case_of(rows, channels);
          // The composition rounds what the sweep does not store: an error of its own, near 0 as large as anywhere.
          const double e = scaled && dtype() != DType::f32 ? 8 * epsilon(dtype()) : 0;
          if (e == 0)
            expect_same(y, expected, name);
          else
            expect_near(y.values(), expected.values(), e, e, name);
          if (!masked) continue;
          const Vector bits = mask.values(), out = y.values();
          for (size_t i = 0; i < out.size(); ++i)
            ASSERT_EQ(static_cast<int>(bits[i / 8]) >> i % 8 & 1, out[i] > 0) << name << ", element " << i;
        }
}

TEST_P(BlockEndTest, TheMeanOfWhatIsNotStored) {
  for (const int pixels : {1, 49, 130})
    for (const int64_t channels : kChannels)
      for (const bool scaled : {false, true})
        for (const Activation act : {Activation::none, Activation::relu}) {
          const Shape shape{3, pixels, 1, channels};
          const DeviceTensor x = values(shape, 1), r = values(shape, 2), whole = empty(shape);
          const DeviceTensor mean = empty({3, channels}), expected = empty({3, channels});
          const DeviceTensor coef = coefficients(channels, 3), coef2 = coefficients(channels, 4);
          const bool masked = act == Activation::relu && channels % 8 == 0;
          const DeviceTensor mask(ctx(), DType::u8, {(shape.elements() + 7) / 8}),
              plain_mask(ctx(), DType::u8, {(shape.elements() + 7) / 8});
          BlockEndArgs args{.x = x,
                            .coef = coef.as<float>(),
                            .residual = r,
                            .residual_coef = scaled ? coef2.as<float>() : nullptr,
                            .y = whole,
                            .mask = masked ? plain_mask.as<uint8_t>() : nullptr,
                            .act = act};
          run(ctx(), [&](Stream s) {
            block_end(s, args);
            global_avg_pool(s, whole, expected);
            args.y = mean;
            args.mean_over = pixels;
            args.mask = masked ? mask.as<uint8_t>() : nullptr;
            block_end(s, args);
          });
          const std::string name = case_of(pixels, channels);
          expect_same(mean, expected, name);
          if (masked) {
            EXPECT_EQ(mask.values(), plain_mask.values()) << name;
          }
        }
}

// One join against add, bn_backward_reduce and what bn_backward_apply passes on to the residual.
struct JoinCase {
  Gate gate;
  bool two, second;
};
constexpr JoinCase kJoins[] = {
    {Gate::none, true, false},   {Gate::none, true, true},        {Gate::output, false, false},
    {Gate::output, true, true},  {Gate::mask, false, false},      {Gate::mask, true, false},
    {Gate::mask, true, true},    {Gate::mask, false, true},       {Gate::output, true, false},
    {Gate::output, false, true}, {Gate::recomputed, false, false}};

TEST_P(BlockEndTest, AJoinIsAdditionGateAndSums) {
  for (const int64_t rows : kRows)
    for (const int64_t channels : kChannels)
      for (const JoinCase& j : kJoins) {
        if (j.gate == Gate::mask && channels % 8 != 0) continue;
        const Shape shape{rows, channels};
        const DeviceTensor dy = values(shape, 1), dy2 = values(shape, 2), x = values(shape, 3), x2 = values(shape, 4);
        const DeviceTensor y = values(shape, 5), coef = coefficients(channels, 6), coef2 = coefficients(channels, 7);
        const DeviceTensor dz = empty(shape), sum = empty(shape), dx = empty(shape), gated = empty(shape);
        Vector bits(static_cast<size_t>((shape.elements() + 7) / 8), 0);
        const Vector outputs = y.values();
        for (size_t i = 0; i < outputs.size(); ++i)
          if (outputs[i] > 0) bits[i / 8] += 1 << i % 8;
        const DeviceTensor mask(ctx(), DType::u8, {static_cast<int64_t>(bits.size())}, bits);
        const DeviceTensor found = floats({4, channels}), expected = floats({4, channels});
        const DeviceTensor scratch = floats({gradient_join_scratch(rows, static_cast<int>(channels), true) / 4});
        float *const f = found.as<float>(), *const e = expected.as<float>();
        const bool relu = j.gate != Gate::none, stored = j.gate == Gate::mask || j.gate == Gate::output;
        run(ctx(), [&](Stream s) {
          fill_zero(s, f, 16 * channels);
          fill_zero(s, e, 16 * channels);
          gradient_join(s, {.dy = dy,
                            .dy2 = j.two ? dy2.tensor() : Tensor{},
                            .x = x,
                            .coef = coef.as<float>(),
                            .gate = j.gate,
                            .gate_data = j.gate == Gate::mask ? mask.tensor().data : y.tensor().data,
                            .x2 = j.second ? x2.tensor() : Tensor{},
                            .coef2 = coef2.as<float>(),
                            .dz = dz,
                            .scratch = scratch.as<float>(),
                            .dgamma = f,
                            .dbeta = f + channels,
                            .dgamma2 = f + 2 * channels,
                            .dbeta2 = f + 3 * channels});
          if (j.two) add(s, dy, dy2, sum);
          const Tensor arriving = j.two ? sum : dy;
          const Act act = relu ? Activation::relu : Activation::none;
          const Tensor output = stored ? y.tensor() : Tensor{};
          bn_backward_reduce(s, arriving, x, output, coef.as<float>(), act, scratch.as<float>(), e, e + channels);
          bn_backward_apply(s, arriving, x, output, coef.as<float>(), act, e, e + channels, dx, gated);
          if (j.second)
            bn_backward_reduce(s, gated, x2, {}, coef2.as<float>(), Activation::none, scratch.as<float>(),
                               e + 2 * channels, e + 3 * channels);
        });
        const std::string name = case_of(rows, channels) + ", gate " + std::to_string(static_cast<int>(j.gate));
        expect_same(dz, gated, name);
        expect_near(found.values(), expected.values(), ctx().device().is_cuda() ? 1e-4 : 0, 0, name + ", sums");
        scratch.check_guards();
      }
}

// Every second pixel of every second line against the same with zeros between them.
TEST_P(BlockEndTest, AJoinTakesAThinSecondGradient) {
  for (const int64_t channels : kChannels)
    for (const Shape& shape : {Shape{3, 5, 4, channels}, {2, 4, 7, channels}, {2, 1, 1, channels}}) {
      const Shape half{shape[0], (shape[1] + 1) / 2, (shape[2] + 1) / 2, channels};
      const DeviceTensor dy = values(shape, 1), thin = values(half, 2), x = values(shape, 3), y = values(shape, 4);
      const DeviceTensor wide(ctx(), dtype(), shape, with_zeros_between(thin.values(), shape));
      const DeviceTensor coef = coefficients(channels, 5);
      const DeviceTensor found = empty(shape), expected = empty(shape), sums = floats({4, channels});
      const DeviceTensor scratch = floats({gradient_join_scratch(60, static_cast<int>(channels), false) / 4});
      float* const f = sums.as<float>();
      GradientJoinArgs args{.dy = dy,
                            .dy2 = thin,
                            .x = x,
                            .coef = coef.as<float>(),
                            .gate = Gate::output,
                            .gate_data = y.tensor().data,
                            .dz = found,
                            .scratch = scratch.as<float>(),
                            .dgamma = f,
                            .dbeta = f + channels};
      run(ctx(), [&](Stream s) {
        gradient_join(s, args);
        args.dy2 = wide;
        args.dz = expected;
        args.dgamma = f + 2 * channels;
        args.dbeta = f + 3 * channels;
        gradient_join(s, args);
      });
      expect_same(found, expected, shape.to_string());
      const Vector totals = sums.values();
      const auto middle = static_cast<std::ptrdiff_t>(totals.size() / 2);
      EXPECT_EQ(Vector(totals.begin(), totals.begin() + middle), Vector(totals.begin() + middle, totals.end()));
      args.dy2.shape = {shape[0], shape[1], shape[2] + 1, channels};
      EXPECT_THROW(run(ctx(), [&](Stream s) { gradient_join(s, args); }), ShapeError);
      args.dy2.shape = half;
      args.gate = Gate::recomputed;
      EXPECT_THROW(run(ctx(), [&](Stream s) { gradient_join(s, args); }), Error);
    }
}

TEST_P(BlockEndTest, AJoinSpreadsTheGradientOfAMean) {
  for (const int64_t channels : kChannels) {
    const Shape shape{3, 5, 2, channels};
    const DeviceTensor dy = values({3, channels}, 1), x = values(shape, 2), y = values(shape, 3);
    const DeviceTensor coef = coefficients(channels, 4), found = empty(shape), expected = empty(shape);
    const DeviceTensor everywhere = empty(shape), sums = floats({4, channels});
    const DeviceTensor scratch = floats({gradient_join_scratch(30, static_cast<int>(channels), false) / 4});
    float* const f = sums.as<float>();
    run(ctx(), [&](Stream s) {
      GradientJoinArgs args{.dy = dy,
                            .spread = 10,
                            .x = x,
                            .coef = coef.as<float>(),
                            .gate = Gate::output,
                            .gate_data = y.tensor().data,
                            .dz = found,
                            .scratch = scratch.as<float>(),
                            .dgamma = f,
                            .dbeta = f + channels};
      gradient_join(s, args);
      global_avg_pool_backward(s, dy, everywhere);
      args.dy = everywhere;
      args.spread = 0;
      args.dz = expected;
      args.dgamma = f + 2 * channels;
      args.dbeta = f + 3 * channels;
      gradient_join(s, args);
    });
    expect_same(found, expected, std::to_string(channels) + " channels");
    const Vector all = sums.values();
    const auto half = static_cast<std::ptrdiff_t>(all.size() / 2);
    expect_near({all.begin(), all.begin() + half}, {all.begin() + half, all.end()}, 1e-6, 1e-6, "sums");
  }
}

TEST_P(BlockEndTest, APairIsTwoGradients) {
  for (const int64_t rows : kRows)
    for (const int64_t channels : kChannels) {
      const Shape shape{rows, channels};
      const DeviceTensor dz = values(shape, 1), x = values(shape, 2), x2 = values(shape, 3);
      const DeviceTensor coef = coefficients(channels, 4), coef2 = coefficients(channels, 5);
      const DeviceTensor sums(ctx(), DType::f32, {4, channels}, random_values(4 * channels, 6));
      const DeviceTensor dx = empty(shape), dx2 = empty(shape), expected = empty(shape), expected2 = empty(shape);
      float* const f = sums.as<float>();
      run(ctx(), [&](Stream s) {
        PairBackwardArgs args{.dz = dz, .branch = {}};
        args.branch[0] = {x, coef.as<float>(), f, f + channels, dx};
        args.branch[1] = {x2, coef2.as<float>(), f + 2 * channels, f + 3 * channels, dx2};
        batch_norm_pair_backward(s, args);
        bn_backward_apply(s, dz, x, {}, coef.as<float>(), Activation::none, f, f + channels, expected, {});
        bn_backward_apply(s, dz, x2, {}, coef2.as<float>(), Activation::none, f + 2 * channels, f + 3 * channels,
                          expected2, {});
      });
      expect_same(dx, expected, case_of(rows, channels));
      expect_same(dx2, expected2, case_of(rows, channels) + ", second");
      for (const bool second : {false, true}) {  // in the place of dz
        const DeviceTensor place = values(shape, 1), other = empty(shape);
        run(ctx(), [&](Stream s) {
          PairBackwardArgs args{.dz = place, .branch = {}};
          args.branch[0] = {x, coef.as<float>(), f, f + channels, second ? other : place};
          args.branch[1] = {x2, coef2.as<float>(), f + 2 * channels, f + 3 * channels, second ? place : other};
          batch_norm_pair_backward(s, args);
        });
        expect_same(second ? other : place, expected, case_of(rows, channels) + ", in place");
        expect_same(second ? place : other, expected2, case_of(rows, channels) + ", second in place");
      }
    }
}

TEST_P(BlockEndTest, APoolOfABatchNormIsBoth) {
  const PoolWindow overlapping{.kernel_h = 3, .kernel_w = 3, .stride_h = 2, .stride_w = 2, .pad = 1},
      apart{.kernel_h = 2, .kernel_w = 2, .stride_h = 2, .stride_w = 2};
  for (const PoolWindow& window : {overlapping, apart})
    for (const int64_t channels : kChannels) {
      const Shape shape{2, 9, 7, channels}, pooled = window.pooled(shape);
      const DeviceTensor x = values(shape, 1), coef = coefficients(channels, 2), dy = values(pooled, 3);
      const DeviceTensor y = empty(pooled), expected = empty(pooled), normalised = empty(shape),
                         arriving = empty(shape);
      const DeviceTensor index(ctx(), DType::u8, pooled), plain_index(ctx(), DType::u8, pooled);
      const DeviceTensor dx = empty(shape), expected_dx = empty(shape);
      const DeviceTensor found = floats({2, channels}), sums = floats({2, channels});
      const DeviceTensor scratch =
          floats({bn_backward_scratch(shape.elements() / channels, static_cast<int>(channels)) / 4});
      float *const f = found.as<float>(), *const e = sums.as<float>();
      run(ctx(), [&](Stream s) {
        bn_max_pool(s, x, coef.as<float>(), y, index, window);
        BnMaxPoolBackwardArgs args{.dy = dy,
                                   .index = index,
                                   .x = x,
                                   .coef = coef.as<float>(),
                                   .window = window,
                                   .scratch = scratch.as<float>(),
                                   .dgamma = f,
                                   .dbeta = f + channels,
                                   .dx = dx};
        bn_max_pool_backward_reduce(s, args);
        bn_max_pool_backward_apply(s, args);
        bn_apply(s, x, coef.as<float>(), {}, normalised, Activation::relu);
        max_pool(s, normalised, expected, plain_index, window);
        max_pool_backward(s, dy, index, arriving, window);
        bn_backward_reduce(s, arriving, x, {}, coef.as<float>(), Activation::relu, scratch.as<float>(), e,
                           e + channels);
        bn_backward_apply(s, arriving, x, {}, coef.as<float>(), Activation::relu, e, e + channels, expected_dx, {});
      });
      const std::string name = std::to_string(channels) + " channels";
      expect_same(y, expected, name);
      if (dtype() == DType::f32) expect_same(index, plain_index, name + ", index");
      // In 16 bits the composition stores the gathered gradient first.
      const double tolerance = dtype() == DType::f32 && !ctx().device().is_cuda() ? 0 : 8 * epsilon(dtype());
      expect_near(found.values(), sums.values(), 20 * tolerance, tolerance, name + ", sums");
      expect_near(dx.values(), expected_dx.values(), 2 * tolerance, 2 * tolerance, name + ", dx");
      dx.check_guards();
      index.check_guards();
    }
}

TEST_P(BlockEndTest, APoolOfABatchNormJoinsTwoGradients) {
  const PoolWindow window{.kernel_h = 3, .kernel_w = 3, .stride_h = 2, .stride_w = 2, .pad = 1};
  for (const int64_t channels : kChannels) {
    const Shape shape{2, 9, 7, channels}, pooled = window.pooled(shape);
    const DeviceTensor x = values(shape, 1), coef = coefficients(channels, 2);
    const DeviceTensor dy = values(pooled, 3), dy2 = values(pooled, 4), both = empty(pooled), y = empty(pooled);
    const DeviceTensor index(ctx(), DType::u8, pooled), dx = empty(shape), expected_dx = empty(shape);
    const DeviceTensor found = floats({2, channels}), sums = floats({2, channels});
    const DeviceTensor scratch =
        floats({bn_backward_scratch(shape.elements() / channels, static_cast<int>(channels)) / 4});
    run(ctx(), [&](Stream s) {
      bn_max_pool(s, x, coef.as<float>(), y, index, window);
      add(s, dy, dy2, both);
      BnMaxPoolBackwardArgs args{
          .index = index, .x = x, .coef = coef.as<float>(), .window = window, .scratch = scratch.as<float>()};
      for (const bool joined : {true, false}) {
        const DeviceTensor& to = joined ? found : sums;
        args.dy = joined ? dy : both;
        args.dy2 = joined ? Tensor(dy2) : Tensor{};
        args.dgamma = to.as<float>();
        args.dbeta = to.as<float>() + channels;
        args.dx = joined ? dx : expected_dx;
        bn_max_pool_backward_reduce(s, args);
        bn_max_pool_backward_apply(s, args);
      }
    });
    EXPECT_EQ(found.values(), sums.values()) << channels;
    EXPECT_EQ(dx.values(), expected_dx.values()) << channels;
  }
}

INSTANTIATE_OP_TEST(BlockEndTest);

}  // namespace
}  // namespace convolt::test
