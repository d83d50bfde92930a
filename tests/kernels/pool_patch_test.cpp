// The max pools that go by strips and patches against those that go pixel by pixel, on the CPU.
#include <gtest/gtest.h>

#include <cmath>

#include "batch_norm.h"
#include "bn_pool.h"
#include "kernel_test.h"
#include "support/op_test.h"

namespace convolt {
// Of kernels/exec/pool_patch.h, which only .cu files may include.
extern bool pool_patches_on_cpu;
}  // namespace convolt

namespace convolt::test {
namespace {

using Vector = std::vector<double>;

class ByPatches {
public:
  ByPatches() { pool_patches_on_cpu = true; }
  ~ByPatches() { pool_patches_on_cpu = false; }
};

const PoolWindow kWindows[] = {
    {3, 3, 2, 2, 1},  {3, 3, 2, 2, {1, 1, 0, 0}}, {3, 3, 2, 2, {1, 1, 0, 1}, true},
    {2, 2, 2, 2, {}}, {2, 2, 2, 2, {}, true},     {2, 2, 2, 2, {0, 0, 1, 1}},
};
struct Extents {
  int64_t n, h, w, channels;
};
const Extents kPictures[] = {{1, 1, 1, 8},  {2, 2, 3, 8},   {3, 7, 8, 8},   {1, 8, 7, 12},
                             {2, 9, 5, 64}, {1, 6, 6, 64},  {3, 17, 20, 8}, {2, 34, 5, 72},
                             {1, 5, 4, 72}, {1, 4, 5, 264}, {1, 3, 37, 16}};

class PoolPatchTest : public OpTest {
protected:
  // f(shape, pooled, window, what) for every case.
  template <class F>
  void for_each_case(F f) {
    for (const PoolWindow& window : kWindows)
      for (const Extents& e : kPictures) {
        const Shape shape{e.n, e.h, e.w, e.channels}, pooled = window.pooled(shape);
        if (pooled.elements() == 0) continue;
        f(shape, pooled, window,
          shape.to_string() + " by " + std::to_string(window.kernel_h) + " to " + pooled.to_string());
      }
  }
  // Steps so coarse that whatever differs does so by more than a contraction changes, and that much does not differ.
  Vector coarse(const Shape& shape) {
    Vector v = random_values(shape.elements(), 1, -2, 2);
    for (double& x : v) x = std::round(x * 64) / 64;
    return v;
  }
  // Mean, inverse deviation, scale of either sign, bias.
  Vector coefficients(int64_t channels) {
    Vector v = random_values(4 * channels, 2, 0.25, 1.5);
    for (int64_t c = 0; c < channels; c += 3) v[static_cast<size_t>(2 * channels + c)] *= -1;
    return v;
  }
  Context& cpu() { return context_of(Device::cpu()); }
};

struct Pooled {
  Vector y, index;
};
Pooled pool(Context& at, DType dtype, const Vector& x, const Shape& shape, const Vector& coef,
            const PoolWindow& window) {
  const Shape pooled = window.pooled(shape);
  const DeviceTensor tx(at, dtype, shape, x), tc(at, DType::f32, {4, shape[3]}, coef);
  const DeviceTensor y(at, dtype, pooled), index(at, DType::u8, pooled);
  run(at, [&](Stream s) { bn_max_pool(s, tx, tc.as<float>(), y, index, window); });
  y.check_guards();
  index.check_guards();
  return {y.values(), index.values()};
}

TEST_P(PoolPatchTest, PoolsABatchNorm) {
  for_each_case([&](const Shape& shape, const Shape&, const PoolWindow& window, const std::string& what) {
    for (const bool nan : {false, true}) {
      Vector x = coarse(shape);
      for (size_t i = 3; nan && i < x.size(); i += 7) x[i] = i % 2 ? NAN : INFINITY;
      const Vector coef = coefficients(shape[3]);
      const Pooled expected = pool(cpu(), dtype(), x, shape, coef, window);
      const ByPatches patches;
      const Pooled found = pool(ctx(), dtype(), x, shape, coef, window);
      const double e = ctx().device().is_cuda() ? 4 * epsilon(dtype()) : 0;
      expect_near(found.y, expected.y, e, e, what);
      EXPECT_EQ(found.index, expected.index) << what;
    }
  });
}

TEST_P(PoolPatchTest, PassesGradientsOn) {
  for_each_case([&](const Shape& shape, const Shape& pooled, const PoolWindow& window, const std::string& what) {
    const Vector x = coarse(shape), coef = coefficients(shape[3]), dy = random_values(pooled.elements(), 3);
    const Vector index = pool(cpu(), dtype(), x, shape, coef, window).index;
    const auto backward = [&](Context& at) {
      const DeviceTensor tdy(at, dtype(), pooled, dy), ti(at, DType::u8, pooled, index), dx(at, dtype(), shape);
      const DeviceTensor of_means(at, dtype(), shape);
      run(at, [&](Stream s) {
        max_pool_backward(s, tdy, ti, dx, window);
        avg_pool_backward(s, tdy, of_means, window);
      });
      dx.check_guards();
      of_means.check_guards();
      return std::pair(dx.values(), of_means.values());
    };
    const auto expected = backward(cpu());
    const ByPatches patches;
    const auto found = backward(ctx());
    EXPECT_EQ(found.first, expected.first) << what;
    expect_near(found.second, expected.second, 1e-7, 2.02 * epsilon(dtype()), what + ", means");
  });
}

struct Gradients {
  Vector sums, dx;
};
// dx of `given` sums, or of its own.
Gradients gradients(Context& at, DType dtype, const Shape& shape, const PoolWindow& window, const Vector& x,
                    const Vector& coef, const Vector& index, const Vector& dy, const Vector& dy2, const Vector& given) {
  const Shape pooled = window.pooled(shape);
  const int64_t channels = shape[3];
  const DeviceTensor tx(at, dtype, shape, x), tc(at, DType::f32, {4, channels}, coef);
  const DeviceTensor ti(at, DType::u8, pooled, index), dx(at, dtype, shape), sums(at, DType::f32, {2, channels});
  const DeviceTensor first(at, dtype, pooled, dy), second(at, dtype, pooled, dy2.empty() ? dy : dy2);
  const DeviceTensor scratch(at, DType::f32,
                             {bn_backward_scratch(shape.elements() / channels, static_cast<int>(channels)) / 4});
  const BnMaxPoolBackwardArgs args{.dy = first,
                                   .dy2 = dy2.empty() ? Tensor{} : second.tensor(),
                                   .index = ti,
                                   .x = tx,
                                   .coef = tc.as<float>(),
                                   .window = window,
                                   .scratch = scratch.as<float>(),
                                   .dgamma = sums.as<float>(),
                                   .dbeta = sums.as<float>() + channels,
                                   .dx = dx};
  run(at, [&](Stream s) { bn_max_pool_backward_reduce(s, args); });
  const Vector found = sums.values();
  const DeviceTensor apply_sums(at, DType::f32, {2, channels}, given.empty() ? found : given);
  BnMaxPoolBackwardArgs apply = args;
  apply.dgamma = apply_sums.as<float>();
  apply.dbeta = apply_sums.as<float>() + channels;
  run(at, [&](Stream s) { bn_max_pool_backward_apply(s, apply); });
  const Vector outside = dx.values();
  apply.dx = tx;  // in the place of x
  run(at, [&](Stream s) { bn_max_pool_backward_apply(s, apply); });
  EXPECT_EQ(tx.values(), outside);
  for (const DeviceTensor* t : {&dx, &sums, &scratch, &tx}) t->check_guards();
  return {found, outside};
}

TEST_P(PoolPatchTest, PassesGradientsOnToABatchNorm) {
  for_each_case([&](const Shape& shape, const Shape& pooled, const PoolWindow& window, const std::string& what) {
    const Vector x = coarse(shape), coef = coefficients(shape[3]), dy = random_values(pooled.elements(), 3);
    const Vector index = pool(cpu(), dtype(), x, shape, coef, window).index;
    for (const bool two : {false, true}) {
      const Vector dy2 = two ? random_values(pooled.elements(), 4) : Vector{};
      const Gradients expected = gradients(cpu(), dtype(), shape, window, x, coef, index, dy, dy2, {});
      const auto found = [&] {
        return gradients(ctx(), dtype(), shape, window, x, coef, index, dy, dy2, expected.sums);
      };
      const ByPatches patches;
      const Gradients of = found();
      expect_near(of.sums, expected.sums, 2e-4, 1e-5, what + ", sums");
      expect_near(of.dx, expected.dx, 4e-6 + 2 * epsilon(dtype()), 2.02 * epsilon(dtype()), what + ", dx");
      const PhasesBackwards backwards;
      EXPECT_EQ(found().sums, of.sums) << what;
    }
  });
}

INSTANTIATE_OP_TEST(PoolPatchTest);

}  // namespace
}  // namespace convolt::test
