#include "resample.h"

#include <gtest/gtest.h>

#include "kernel_test.h"
#include "reference/resample.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

using Vector = std::vector<double>;

class ResampleTest : public OpTest {};
constexpr int64_t kResampleChannels[] = {1, 3, 8, 10, 16};

TEST_P(ResampleTest, BordersAndBack) {
  for (const Padding& p : {Padding(0), Padding(1), Padding(2, 0), Padding(1, 2, 3, 4), Padding(0, 0, 0, 5)})
    for (const int64_t channels : kResampleChannels)
      for (const Shape& shape : {Shape{2, 3, 4, channels}, Shape{1, 1, 1, channels}}) {
        const Shape padded{shape[0], shape[1] + p.vertical(), shape[2] + p.horizontal(), channels};
        const Vector x = rounded(random_values(shape.elements(), 1), dtype());
        const Vector dy = rounded(random_values(padded.elements(), 2), dtype());
        const DeviceTensor tx(ctx(), dtype(), shape, x), y(ctx(), dtype(), padded), tdy(ctx(), dtype(), padded, dy),
            dx(ctx(), dtype(), shape);
        run(ctx(), [&](Stream s) {
          shift_picture(s, tx, y, -p.top, -p.left, -1.5F);
          shift_picture(s, tdy, dx, p.top, p.left, 0);
        });
        EXPECT_EQ(y.values(), reference::pad(x, shape, p, -1.5)) << shape.to_string() << " " << p.to_string();
        EXPECT_EQ(dx.values(), reference::pad_backward(dy, shape, p)) << shape.to_string() << " " << p.to_string();
        for (const DeviceTensor* t : {&y, &dx}) t->check_guards();
      }
}

TEST_P(ResampleTest, OtherSizesAndTheirGradients) {
  struct Case {
    int64_t h, w, to_h, to_w;
  };
  // Twice and half, odd ratios, to and from one pixel, much larger and much smaller, where torch's floats round down.
  const Case cases[] = {{4, 3, 8, 6}, {8, 6, 4, 3},  {5, 7, 3, 11}, {3, 11, 5, 7},   {1, 1, 4, 5},
                        {6, 5, 1, 1}, {2, 3, 41, 2}, {41, 2, 2, 3}, {2, 3, 82, 123}, {7, 7, 7, 7}};
  for (const Case& c : cases)
    for (const int64_t channels : kResampleChannels)
      for (const auto filter : {ResampleFilter::nearest, ResampleFilter::bilinear}) {
        const bool bilinear = filter == ResampleFilter::bilinear;
        const Shape shape{2, c.h, c.w, channels}, to{2, c.to_h, c.to_w, channels};
        const Vector x = rounded(random_values(shape.elements(), 1), dtype());
        const Vector dy = rounded(random_values(to.elements(), 2), dtype());
        const DeviceTensor tx(ctx(), dtype(), shape, x), y(ctx(), dtype(), to), tdy(ctx(), dtype(), to, dy),
            dx(ctx(), dtype(), shape);
        run(ctx(), [&](Stream s) {
          resample(s, tx, y, filter);
          resample_backward(s, tdy, dx, filter);
        });
        const std::string what =
            std::string(bilinear ? " bilinear " : " nearest ") + shape.to_string() + " to " + to.to_string();
        expect_near(y.values(), reference::resample(x, shape, c.to_h, c.to_w, bilinear), 1e-6, 1.01 * epsilon(dtype()),
                    "resample" + what);
        expect_near(dx.values(), reference::resample_backward(dy, shape, c.to_h, c.to_w, bilinear), 1e-4,
                    1.01 * epsilon(dtype()), "gradient" + what);
        for (const DeviceTensor* t : {&y, &dx}) t->check_guards();
      }
}

INSTANTIATE_OP_TEST(ResampleTest);

}  // namespace
}  // namespace convolt::test
