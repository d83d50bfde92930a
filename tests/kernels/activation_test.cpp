#include "activation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/philox.h"
#include "kernel_test.h"
#include "reference/elementwise.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

using Vector = std::vector<double>;

class ActivationTest : public OpTest {};

// The error of a number near 0: below 2^-14, f16 has fewer digits; on the CPU e^x is 0 below -87.7.
double smallest(DType dtype) { return dtype == DType::f16 ? 3e-8 : 1e-35; }

// Sizes around the packet of eight, and large enough for several threads and GPU blocks.
constexpr int64_t kSizes[] = {1, 7, 8, 9, 17, 4099, 70001};

TEST_P(ActivationTest, ReluIsExactAndKeepsNan) {
  const DeviceTensor x(ctx(), dtype(), {9}, {-2, -0.5, -0.0, 0, 0.5, 1, 2, NAN, -INFINITY});
  const DeviceTensor y(ctx(), dtype(), {9});
  run(ctx(), [&](Stream s) { activation(s, x, y, Activation::relu); });
  expect_near(y.values(), {0, 0, 0, 0, 0.5, 1, 2, NAN, 0}, 0, 0, "relu");
  y.check_guards();
}

TEST_P(ActivationTest, Relu6AndItsGradientAtTheKinks) {
  const DeviceTensor x(ctx(), dtype(), {9}, {-1, 0, 3, 6, 7, 5.5, NAN, INFINITY, NAN});
  const DeviceTensor y(ctx(), dtype(), {9}), dx(ctx(), dtype(), {6});
  const DeviceTensor dy(ctx(), dtype(), {6}, {1, 2, 3, 4, 5, 6});
  run(ctx(), [&](Stream s) {
    activation(s, x, y, Activation::relu6);
    activation_backward(s, dy, y, dx, Activation::relu6);
  });
  expect_near(y.values(), {0, 0, 3, 6, 6, 5.5, NAN, 6, NAN}, 0, 0, "relu6");
  expect_near(dx.values(), {0, 0, 3, 0, 0, 6}, 0, 0, "relu6 gradient");
}

TEST_P(ActivationTest, AnySizeAgainstReference) {
  for (const int64_t n : kSizes)
    for (const Act act : all_activations()) {
      const std::string what = std::string(name_of(act.kind)) + " of " + std::to_string(n);
      const Vector x = rounded(random_values(n, 1, -8, 10), dtype()), dy = rounded(random_values(n, 2), dtype());
      const DeviceTensor tx(ctx(), dtype(), {n}, x), y(ctx(), dtype(), {n});
      DeviceTensor tdy(ctx(), dtype(), {n}, dy);
      const DeviceTensor dx(ctx(), dtype(), {n}), over(ctx(), dtype(), {n}, x);
      const DeviceTensor& kept = gradient_from_output(act) ? y : tx;
      run(ctx(), [&](Stream s) {
        activation(s, tx, y, act);
        activation_backward(s, tdy, kept, dx, act);
        activation(s, over, over, act);
      });
      expect_near(y.values(), reference::activation(x, act), smallest(dtype()), 1e-6 + epsilon(dtype()), what);
      expect_near(dx.values(), reference::activation_backward(dy, x, act), gradient_error(dtype(), act),
                  1e-6 + epsilon(dtype()), what + ": gradient");
      EXPECT_EQ(over.values(), y.values()) << what << " in place";
      const Vector apart = dx.values();
      run(ctx(), [&](Stream s) { activation_backward(s, tdy, kept, tdy, act); });
      EXPECT_EQ(tdy.values(), apart) << what << ": gradient over dy";
      tdy.set(dy);
      run(ctx(), [&](Stream s) { activation_backward(s, tdy, kept, kept, act); });
      EXPECT_EQ(kept.values(), apart) << what << ": gradient over what was kept";
      for (const DeviceTensor* t : std::initializer_list<const DeviceTensor*>{&tx, &y, &tdy, &dx, &over})
        t->check_guards();
    }
}

// Down to where f32 underflows: tails keep their digits, and nothing becomes NaN.
TEST_P(ActivationTest, TailsAndExtremes) {
  const int64_t n = 20001;
  Vector x = rounded(random_values(n, 3, -90, 90), dtype());
  const Vector extremes{-1e4, 1e4, -4e4, 4e4, -100, 100, -88.8, 88.8, -15, 15, -3, 3, 0};
  std::copy(extremes.begin(), extremes.end(), x.begin());
  x = rounded(x, dtype());
  const Vector ones(static_cast<size_t>(n), 1);
  const DeviceTensor tx(ctx(), dtype(), {n}, x), y(ctx(), dtype(), {n}), dy(ctx(), dtype(), {n}, ones);
  const DeviceTensor dx(ctx(), dtype(), {n});
  for (const Act act : all_activations()) {
    const bool from_output = gradient_from_output(act);
    run(ctx(), [&](Stream s) {
      activation(s, tx, y, act);
      activation_backward(s, dy, from_output ? y : tx, dx, act);
    });
    const std::string what(name_of(act.kind));
    expect_near(y.values(), reference::activation(x, act), smallest(dtype()), 1e-6 + epsilon(dtype()), what);
    expect_near(dx.values(), reference::activation_backward(ones, x, act), gradient_error(dtype(), act),
                1e-6 + epsilon(dtype()), what + ": gradient");
  }
}

TEST_P(ActivationTest, InfinityAndNan) {
  struct Limits {
    Activation act;
    double low, high, gradient_low, gradient_high;
  };
  const Limits all[] = {{Activation::silu, 0, INFINITY, 0, 1},
                        {Activation::gelu, 0, INFINITY, 0, 1},
                        {Activation::hardswish, 0, INFINITY, 0, 1},
                        {Activation::hardsigmoid, 0, 1, 0, 0},
                        {Activation::mish, 0, INFINITY, 0, 1},
                        {Activation::sigmoid, 0, 1, 0, 0},
                        {Activation::tanh, -1, 1, 0, 0},
                        {Activation::leaky_relu, -INFINITY, INFINITY, 0.25, 1},
                        {Activation::relu, 0, INFINITY, 0, 1}};
  const DeviceTensor x(ctx(), dtype(), {3}, {-INFINITY, INFINITY, NAN}), y(ctx(), dtype(), {3});
  const DeviceTensor dy(ctx(), dtype(), {2}, {1, 1}), dx(ctx(), dtype(), {2});
  for (const Limits& l : all) {
    const Act act(l.act, 0.25F);
    run(ctx(), [&](Stream s) {
      activation(s, x, y, act);
      activation_backward(s, dy, gradient_from_output(act) ? y : x, dx, act);
    });
    EXPECT_EQ(y.values()[0], l.low) << name_of(l.act);
    EXPECT_EQ(y.values()[1], l.high) << name_of(l.act);
    EXPECT_TRUE(std::isnan(y.values()[2])) << name_of(l.act);
    expect_near(dx.values(), {l.gradient_low, l.gradient_high}, 0, 0, std::string(name_of(l.act)) + ": gradient");
  }
}

TEST_P(ActivationTest, GradientsAtTheKinksAreTorchs) {
  const DeviceTensor x(ctx(), dtype(), {3}, {-3, 0, 3}), y(ctx(), dtype(), {3}), ones(ctx(), dtype(), {3}, {1, 1, 1});
  const DeviceTensor dx(ctx(), dtype(), {3});
  const auto gradient = [&](Act act) {
    run(ctx(), [&](Stream s) {
      activation(s, x, y, act);
      activation_backward(s, ones, gradient_from_output(act) ? y : x, dx, act);
    });
    return dx.values();
  };
  // x = torch.tensor([-3., 0, 3], requires_grad=True); torch.nn.functional.hardswish(x).sum().backward(); x.grad
  EXPECT_EQ(gradient(Activation::hardswish), (Vector{0, 0.5, 1}));
  EXPECT_EQ(gradient({Activation::leaky_relu, 0.25F}), (Vector{0.25, 0.25, 1}));
  expect_near(gradient(Activation::hardsigmoid), {0, rounded(1. / 6, dtype()), 0}, 0, 1e-7, "hardsigmoid");
}

TEST_P(ActivationTest, AddOfAnySize) {
  for (const int64_t n : kSizes) {
    const Vector a = rounded(random_values(n, 1), dtype()), b = rounded(random_values(n, 2), dtype());
    const DeviceTensor ta(ctx(), dtype(), {n}, a), tb(ctx(), dtype(), {n}, b), y(ctx(), dtype(), {n});
    run(ctx(), [&](Stream s) {
      add(s, ta, tb, y);
      add(s, ta, tb, ta);
    });
    const Vector expected = rounded(reference::add(a, b), dtype());
    EXPECT_EQ(y.values(), expected) << n;
    EXPECT_EQ(ta.values(), expected) << n << " in place";
    y.check_guards();
  }
}

TEST_P(ActivationTest, LoadImages) {
  for (const int64_t n : {1, 9, 1000}) {
    const Vector x = random_values(n, 1);
    const DeviceTensor images(ctx(), DType::f32, {n}, x), y(ctx(), dtype(), {n, 1, 1, 1});
    StepInput in;
    in.images = images.as<float>();
    const DeviceArray<StepInput> input(ctx(), {in});
    run(ctx(), [&](Stream s) { load_images(s, input.get(), y); });
    EXPECT_EQ(y.values(), rounded(x, dtype())) << n;
    y.check_guards();
  }
}

// Rows of a mask are whole 16 bytes, with nothing set behind the last element.
TEST_P(ActivationTest, AReluGoesBackByItsMask) {
  EXPECT_EQ(mask_row_bytes(128), 16);
  EXPECT_EQ(mask_row_bytes(129), 32);
  for (const int64_t channels : {1, 8, 13, 128, 300}) {
    const Shape shape{5, channels}, mask_shape{5, mask_row_bytes(channels)};
    const Vector y = reference::activation(rounded(random_values(shape.elements(), 1), dtype()), Activation::relu),
                 dy = rounded(random_values(shape.elements(), 2), dtype());
    const DeviceTensor ty(ctx(), dtype(), shape, y), mask(ctx(), DType::u8, mask_shape), dx(ctx(), dtype(), shape, dy);
    run(ctx(), [&](Stream s) {
      relu_mask(s, ty, mask.as<uint8_t>());
      relu_mask_backward(s, mask.as<uint8_t>(), dx);
    });
    Vector bytes(static_cast<size_t>(mask_shape.elements())), passed = dy;
    for (int64_t i = 0; i < shape.elements(); ++i) {
      const int64_t c = i % channels;
      if (y[static_cast<size_t>(i)] > 0)
        bytes[static_cast<size_t>(i / channels * mask_shape[1] + c / 8)] += static_cast<double>(1 << c % 8);
      else
        passed[static_cast<size_t>(i)] = 0;
    }
    EXPECT_EQ(mask.values(), bytes) << channels;
    EXPECT_EQ(dx.values(), passed) << channels;
    mask.check_guards();
    dx.check_guards();
  }
}

TEST_P(ActivationTest, FillZeroOfAnyNumberOfBytes) {
  for (const int64_t bytes : {1, 2, 15, 16, 17, 4099}) {
    const DeviceTensor t(ctx(), DType::u8, {bytes}, Vector(static_cast<size_t>(bytes), 7));
    run(ctx(), [&](Stream s) { fill_zero(s, t.tensor().data, bytes); });
    EXPECT_EQ(t.values(), Vector(static_cast<size_t>(bytes))) << bytes;
    t.check_guards();
  }
}

INSTANTIATE_OP_TEST(ActivationTest);

class DropoutTest : public OpTest {
protected:
  // What dropout makes of `x`, [rows, elements of a row].
  Vector apply(const Vector& x, int64_t rows, float p, uint32_t layer = 3, int64_t step = 5, int64_t first_row = 0,
               uint64_t seed = 42) const {
    StepInput in;
    in.seed = seed;
    in.step = step;
    in.first_row = first_row;
    const Shape shape{rows, static_cast<int64_t>(x.size()) / rows};
    const DeviceArray<StepInput> input(ctx(), {in});
    const DeviceTensor tx(ctx(), dtype(), shape, x), y(ctx(), dtype(), shape);
    run(ctx(), [&](Stream s) {
      dropout(s, tx, y, p, layer, input.get());
      dropout(s, tx, tx, p, layer, input.get());
    });
    EXPECT_EQ(tx.values(), y.values()) << "in place";
    y.check_guards();
    return y.values();
  }
};

TEST_P(DropoutTest, KeepsTheRightShareAndScalesIt) {
  const Vector ones(20000, 1);
  for (const float p : {0.1F, 0.5F, 0.8F}) {
    const auto drop = static_cast<double>(p);
    double kept = 0;
    for (const double v : apply(ones, 20, p)) {
      if (v != 0) {
        EXPECT_NEAR(v, 1 / (1 - drop), 1.01 * epsilon(dtype()) / (1 - drop) + 1e-6);
        ++kept;
      }
    }
    EXPECT_NEAR(kept / 20000, 1 - drop, 5 * std::sqrt(drop * (1 - drop) / 20000));  // 5 standard deviations
  }
  EXPECT_EQ(apply(ones, 20, 0), ones);
}

TEST_P(DropoutTest, TheSameBitsForTheSameKeyOnly) {
  const Vector ones(4000, 1), once = apply(ones, 4, 0.5F);
  EXPECT_EQ(apply(ones, 4, 0.5F), once);
  EXPECT_NE(apply(ones, 4, 0.5F, 4), once) << "another layer";
  EXPECT_NE(apply(ones, 4, 0.5F, 3, 6), once) << "another step";
  EXPECT_NE(apply(ones, 4, 0.5F, 3, 5, 4), once) << "other rows";
  EXPECT_NE(apply(ones, 4, 0.5F, 3, 5, 0, 43), once) << "another seed";
  EXPECT_NE(Vector(once.begin(), once.begin() + 1000), Vector(once.begin() + 1000, once.begin() + 2000))
      << "rows alike";
}

// docs/numerics.md: Philox of (seed; step, layer, row of the global batch, element), four elements to a call.
TEST_P(DropoutTest, TheBitsAreTheDocumentedOnes) {
  const Vector x = rounded(random_values(3 * 1001, 3, 0.5, 1), dtype()), y = apply(x, 3, 0.25F, 7, 5, 2, 42);
  for (size_t i = 0; i < y.size(); ++i) {
    const uint64_t row = 2 + i / 1001, element = i % 1001;
    const Philox4 bits = philox(42, uint64_t{5} << 32 | element / 4,
                                uint64_t{static_cast<uint32_t>(RandomUse::dropout)} << 56 ^ uint64_t{7} << 40 ^ row);
    const double expected = uniform(bits.v[element % 4]) >= 0.25F ? x[i] / 0.75 : 0;
    ASSERT_NEAR(y[i], expected, 2 * epsilon(dtype()) * expected) << i;
  }
}

TEST_P(DropoutTest, GradientHasTheSameMask) {
  const Vector x = random_values(999, 1, 0.5, 1), dy = random_values(999, 2, 0.5, 1);
  const Vector y = apply(x, 3, 0.4F), dx = apply(dy, 3, 0.4F);
  for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(y[i] == 0, dx[i] == 0) << i;
}

// Two plans of four rows draw what one of eight draws, whatever the length of a row.
TEST_P(DropoutTest, DoesNotDependOnTheSplitOfTheBatch) {
  for (const int64_t row : {1, 3, 4, 5, 130}) {
    const auto half = static_cast<ptrdiff_t>(4 * row);
    const Vector x = random_values(8 * row, 1, 0.5, 1), whole = apply(x, 8, 0.5F);
    Vector joined = apply({x.begin(), x.begin() + half}, 4, 0.5F);
    const Vector second = apply({x.begin() + half, x.end()}, 4, 0.5F, 3, 5, 4);
    joined.insert(joined.end(), second.begin(), second.end());
    EXPECT_EQ(joined, whole) << row;
  }
}

INSTANTIATE_OP_TEST(DropoutTest);

}  // namespace
}  // namespace convolt::test
