#include "pool.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernel_test.h"
#include "reference/pooling.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

using Vector = std::vector<double>;

class PoolTest : public OpTest {};

struct PoolCase {
  Shape shape;  // the channels are set by the test
  PoolWindow window;
};
const PoolCase kPoolCases[] = {
    {{2, 4, 6, 0}, {}},
    {{2, 7, 5, 0}, {}},                          // floor mode leaves a row and a column out
    {{2, 7, 6, 0}, {}},                          // a row alone
    {{2, 6, 9, 0}, {3, 2, 3, 2, {0, 0}}},        // a column alone
    {{2, 6, 8, 0}, {3, 2, 3, 2, {0, 0}}},        // windows side by side, not square
    {{1, 1, 1, 0}, {1, 1, 1, 1, {0, 0}}},        // a single pixel
    {{2, 9, 8, 0}, {3, 3, 2, 2, {1, 1}}},        // overlapping and padded
    {{1, 5, 6, 0}, {3, 2, 1, 1, {0, 1}}},        // not square
    {{2, 6, 5, 0}, {3, 3, 2, 2, {0, 1, 1, 0}}},  // more padding on one side
    {{1, 8, 9, 0}, {2, 3, 3, 4, {1, 0}}},        // a stride beyond the window: some pixels belong to none
    {{1, 15, 17, 0}, {15, 17, 1, 1, {7, 8}}},    // the largest index
    // Ceil mode: a last window that sticks out, one that would start in the padding, one larger than the picture.
    {{2, 7, 5, 0}, {2, 2, 2, 2, {}, true}},
    {{2, 5, 4, 0}, {3, 3, 2, 2, {1, 1}, true}},
    {{1, 6, 8, 0}, {3, 4, 3, 3, {1, 2}, true, false}},
    {{1, 2, 3, 0}, {4, 3, 3, 2, {}, true, false}},
    {{1, 6, 6, 0}, {1, 1, 3, 2, {}, true}},  // one that would start right behind the picture
    // Padding that does not count, also unlike on both sides.
    {{2, 5, 4, 0}, {3, 3, 1, 1, {1, 1}, false, false}},
    {{2, 6, 5, 0}, {3, 2, 2, 2, {0, 1, 1, 0}, false, false}},
    {{2, 6, 5, 0}, {3, 3, 2, 2, {0, 0, 1, 1}, true, true}},
};
constexpr int64_t kPoolChannels[] = {1, 3, 8, 10, 16, 33};

// f(shape with channels, window, what) for every case.
template <class F>
void for_each_case(F f) {
  for (const PoolCase& c : kPoolCases)
    for (const int64_t channels : kPoolChannels) {
      Shape shape = c.shape;
      shape.set(3, channels);
      f(shape, c.window,
        " of " + shape.to_string() + " by " + std::to_string(c.window.kernel_h) + "x" +
            std::to_string(c.window.kernel_w));
    }
}

TEST_P(PoolTest, MaxPoolByHand) {
  const PoolWindow window{2, 2, 1, 1, {0, 0}};
  const DeviceTensor x(ctx(), dtype(), {1, 3, 3, 1}, {1, 2, 3, 4, 9, 6, 7, 8, 5});
  const DeviceTensor y(ctx(), dtype(), {1, 2, 2, 1}), index(ctx(), DType::u8, {1, 2, 2, 1});
  const DeviceTensor dy(ctx(), dtype(), {1, 2, 2, 1}, {1, 2, 4, 8}), dx(ctx(), dtype(), {1, 3, 3, 1});
  run(ctx(), [&](Stream s) {
    max_pool(s, x, y, index, window);
    max_pool_backward(s, dy, index, dx, window);
  });
  EXPECT_EQ(y.values(), (Vector{9, 9, 9, 9}));
  EXPECT_EQ(index.values(), (Vector{3, 2, 1, 0}));
  EXPECT_EQ(dx.values(), (Vector{0, 0, 0, 0, 15, 0, 0, 0, 0}));
}

TEST_P(PoolTest, MaxPoolTiesNanAndInfinities) {
  // Windows of one column: a tie, a NaN before and one after the largest, two NaN, nothing but -infinity.
  const Vector top{5, NAN, 1, NAN, -INFINITY}, bottom{5, 1, NAN, NAN, -INFINITY};
  for (const int64_t copies : {1, 8}) {  // one channel, and a packet of eight alike
    Vector values, largest, where;
    for (const Vector& line : {top, bottom})
      for (const double v : line) values.insert(values.end(), static_cast<size_t>(copies), v);
    for (const double v :
         {5.0, static_cast<double>(NAN), static_cast<double>(NAN), static_cast<double>(NAN), -INFINITY + 0.0})
      largest.insert(largest.end(), static_cast<size_t>(copies), v);
    for (const double v : {0, 0, 1, 0, 0}) where.insert(where.end(), static_cast<size_t>(copies), v);
    const DeviceTensor x(ctx(), dtype(), {1, 2, 5, copies}, values), y(ctx(), dtype(), {1, 1, 5, copies});
    const DeviceTensor index(ctx(), DType::u8, {1, 1, 5, copies});
    run(ctx(), [&](Stream s) { max_pool(s, x, y, index, {2, 1, 2, 1, {0, 0}}); });
    expect_near(y.values(), largest, 0, 0, "max_pool");
    EXPECT_EQ(index.values(), where);
  }
}

TEST_P(PoolTest, MaxPoolAgainstReference) {
  for_each_case([&](const Shape& shape, const PoolWindow& window, const std::string& what) {
    // Coarse numbers, so that there are ties; negative ones, so that a padding of 0 would win.
    Vector x = random_values(shape.elements(), 1, -9, -1);
    for (double& v : x) v = std::round(v);
    const Shape pooled = reference::pooled_shape(shape, window);
    const Vector dy = rounded(random_values(pooled.elements(), 2), dtype());
    const DeviceTensor tx(ctx(), dtype(), shape, x), y(ctx(), dtype(), pooled), alone(ctx(), dtype(), pooled);
    const DeviceTensor index(ctx(), DType::u8, pooled), tdy(ctx(), dtype(), pooled, dy), dx(ctx(), dtype(), shape);
    run(ctx(), [&](Stream s) {
      max_pool(s, tx, y, index, window);
      max_pool(s, tx, alone, Tensor{}, window);
      max_pool_backward(s, tdy, index, dx, window);
    });
    const auto expected = reference::max_pool(x, shape, window);
    EXPECT_EQ(y.values(), expected.y) << "max_pool" << what;
    EXPECT_EQ(alone.values(), expected.y) << "max_pool without index" << what;
    EXPECT_EQ(index.values(), expected.index) << "index" << what;
    expect_near(dx.values(), reference::max_pool_backward(dy, x, shape, window), 1e-5, 1.01 * epsilon(dtype()),
                "max_pool_backward" + what);
    for (const DeviceTensor* t : {&y, &alone, &index, &dx}) t->check_guards();
  });
}

TEST_P(PoolTest, AvgPoolAgainstReference) {
  for_each_case([&](const Shape& shape, const PoolWindow& window, const std::string& what) {
    const Shape pooled = reference::pooled_shape(shape, window);
    const Vector x = rounded(random_values(shape.elements(), 1), dtype());
    const Vector dy = rounded(random_values(pooled.elements(), 2), dtype());
    const DeviceTensor tx(ctx(), dtype(), shape, x), y(ctx(), dtype(), pooled);
    const DeviceTensor tdy(ctx(), dtype(), pooled, dy), dx(ctx(), dtype(), shape);
    run(ctx(), [&](Stream s) {
      avg_pool(s, tx, y, window);
      avg_pool_backward(s, tdy, dx, window);
    });
    expect_near(y.values(), reference::avg_pool(x, shape, window), 1e-6, 1.01 * epsilon(dtype()), "avg_pool" + what);
    expect_near(dx.values(), reference::avg_pool_backward(dy, shape, window), 1e-6, 1.01 * epsilon(dtype()),
                "avg_pool_backward" + what);
    for (const DeviceTensor* t : {&y, &dx}) t->check_guards();
  });
}

TEST_P(PoolTest, GlobalAvgPool) {
  for (const int64_t channels : kPoolChannels)
    for (const Shape& shape : {Shape{3, 1, 1, channels}, Shape{2, 7, 5, channels}, Shape{1, 40, 50, channels}}) {
      const Vector x = rounded(random_values(shape.elements(), 1, 0, 2), dtype());
      const Vector dy = rounded(random_values(shape[0] * channels, 2), dtype());
      const DeviceTensor tx(ctx(), dtype(), shape, x), y(ctx(), dtype(), {shape[0], channels});
      const DeviceTensor tdy(ctx(), dtype(), {shape[0], channels}, dy), dx(ctx(), dtype(), shape);
      run(ctx(), [&](Stream s) {
        global_avg_pool(s, tx, y);
        global_avg_pool_backward(s, tdy, dx);
      });
      const std::string what = " of " + shape.to_string();
      expect_near(y.values(), reference::global_avg_pool(x, shape), 1e-6, 1.01 * epsilon(dtype()), "mean" + what);
      // The smallest f16 are 2^-24 apart.
      expect_near(dx.values(), reference::global_avg_pool_backward(dy, shape), 0x1p-24, 1.01 * epsilon(dtype()),
                  "gradient of the mean" + what);
      for (const DeviceTensor* t : {&y, &dx}) t->check_guards();
    }
}

TEST_P(PoolTest, AdaptiveAvgPool) {
  struct Case {
    int64_t h, w;
    int64_t to_h, to_w;
  };
  // Dividing, overlapping, to one pixel, to more pixels than there are.
  const Case cases[] = {{6, 4, 3, 2}, {7, 10, 3, 4}, {5, 9, 1, 1}, {40, 50, 1, 1},
                        {3, 2, 7, 7}, {1, 1, 2, 3},  {5, 5, 5, 5}};
  for (const Case& c : cases)
    for (const int64_t channels : kPoolChannels) {
      const Shape shape{2, c.h, c.w, channels}, pooled{2, c.to_h, c.to_w, channels};
      const Vector x = rounded(random_values(shape.elements(), 1, 0, 2), dtype());
      const Vector dy = rounded(random_values(pooled.elements(), 2), dtype());
      const DeviceTensor tx(ctx(), dtype(), shape, x), y(ctx(), dtype(), pooled);
      const DeviceTensor tdy(ctx(), dtype(), pooled, dy), dx(ctx(), dtype(), shape);
      run(ctx(), [&](Stream s) {
        adaptive_avg_pool(s, tx, y);
        adaptive_avg_pool_backward(s, tdy, dx);
      });
      const std::string what = " of " + shape.to_string() + " to " + pooled.to_string();
      expect_near(y.values(), reference::adaptive_avg_pool(x, shape, c.to_h, c.to_w), 1e-6, 1.01 * epsilon(dtype()),
                  "adaptive mean" + what);
      expect_near(dx.values(), reference::adaptive_avg_pool_backward(dy, shape, c.to_h, c.to_w), 1e-6,
                  1.01 * epsilon(dtype()), "its gradient" + what);
      for (const DeviceTensor* t : {&y, &dx}) t->check_guards();
    }
}

TEST_P(PoolTest, SlicePad) {
  struct Case {
    int64_t h, w, from, to;
    int stride, before;
  };
  // The shortcuts of CIFAR ResNets (16 -> 32, 32 -> 64), then odd ones: no packets, shifts off the packet, fewer
  // channels than before.
  const Case cases[] = {{4, 4, 16, 32, 2, 8}, {3, 5, 32, 64, 2, 16}, {4, 4, 16, 32, 2, 4},
                        {5, 7, 3, 10, 3, 2},  {1, 1, 1, 1, 1, 0},    {3, 3, 8, 16, 1, 8},
                        {4, 3, 10, 4, 2, -3}, {4, 3, 16, 8, 2, -8},  {2, 2, 16, 8, 2, 4}};
  for (const Case& c : cases) {
    const Shape shape{2, c.h, c.w, c.from};
    const Shape sliced{2, (c.h + c.stride - 1) / c.stride, (c.w + c.stride - 1) / c.stride, c.to};
    const Vector x = rounded(random_values(shape.elements(), 1), dtype());
    const Vector dy = rounded(random_values(sliced.elements(), 2), dtype());
    const DeviceTensor tx(ctx(), dtype(), shape, x), y(ctx(), dtype(), sliced);
    const DeviceTensor tdy(ctx(), dtype(), sliced, dy), dx(ctx(), dtype(), shape);
    run(ctx(), [&](Stream s) {
      slice_pad(s, tx, y, c.stride, c.before);
      slice_pad_backward(s, tdy, dx, c.stride, c.before);
    });
    EXPECT_EQ(y.values(), reference::slice_pad(x, shape, c.to, c.stride, c.before)) << shape.to_string();
    EXPECT_EQ(dx.values(), reference::slice_pad_backward(dy, shape, c.to, c.stride, c.before)) << shape.to_string();
    for (const DeviceTensor* t : {&y, &dx}) t->check_guards();
  }
}

TEST_P(PoolTest, GeometryThatDoesNotFitIsAnError) {
  const DeviceTensor x(ctx(), dtype(), {1, 20, 20, 1}), y(ctx(), dtype(), {1, 9, 10, 1});
  const DeviceTensor one(ctx(), dtype(), {1, 1, 1, 1});
  const auto pool = [&](const Tensor& to, const PoolWindow& w) {
    run(ctx(), [&](Stream s) { max_pool(s, x, to, Tensor{}, w); });
  };
  EXPECT_THROW(pool(y, PoolWindow{}), ShapeError);                            // y should be 10x10
  EXPECT_THROW(pool(y, (PoolWindow{2, 2, 2, 2, {2, 0}})), ShapeError);        // a window could lie in the padding
  EXPECT_THROW(pool(one, (PoolWindow{16, 16, 16, 16, {0, 0}})), ShapeError);  // 256 positions do not fit a byte
}

INSTANTIATE_OP_TEST(PoolTest);

}  // namespace
}  // namespace convolt::test
