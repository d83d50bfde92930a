// Our own depthwise and grouped convolutions, on every device that is there, against the naive double references.
#include "conv/conv_depthwise.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>

#include "conv/read_ahead.h"
#include "conv/run_kernel.h"
#include "reference/conv.h"
#include "reference/elementwise.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

constexpr ConvPass kPasses[] = {ConvPass::fprop, ConvPass::dgrad, ConvPass::wgrad};

ConvGeometry of(int64_t n, int64_t h, int64_t w, int64_t channels, int kernel, int stride_h, int stride_w,
                Padding pad) {
  return {.n = n,
          .in_h = h,
          .in_w = w,
          .in_c = channels,
          .out_c = channels,
          .kernel_h = kernel,
          .kernel_w = kernel,
          .stride_h = stride_h,
          .stride_w = stride_w,
          .pad = pad,
          .groups = channels};
}

// Pictures of one pixel, smaller than the window, odd, of several strips and a cut one; padding of all widths; channels
// that fill packets of 8, of 4 and of 2, and those that fill none.
std::vector<ConvGeometry> geometries(int kernel) {
  const int half = kernel / 2;
  std::vector<ConvGeometry> all;
  for (const auto& [sh, sw] : {std::array{1, 1}, {2, 2}, {1, 2}, {2, 1}}) {
    all.push_back(of(2, 9, 13, 8, kernel, sh, sw, half));
    all.push_back(of(1, 14, 10, 24, kernel, sh, sw, half));
    all.push_back(of(3, 1, 1, 12, kernel, sh, sw, half));
    all.push_back(of(1, kernel - 1, 2, 65, kernel, sh, sw, {1, kernel, 0, kernel + 1}));
    all.push_back(of(1, kernel, kernel, 3, kernel, sh, sw, 0));
    all.push_back(of(2, 11, 8, 1, kernel, sh, sw, {0, 2, 3, 1}));
    all.push_back(of(1, 8, 15, 6, kernel, sh, sw, {kernel + 1, 1, 0, half}));
    all.push_back(of(2, 7, 9, 4, kernel, sh, sw, {half, 0, 1, kernel}));
  }
  return all;
}

// The same with groups of 4 and of 8, one slab of channels and more.
std::vector<ConvGeometry> grouped_geometries() {
  std::vector<ConvGeometry> all;
  for (const int group : {4, 8})
    for (const int stride : {1, 2}) {
      all.push_back(of(2, 9, 13, 3 * group, 3, stride, stride, 1));
      all.push_back(of(3, 1, 1, 2 * group, 3, stride, stride, 1));
      all.push_back(of(1, 2, 3, 17 * group, 3, stride, stride, {1, 3, 0, 4}));
      all.push_back(of(1, 3, 3, 2 * group, 3, stride, stride, 0));
      all.push_back(of(1, 8, 15, 5 * group, 3, stride, stride, {4, 1, 0, 1}));
      all.push_back(of(2, 20, 9, 4 * group, 3, stride, stride, {1, 0, 1, 3}));
      for (auto g = all.end() - 6; g != all.end(); ++g) g->groups /= group;
    }
  return all;
}

Values reference_of(const ConvDesc& d, const Values& x, const Values& w, const Values& y) {
  if (d.pass == ConvPass::fprop) return reference::conv_fprop(d.geometry, x, w, nullptr);
  if (d.pass == ConvPass::dgrad) return reference::conv_dgrad(d.geometry, y, w);
  return reference::conv_wgrad(d.geometry, x, y);
}

// x, w and y of a description, what its pass makes not yet made.
struct Operands {
  DeviceTensor x, w, y;
  Operands(Context& context, const ConvDesc& d, const Values& vx, const Values& vw, const Values& vy)
      : x(make(context, d, d.geometry.x_shape(), vx, d.pass == ConvPass::dgrad)),
        w(make(context, d, d.geometry.w_shape(), vw, d.pass == ConvPass::wgrad)),
        y(make(context, d, d.geometry.y_shape(), vy, d.pass == ConvPass::fprop)) {}
  static DeviceTensor make(Context& context, const ConvDesc& d, const Shape& shape, const Values& v, bool result) {
    return result ? DeviceTensor(context, d.dtype, shape) : DeviceTensor(context, d.dtype, shape, v);
  }
  const DeviceTensor& result(ConvPass pass) const {
    return pass == ConvPass::fprop ? y : pass == ConvPass::dgrad ? x : w;
  }
};

std::unique_ptr<ConvKernel> kernel_of(const ConvDesc& d) {
  auto found = depthwise_candidates(d);
  for (auto& grouped : grouped_candidates(d)) found.push_back(std::move(grouped));
  return found.size() == 1 ? std::move(found[0]) : nullptr;
}

class DepthwiseTest : public OpTest {
protected:
  void check(const ConvGeometry& g, ConvPass pass) {
    const ConvDesc d{pass, g, dtype()};
    const std::string what = g.to_string() + " " + name_of_pass(pass);
    const auto kernel = kernel_of(d);
    ASSERT_NE(kernel, nullptr) << what;
    const Values x = random_of(g.x_shape(), 1, dtype()), w = random_of(g.w_shape(), 2, dtype()),
                 y = random_of(g.y_shape(), 3, dtype());
    const Operands o(ctx(), d, x, w, y);
    run_kernel(ctx(), *kernel, pass, o.x, o.w, o.y, nullptr);
    const Values found = o.result(pass).values();
    expect_sums(o.result(pass), dtype(), reference_of(d, x, w, y),
                reference_of(d, absolute(x), absolute(w), absolute(y)), what);
    run_kernel(ctx(), *kernel, pass, o.x, o.w, o.y, nullptr);
    EXPECT_EQ(o.result(pass).values(), found) << what << ": again";
  }
};

TEST_P(DepthwiseTest, MakesTheSumsOfEveryPass) {
  for (const int kernel : {3, 5, 7})
    for (const ConvGeometry& g : geometries(kernel))
      for (const ConvPass pass : kPasses) check(g, pass);
}

TEST_P(DepthwiseTest, MakesTheSumsOfGroups) {
  for (const ConvGeometry& g : grouped_geometries())
    for (const ConvPass pass : kPasses) check(g, pass);
}

// Several slabs of channels and blocks of rows, and chunks of the weight gradient that are summed in several runs.
TEST_P(DepthwiseTest, MakesTheSumsOfLargerPictures) {
  for (const ConvPass pass : kPasses) {
    check(of(2, 40, 37, 40, 3, 1, 1, 1), pass);
    check(of(5, 18, 9, 280, 5, 1, 1, 2), pass);
    check(of(3, 33, 18, 72, 7, 2, 2, 3), pass);
  }
}

#if defined(CONVOLT_READ_AHEAD)
// What a GPU runs, but for who waits for whom: the same bits as the CPU's way, as each sum is made in the same order,
// and of weight gradients the same sums.
TEST_P(DepthwiseTest, ReadsAhead) {
  std::vector<ConvGeometry> all = grouped_geometries();
  for (const int kernel : {3, 5, 7})
    for (const ConvGeometry& g : geometries(kernel)) all.push_back(g);
  all.push_back(of(2, 40, 37, 40, 3, 1, 1, 1));
  all.push_back(of(3, 33, 18, 72, 7, 2, 2, 3));
  all.push_back(of(70, 3, 1, 64, 3, 1, 1, 1));  // several pictures between two rows of a thread
  all.push_back(of(1, 67, 5, 8, 3, 1, 1, 1));   // a chunk of fewer rows than the one before
  for (const ConvGeometry& g : all)
    for (const ConvPass pass : kPasses) {
      const ConvDesc d{pass, g, dtype()};
      const std::string what = g.to_string() + " " + name_of_pass(pass);
      const int64_t lanes = g.kernel_h == 3 ? 16 / size_of(dtype()) : 2;
      const bool gpu_walks = g.groups < g.in_c || (g.stride_h == g.stride_w && g.in_c % lanes == 0);
      const Values x = random_of(g.x_shape(), 1, dtype()), w = random_of(g.w_shape(), 2, dtype()),
                   y = random_of(g.y_shape(), 3, dtype());
      const Operands expected(ctx(), d, x, w, y);
      run_kernel(ctx(), *kernel_of(d), pass, expected.x, expected.w, expected.y, nullptr);
      for (const bool early : {false, true}) {
        const Operands o(ctx(), d, x, w, y);
        const bool ran = run_read_ahead(d, o.x.tensor(), o.w.tensor(), o.y.tensor(), early);
        EXPECT_EQ(ran, pass == ConvPass::wgrad || gpu_walks) << what;
        if (!ran) continue;
        for (const DeviceTensor* t : {&o.x, &o.w, &o.y}) t->check_guards();
        const bool cpu_walks = pass != ConvPass::wgrad && (g.in_c % 8 == 0 || g.groups < g.in_c);
        if (cpu_walks) {
          EXPECT_EQ(o.result(pass).values(), expected.result(pass).values()) << what;
        }
        expect_sums(o.result(pass), dtype(), reference_of(d, x, w, y),
                    reference_of(d, absolute(x), absolute(w), absolute(y)), what);
      }
    }
}
#endif

TEST_P(DepthwiseTest, AddsBiasAndActivates) {
  for (const ConvGeometry& g : {of(2, 9, 13, 8, 3, 1, 1, 1), of(1, 7, 6, 65, 5, 2, 1, 2), of(2, 8, 8, 6, 7, 2, 2, 3),
                                grouped_geometries()[0]}) {
    const Values x = random_of(g.x_shape(), 1, dtype()), w = random_of(g.w_shape(), 2, dtype()),
                 bias = random_values(g.out_c, 4, -2, 6), positive = absolute(bias);
    const Values sums = reference::conv_fprop(g, x, w, &bias),
                 sizes = reference::conv_fprop(g, absolute(x), absolute(w), &positive);
    const DeviceTensor dbias(ctx(), DType::f32, {g.out_c}, bias);
    for (const auto& [epilogue, act] : {std::pair{ConvEpilogue::bias, Activation::none},
                                        {ConvEpilogue::bias_relu, Activation::relu},
                                        {ConvEpilogue::bias_relu6, Activation::relu6}}) {
      const ConvDesc d{.geometry = g, .dtype = dtype(), .epilogue = epilogue};
      const Operands o(ctx(), d, x, w, {});
      run_kernel(ctx(), *kernel_of(d), ConvPass::fprop, o.x, o.w, o.y, dbias.as<float>());
      expect_sums(o.y, dtype(), reference::activation(sums, act), sizes,
                  g.to_string() + " epilogue " + std::to_string(static_cast<int>(epilogue)));
    }
  }
}

// A loss that is not finite is found by its NaN.
TEST_P(DepthwiseTest, LetsNansThrough) {
  const ConvGeometry g = of(1, 4, 5, 8, 3, 1, 1, 1);
  Values x = random_of(g.x_shape(), 1, dtype());
  x[0] = std::numeric_limits<double>::quiet_NaN();
  const DeviceTensor dbias(ctx(), DType::f32, {g.out_c}, Values(static_cast<size_t>(g.out_c)));
  for (const ConvEpilogue epilogue : {ConvEpilogue::bias_relu, ConvEpilogue::bias_relu6}) {
    const ConvDesc d{.geometry = g, .dtype = dtype(), .epilogue = epilogue};
    const Operands o(ctx(), d, x, random_of(g.w_shape(), 2, dtype()), {});
    run_kernel(ctx(), *kernel_of(d), ConvPass::fprop, o.x, o.w, o.y, dbias.as<float>());
    EXPECT_TRUE(std::isnan(o.y.values()[0])) << static_cast<int>(epilogue);
  }
}

// One channel of 3 x 3 pixels, padded by 1.
TEST_P(DepthwiseTest, ByHand) {
  const ConvGeometry g = of(1, 3, 3, 1, 3, 1, 1, 1);
  const Values digits{1, 2, 3, 4, 5, 6, 7, 8, 9};
  const auto made = [&](ConvPass pass, const Values& x, const Values& w, const Values& y) {
    const ConvDesc d{pass, g, dtype()};
    const Operands o(ctx(), d, x, w, y);
    run_kernel(ctx(), *kernel_of(d), pass, o.x, o.w, o.y, nullptr);
    return o.result(pass).values();
  };
  // Of each pixel's neighbours the one above left once, the pixel twice, the one below right thrice: 1 + 10 + 27 = 38.
  EXPECT_EQ(made(ConvPass::fprop, digits, {1, 0, 0, 0, 2, 0, 0, 0, 3}, {}),
            (Values{17, 22, 6, 32, 38, 14, 14, 20, 23}));
  // A gradient of 1 at the centre is sent to each pixel by its tap, one at the corner by the last four.
  EXPECT_EQ(made(ConvPass::dgrad, {}, digits, {0, 0, 0, 0, 1, 0, 0, 0, 0}), digits);
  EXPECT_EQ(made(ConvPass::dgrad, {}, digits, {1, 0, 0, 0, 0, 0, 0, 0, 0}), (Values{5, 6, 0, 8, 9, 0, 0, 0, 0}));
  // It makes of each tap's gradient the pixel under it.
  EXPECT_EQ(made(ConvPass::wgrad, digits, {}, {0, 0, 0, 0, 1, 0, 0, 0, 0}), digits);
  EXPECT_EQ(made(ConvPass::wgrad, digits, {}, {1, 0, 0, 0, 0, 0, 0, 0, 0}), (Values{0, 0, 0, 0, 1, 2, 0, 4, 5}));
}

TEST_P(DepthwiseTest, NumberOfThreadsChangesNoBit) {
  if (ctx().device().is_cuda()) GTEST_SKIP() << "the threads are the CPU's";
  const auto one = Context::create({Device::cpu(), 1}), two = Context::create({Device::cpu(), 2});
  for (const ConvGeometry& g :
       {of(4, 20, 23, 48, 3, 1, 1, 1), of(3, 25, 12, 18, 5, 2, 2, 2), grouped_geometries().back()})
    for (const ConvPass pass : kPasses) {
      const ConvDesc d{pass, g, dtype()};
      const auto made = [&](Context& context) {
        const Operands o(context, d, random_of(g.x_shape(), 1, dtype()), random_of(g.w_shape(), 2, dtype()),
                         random_of(g.y_shape(), 3, dtype()));
        run_kernel(context, *kernel_of(d), pass, o.x, o.w, o.y, nullptr);
        return o.result(pass).values();
      };
      EXPECT_EQ(made(*one), made(*two)) << g.to_string() << " " << name_of_pass(pass);
    }
}

// Two groups of four channels, a picture of one pixel under the centre tap: y = W x in each group.
TEST_P(DepthwiseTest, GroupsByHand) {
  ConvGeometry g = of(1, 1, 1, 8, 3, 1, 1, 1);
  g.groups = 2;
  Values w(static_cast<size_t>(g.w_shape().elements()));
  const auto tap = [&](int to, int from) -> double& { return w[static_cast<size_t>((to * 9 + 4) * 4 + from)]; };
  for (int c = 0; c < 8; ++c) tap(c, c % 4) = 1;
  tap(1, 3) = 10;  // from the last channel of the first group
  tap(4, 2) = 20;  // from the third channel of the second
  const Values digits{1, 2, 3, 4, 5, 6, 7, 8};
  const auto made = [&](ConvPass pass, const Values& x, const Values& y) {
    const ConvDesc d{pass, g, dtype()};
    const Operands o(ctx(), d, x, w, y);
    run_kernel(ctx(), *kernel_of(d), pass, o.x, o.w, o.y, nullptr);
    return o.result(pass).values();
  };
  EXPECT_EQ(made(ConvPass::fprop, digits, {}), (Values{1, 42, 3, 4, 145, 6, 7, 8}));
  EXPECT_EQ(made(ConvPass::dgrad, {}, digits), (Values{1, 2, 3, 24, 5, 6, 107, 8}));
  const Values dw = made(ConvPass::wgrad, digits, {1, 0, 0, 0, 0, 0, 0, 2});
  for (size_t i = 0; i < dw.size(); ++i) {
    const size_t to = i / 36, t = i / 4 % 9, from = i % 4;
    EXPECT_EQ(dw[i], t != 4 ? 0 : to == 0 ? 1.0 + from : to == 7 ? 2 * (5.0 + from) : 0) << i;
  }
}

INSTANTIATE_OP_TEST(DepthwiseTest);

TEST(Depthwise, LeavesOtherConvolutionsToTheLibrary) {
  const auto made = [](auto change) {
    ConvDesc d{.geometry = of(2, 12, 12, 16, 3, 1, 1, 1)};
    change(d);
    return !depthwise_candidates(d).empty() || !grouped_candidates(d).empty();
  };
  EXPECT_TRUE(made([](ConvDesc&) {}));
  EXPECT_TRUE(made([](ConvDesc& d) { d.geometry.stride_h = 2; }));
  EXPECT_FALSE(made([](ConvDesc& d) { d.geometry.kernel_h = 5; }));
  EXPECT_FALSE(made([](ConvDesc& d) { d.geometry.kernel_h = d.geometry.kernel_w = 4; }));
  EXPECT_FALSE(made([](ConvDesc& d) { d.geometry.kernel_h = d.geometry.kernel_w = 9; }));
  EXPECT_FALSE(made([](ConvDesc& d) { d.geometry.stride_h = 3; }));
  EXPECT_FALSE(made([](ConvDesc& d) { d.geometry.stride_w = 4; }));
  EXPECT_FALSE(made([](ConvDesc& d) { d.geometry.dilation_h = 2; }));
  EXPECT_FALSE(made([](ConvDesc& d) { d.geometry.dilation_w = 2; }));
  EXPECT_FALSE(made([](ConvDesc& d) { d.geometry.groups = 8; }));
  EXPECT_FALSE(made([](ConvDesc& d) { d.geometry.groups = 1; }));
  EXPECT_TRUE(made([](ConvDesc& d) { d.geometry.groups = 4; }));
  EXPECT_TRUE(made([](ConvDesc& d) { d.geometry.groups = 2; }));
  EXPECT_FALSE(made([](ConvDesc& d) { d.geometry.groups = 2, d.geometry.stride_h = 2; }));
  EXPECT_FALSE(made([](ConvDesc& d) { d.geometry.groups = 2, d.geometry.kernel_h = d.geometry.kernel_w = 5; }));
  EXPECT_FALSE(made([](ConvDesc& d) { d.geometry.groups = 1, d.geometry.in_c = d.geometry.out_c = 4; }));
  EXPECT_FALSE(made([](ConvDesc& d) { d.geometry.out_c = 32; }));
  EXPECT_FALSE(made([](ConvDesc& d) { d.prologue = ConvPrologue::scale_bias; }));
  EXPECT_FALSE(made([](ConvDesc& d) { d.epilogue = ConvEpilogue::stats; }));
  EXPECT_FALSE(made([](ConvDesc& d) {
    d.pass = ConvPass::dgrad;
    d.epilogue = ConvEpilogue::bias;
  }));
}

TEST(Depthwise, IsTakenOnTheCpuWhereItIsQuicker) {
  const auto first = [](ConvPass pass, int kernel, int64_t channels, DType dtype, int group = 1) {
    ConvGeometry g = of(2, 9, 9, channels, kernel, 1, 1, kernel / 2);
    g.groups /= group;
    const auto found = context_of(Device::cpu()).conv().candidates(ConvDesc{pass, g, dtype});
    const auto ours = [](const auto& candidate) { return candidate->name().starts_with("convolt "); };
    EXPECT_EQ(std::count_if(found.begin(), found.end(), ours), 1);
    return ours(found.front());
  };
  for (const ConvPass pass : kPasses) {
    EXPECT_TRUE(first(pass, 3, 32, DType::f16));  // oneDNN would compute in f32
    EXPECT_FALSE(first(pass, 3, 32, DType::f32));
    EXPECT_FALSE(first(pass, 7, 33, DType::f32));
    EXPECT_EQ(first(pass, 3, 32, DType::f16, 4), pass == ConvPass::wgrad);
    EXPECT_FALSE(first(pass, 3, 32, DType::f16, 8));
  }
  for (const int kernel : {5, 7}) {
    EXPECT_TRUE(first(ConvPass::wgrad, kernel, 32, DType::f32));
    EXPECT_FALSE(first(ConvPass::fprop, kernel, 32, DType::f32));
  }
}

}  // namespace
}  // namespace convolt::test
