#include "activation.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/device.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

class ActivationTest : public OpTest {};

TEST_P(ActivationTest, ReluIsExactAndKeepsNan) {
  const DeviceTensor x(ctx(), dtype(), {9}, {-2, -0.5, -0.0, 0, 0.5, 1, 2, NAN, -INFINITY});
  const DeviceTensor y(ctx(), dtype(), {9});
  run(ctx(), [&](Stream s) { activation(s, x, y, Activation::relu); });
  expect_near(y.values(), {0, 0, 0, 0, 0.5, 1, 2, NAN, 0}, 0, 0, "relu");
  y.check_guards();
}

TEST_P(ActivationTest, Relu6AndItsGradientAtTheKinks) {
  const DeviceTensor x(ctx(), dtype(), {6}, {-1, 0, 3, 6, 7, 5.5});
  const DeviceTensor y(ctx(), dtype(), {6}), dx(ctx(), dtype(), {6});
  const DeviceTensor dy(ctx(), dtype(), {6}, {1, 2, 3, 4, 5, 6});
  run(ctx(), [&](Stream s) {
    activation(s, x, y, Activation::relu6);
    activation_backward(s, dy, y, dx, Activation::relu6);
  });
  expect_near(y.values(), {0, 0, 3, 6, 6, 5.5}, 0, 0, "relu6");
  expect_near(dx.values(), {0, 0, 3, 0, 0, 6}, 0, 0, "relu6 gradient");
}

// Sizes around the packet of eight, and large enough for several GPU blocks.
TEST_P(ActivationTest, AddOfAnySize) {
  for (const int64_t n : {1, 7, 8, 9, 17, 4099}) {
    const auto a = random_values(n, 1), b = random_values(n, 2);
    const DeviceTensor ta(ctx(), dtype(), {n}, a), tb(ctx(), dtype(), {n}, b), y(ctx(), dtype(), {n});
    run(ctx(), [&](Stream s) { add(s, ta, tb, y); });
    std::vector<double> expected(a.size());
    for (size_t i = 0; i < a.size(); ++i)
      expected[i] = rounded(rounded(a[i], dtype()) + rounded(b[i], dtype()), dtype());
    expect_near(y.values(), expected, 0, 0, "add of " + std::to_string(n));
    y.check_guards();
  }
}

INSTANTIATE_OP_TEST(ActivationTest);

}  // namespace
}  // namespace convolt::test
