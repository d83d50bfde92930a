// The gradient of batch norm, against the reference.
#include <gtest/gtest.h>

#include <optional>

#include "norm_on_device.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

class BatchNormBackwardTest : public OpTest {};

// `stored`: with a residual, act' read from the stored y; else from x * scale + bias again.
void check_backward(Context& context, DType dtype, int64_t rows, int channels, Act act, bool stored) {
  const Shape shape{rows, channels};
  const Vector x = rounded(random_values(rows * channels, 1, -2, 6), dtype);
  const Vector dy = rounded(random_values(rows * channels, 2), dtype);
  // Low enough that no hardsigmoid just below 1 is stored as 1, where its gradient stops.
  const Vector residual = stored ? rounded(random_values(rows * channels, 3, -2, 0), dtype) : Vector{};
  const DeviceTensor tx(context, dtype, shape, x), tdy(context, dtype, shape, dy), y(context, dtype, shape);
  const DeviceTensor dx(context, dtype, shape), dresidual(context, dtype, shape);
  std::optional<DeviceTensor> tr;
  if (stored) tr.emplace(context, dtype, shape, residual);
  const Norm norm(context, rows, channels);
  const Tensor y_if_stored = stored ? y.tensor() : Tensor{};
  run(context, [&](Stream s) {
    norm.statistics(s, tx);
    bn_apply(s, tx, norm.coef.as<float>(), stored ? tr->tensor() : Tensor{}, y, act);
    bn_backward_reduce(s, tdy, tx, y_if_stored, norm.coef.as<float>(), act, norm.scratch.as<float>(),
                       norm.dgamma.as<float>(), norm.dbeta.as<float>());
    bn_backward_apply(s, tdy, tx, y_if_stored, norm.coef.as<float>(), act, norm.dgamma.as<float>(),
                      norm.dbeta.as<float>(), dx, stored ? dresidual.tensor() : Tensor{});
  });
  const auto g = reference::batch_norm_backward(dy, x, norm.params, residual, act);
  const std::string what = case_name("backward through " + std::string(name_of(act.kind)), rows, channels);
  const double act_error = stored ? gradient_error(dtype, act) : 0,
               sum_error = (act_error + 1e-6) * static_cast<double>(rows);
  expect_near(norm.dgamma.values(), g.dgamma, sum_error, 1e-5, what + ": dgamma");
  expect_near(norm.dbeta.values(), g.dbeta, sum_error, 1e-5, what + ": dbeta");
  expect_near(dx.values(), g.dx, act_error + 1e-5, 1.01 * epsilon(dtype), what + ": dx");
  if (stored) expect_near(dresidual.values(), g.dresidual, act_error, 1.01 * epsilon(dtype), what + ": dresidual");
  for (const DeviceTensor* t : {&dx, &y, &tdy}) t->check_guards();
  if (stored) dresidual.check_guards();
  norm.check_guards();
}

TEST_P(BatchNormBackwardTest, BackwardOfAnySize) {
  for (const int64_t rows : {4, 63, 65, 200})
    for (const int channels : kChannels) check_backward(ctx(), dtype(), rows, channels, Activation::relu, false);
}

TEST_P(BatchNormBackwardTest, BackwardWithEveryActivationAndResidual) {
  for (const Act act : all_activations())
    for (const bool stored : {false, true})
      for (const int channels : {3, 16})
        if (!stored || gradient_from_output(act)) check_backward(ctx(), dtype(), 100, channels, act, stored);
}

TEST_P(BatchNormBackwardTest, FrozenBackward) {
  for (const int channels : kChannels)
    for (const bool stored : {false, true}) {
      const int64_t rows = 70, n = rows * channels;
      const Shape shape{rows, channels};
      const Vector x = rounded(random_values(n, 1, -2, 6), dtype()), dy = rounded(random_values(n, 2), dtype());
      const Vector residual = stored ? rounded(random_values(n, 3), dtype()) : Vector{};
      const DeviceTensor tx(ctx(), dtype(), shape, x), tdy(ctx(), dtype(), shape, dy), y(ctx(), dtype(), shape),
          dx(ctx(), dtype(), shape), dz(ctx(), dtype(), shape),
          tr(ctx(), dtype(), shape, stored ? residual : Vector(x.size()));
      const Norm norm(ctx(), rows, channels);
      const Tensor y_if_stored = stored ? y.tensor() : Tensor{};
      run(ctx(), [&](Stream s) {
        bn_coefficients(s, channels, norm.gamma.as<float>(), norm.beta.as<float>(), norm.running_mean.as<float>(),
                        norm.running_var.as<float>(), static_cast<float>(norm.params.eps), norm.coef.as<float>());
        bn_apply(s, tx, norm.coef.as<float>(), stored ? tr.tensor() : Tensor{}, y, Activation::relu);
        bn_backward_reduce(s, tdy, tx, y_if_stored, norm.coef.as<float>(), Activation::relu, norm.scratch.as<float>(),
                           norm.dgamma.as<float>(), norm.dbeta.as<float>());
        bn_backward_apply(s, tdy, tx, y_if_stored, norm.coef.as<float>(), Activation::relu, norm.dgamma.as<float>(),
                          norm.dbeta.as<float>(), dx, stored ? dz.tensor() : Tensor{}, true);
      });
      const reference::ChannelMoments running{norm.running_mean.values(), norm.running_var.values()};
      const auto g = reference::frozen_batch_norm_backward(dy, x, running, norm.params, residual, Activation::relu);
      const std::string what = case_name("frozen backward", rows, channels);
      expect_near(norm.dgamma.values(), g.dgamma, 1e-4, 1e-5, what + ": dgamma");
      expect_near(norm.dbeta.values(), g.dbeta, 1e-4, 1e-5, what + ": dbeta");
      expect_near(dx.values(), g.dx, 1e-6, 1.01 * epsilon(dtype()), what + ": dx");
      if (stored) expect_near(dz.values(), g.dresidual, 0, 0, what + ": dresidual");
      dx.check_guards();
    }
}

// A thread of a GPU takes several rows of so many, two at once, and one of fewer.
TEST_P(BatchNormBackwardTest, ManyRowsAreAsFew) {
  const int channels = 64;
  const int64_t rows = 140'001, few = 30'000;
  const Shape shape{rows, channels};
  const DeviceTensor x(ctx(), dtype(), shape, random_values(rows * channels, 1)),
      dy(ctx(), dtype(), shape, random_values(rows * channels, 2)), in_parts(ctx(), dtype(), shape),
      whole(ctx(), dtype(), shape);
  const Norm norm(ctx(), rows, channels);
  const auto apply = [&](Stream s, int64_t first, int64_t n, const Tensor& to) {
    const auto part = [&](const Tensor& t) {
      return Tensor{dtype(), {n, channels}, static_cast<char*>(t.data) + first * channels * size_of(dtype())};
    };
    bn_backward_apply(s, part(dy), part(x), Tensor{}, norm.coef.as<float>(), Activation::relu, norm.dgamma.as<float>(),
                      norm.dbeta.as<float>(), part(to), Tensor{}, true);
  };
  run(ctx(), [&](Stream s) {
    norm.statistics(s, x);
    bn_backward_reduce(s, dy, x, Tensor{}, norm.coef.as<float>(), Activation::relu, norm.scratch.as<float>(),
                       norm.dgamma.as<float>(), norm.dbeta.as<float>());
    for (int64_t first = 0; first < rows; first += few) apply(s, first, std::min(few, rows - first), in_parts);
    apply(s, 0, rows, whole);
    apply(s, 0, rows, dy);  // in place
  });
  const Vector expected = in_parts.values();
  EXPECT_EQ(whole.values(), expected);
  EXPECT_EQ(dy.values(), expected);
}

TEST_P(BatchNormBackwardTest, BackwardInPlace) {
  const int64_t rows = 50;
  for (const int channels : {3, 16}) {
    const Shape shape{rows, channels};
    const DeviceTensor x(ctx(), dtype(), shape, random_values(rows * channels, 1));
    DeviceTensor dy(ctx(), dtype(), shape, random_values(rows * channels, 2));
    const DeviceTensor dx(ctx(), dtype(), shape);
    const Norm norm(ctx(), rows, channels);
    const auto apply = [&](const Tensor& to, const Tensor& dresidual) {
      run(ctx(), [&](Stream s) {
        bn_backward_apply(s, dy, x, Tensor{}, norm.coef.as<float>(), Activation::relu, norm.dgamma.as<float>(),
                          norm.dbeta.as<float>(), to, dresidual);
      });
    };
    run(ctx(), [&](Stream s) {
      norm.statistics(s, x);
      bn_backward_reduce(s, dy, x, Tensor{}, norm.coef.as<float>(), Activation::relu, norm.scratch.as<float>(),
                         norm.dgamma.as<float>(), norm.dbeta.as<float>());
    });
    apply(dx, Tensor{});
    const Vector apart = dx.values(), given = dy.values();
    apply(dx, dy);  // dresidual over dy
    EXPECT_EQ(dx.values(), apart);
    dy.set(given);
    apply(dy, Tensor{});  // dx over dy
    EXPECT_EQ(dy.values(), apart);
  }
}

INSTANTIATE_OP_TEST(BatchNormBackwardTest);

}  // namespace
}  // namespace convolt::test
