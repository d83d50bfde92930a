// The ends of branches and their gradients in one sweep against compositions of the plain kernels, which have
// references of their own.
#include "branch_end.h"

#include <gtest/gtest.h>

#include "batch_norm.h"
#include "channels.h"
#include "kernel_test.h"
#include "stochastic_depth.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

using Vector = std::vector<double>;

// Which factors a branch has.
struct Factors {
  bool gamma;
  float p;
};
constexpr Factors kFactors[] = {{true, 0}, {false, 0.4F}, {true, 0.4F}};
// Two and a half chunks; off and on the packet; one value for each picture.
const Shape kShapes[] = {{5, 8, 4, 16}, {3, 3, 7, 10}, {6, 1}, {2, 96}};

class BranchEndTest : public OpTest {
protected:
  DeviceTensor values(Shape shape, uint64_t seed) {
    return {ctx(), dtype(), shape, random_values(shape.elements(), seed, -2, 2)};
  }
  DeviceTensor floats(int64_t n, uint64_t seed = 0) {
    return {ctx(), DType::f32, {n}, random_values(n, seed, 0.25, 1.5)};
  }
  static BranchScale scale_of(const Factors& f, const DeviceTensor& gamma, const StepInput* input) {
    return {.gamma = f.gamma ? gamma.as<float>() : nullptr, .p = f.p, .layer = 7, .input = input};
  }
  // In 16 bits the composition rounds what the sweep does not store, at most twice.
  void expect_same(const DeviceTensor& found, const DeviceTensor& expected, const std::string& what) {
    const bool exact = dtype() == DType::f32 && !ctx().device().is_cuda();
    const double e = exact ? 0 : 8 * epsilon(dtype());
    expect_near(found.values(), expected.values(), e, e, what);
    found.check_guards();
  }
  void expect_sums(const DeviceTensor& found, const DeviceTensor& expected, int64_t rows, const std::string& what) {
    const bool exact = dtype() == DType::f32 && !ctx().device().is_cuda();
    const double e = exact ? 0 : 8 * epsilon(dtype());
    expect_near(found.values(), expected.values(), e * static_cast<double>(rows), e, what);
    found.check_guards();
  }
  DeviceArray<StepInput> step_input() { return {ctx(), {StepInput{.step = 3, .seed = 11, .first_row = 6}}}; }
};

std::string case_of(const Shape& shape, const Factors& f) {
  return shape.to_string() + (f.gamma ? ", gamma" : "") + ", p = " + std::to_string(f.p);
}

TEST_P(BranchEndTest, ByHand) {
  const DeviceTensor x(ctx(), dtype(), {2, 2}, {1, 2, 3, 4}), r(ctx(), dtype(), {2, 2}, {10, 20, 30, 40});
  const DeviceTensor dy(ctx(), dtype(), {2, 2}, {1, -1, 2, 3}), y(ctx(), dtype(), {2, 2}), dx(ctx(), dtype(), {2, 2});
  const DeviceTensor gamma(ctx(), DType::f32, {2}, {2, 0.5}), dgamma = floats(2), dbias = floats(2);
  const DeviceTensor scratch = floats(branch_end_scratch(2, 2) / 4);
  run(ctx(), [&](Stream s) {
    const BranchScale scale{.gamma = gamma.as<float>()};
    branch_end(s, x, r, scale, y);
    branch_end_backward(s, {.dy = dy,
                            .x = x,
                            .scale = scale,
                            .dx = dx,
                            .scratch = scratch.as<float>(),
                            .dgamma = dgamma.as<float>(),
                            .dbias = dbias.as<float>()});
  });
  EXPECT_EQ(y.values(), (Vector{12, 21, 36, 42}));
  EXPECT_EQ(dx.values(), (Vector{2, -0.5, 4, 1.5}));
  EXPECT_EQ(dgamma.values(), (Vector{7, 10}));
  EXPECT_EQ(dbias.values(), (Vector{6, 1}));
}

TEST_P(BranchEndTest, IsScaleStochasticDepthAndAddition) {
  const DeviceArray<StepInput> input = step_input();
  for (const Shape& shape : kShapes)
    for (const Factors& f : kFactors) {
      const DeviceTensor x = values(shape, 1), r = values(shape, 2), gamma = floats(shape[-1], 3);
      const DeviceTensor y(ctx(), dtype(), shape), plain(ctx(), dtype(), shape), expected(ctx(), dtype(), shape);
      run(ctx(), [&](Stream s) {
        branch_end(s, x, r, scale_of(f, gamma, input.get()), y);
        cast(s, x, plain);
        if (f.gamma) scale_channels(s, plain, gamma.as<float>(), plain);
        if (f.p > 0) stochastic_depth(s, plain, plain, f.p, 7, input.get());
        add(s, plain, r, expected);
      });
      expect_same(y, expected, case_of(shape, f));
    }
}

TEST_P(BranchEndTest, ItsGradientIsTheirs) {
  const DeviceArray<StepInput> input = step_input();
  for (const Shape& shape : kShapes)
    for (const Factors& f : kFactors)
      for (const bool in_place : {false, true}) {
        const int64_t channels = shape[-1], rows = shape.elements() / channels;
        const DeviceTensor dy = values(shape, 1), x = values(shape, 2), gamma = floats(channels, 3);
        const DeviceTensor dx(ctx(), dtype(), shape), arriving(ctx(), dtype(), shape), expected(ctx(), dtype(), shape);
        const DeviceTensor dgamma = floats(channels), dbias = floats(channels), sums = floats(channels, 4),
                           sums_of_dx = floats(channels, 5);
        const DeviceTensor scratch = floats(branch_end_scratch(rows, channels) / 4);
        float* const partials = scratch.as<float>();
        run(ctx(), [&](Stream s) {
          if (f.p > 0)
            stochastic_depth(s, dy, arriving, f.p, 7, input.get());
          else
            cast(s, dy, arriving);
          scale_channels_backward(s, arriving, x, partials, sums.as<float>());
          if (f.gamma)
            scale_channels(s, arriving, gamma.as<float>(), expected);
          else
            cast(s, arriving, expected);
          channel_sum(s, expected, partials, sums_of_dx.as<float>());
          branch_end_backward(s, {.dy = dy,
                                  .x = f.gamma ? x.tensor() : Tensor{},
                                  .scale = scale_of(f, gamma, input.get()),
                                  .dx = in_place ? dy : dx,
                                  .scratch = partials,
                                  .dgamma = f.gamma ? dgamma.as<float>() : nullptr,
                                  .dbias = dbias.as<float>()});
        });
        const std::string name = case_of(shape, f);
        expect_same(in_place ? dy : dx, expected, name);
        if (f.gamma) expect_sums(dgamma, sums, rows, name + ", dgamma");
        expect_sums(dbias, sums_of_dx, rows, name + ", dbias");
        scratch.check_guards();
      }
}

TEST_P(BranchEndTest, AnActivationsGradientIsSummedAsItIsStored) {
  for (const Shape& shape : kShapes)
    for (const Act act : all_activations()) {
      const int64_t channels = shape[-1], rows = shape.elements() / channels;
      const DeviceTensor dy = values(shape, 1), kept = values(shape, 2);
      const DeviceTensor dx(ctx(), dtype(), shape), expected(ctx(), dtype(), shape);
      const DeviceTensor sum = floats(channels), expected_sum = floats(channels, 1);
      const DeviceTensor scratch = floats(bn_backward_scratch(rows, static_cast<int>(channels)) / 4);
      float* const partials = scratch.as<float>();
      run(ctx(), [&](Stream s) {
        activation_backward_sum(s, dy, kept, dx, act, partials, sum.as<float>());
        activation_backward(s, dy, kept, expected, act);
        channel_sum(s, expected, partials, expected_sum.as<float>());
      });
      const std::string name = shape.to_string() + ", " + std::string(name_of(act.kind));
      // The sums are those of what is stored, in every dtype.
      const double e = ctx().device().is_cuda() ? 4 * epsilon(dtype()) : 0;
      expect_near(dx.values(), expected.values(), e, e, name);
      expect_near(sum.values(), expected_sum.values(), e * static_cast<double>(rows), e, name + ", sum");
      scratch.check_guards();
    }
}

INSTANTIATE_OP_TEST(BranchEndTest);

}  // namespace
}  // namespace convolt::test
