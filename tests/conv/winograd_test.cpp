// Winograd's algorithm in both instruction sets, on as many threads as it may get, against the naive double references.
#include "conv/winograd.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>

#include "conv/run_kernel.h"
#include "reference/conv.h"
#include "reference/elementwise.h"

namespace convolt::test {
namespace {

ConvGeometry of(int64_t n, int64_t h, int64_t w, int64_t in, int64_t out, Padding pad) {
  return {.n = n, .in_h = h, .in_w = w, .in_c = in, .out_c = out, .kernel_h = 3, .kernel_w = 3, .pad = pad};
}

// Whole tiles and cut ones, panels of 16 and of 32 columns, one tile and several blocks of them, more threads than
// tiles, sums shared by tiles and by channels, padding of all widths.
std::vector<ConvGeometry> winograd_geometries() {
  return {of(1, 6, 6, 16, 16, 0),       of(2, 7, 9, 32, 48, 1),  of(1, 5, 11, 48, 32, {0, 2, 1, 0}),
          of(3, 12, 12, 16, 64, 2),     of(1, 4, 4, 16, 16, 1),  of(4, 16, 17, 16, 16, 1),
          of(2, 23, 31, 32, 16, 1),     of(1, 8, 8, 64, 128, 1), of(5, 13, 6, 16, 32, {2, 1, 0, 2}),
          of(2, 33, 65, 16, 32, {1, 0})};
}

struct Case {
  const winograd::Code* code;
  DType dtype;
  int threads;
};

class WinogradTest : public testing::TestWithParam<Case> {
protected:
  void SetUp() override {
    if (GetParam().code == &winograd::kAvx512 && !__builtin_cpu_supports("avx512f"))
      GTEST_SKIP() << "this processor has no AVX-512";
  }
  static Context& ctx() { return context_of(Device::cpu()); }
  static DType dtype() { return GetParam().dtype; }
  static std::unique_ptr<ConvKernel> kernel(const ConvDesc& desc) {
    return make_winograd(desc, GetParam().threads, *GetParam().code);
  }

  // What it makes of random operands, and that it leaves those alone.
  static Values sums(const ConvKernel& winograd, const ConvDesc& desc, const Values& x, const Values& w,
                     const Values& y) {
    const ConvGeometry& g = desc.geometry;
    const auto tensor = [&](bool result, const Shape& shape, const Values& values) {
      return result ? DeviceTensor(ctx(), desc.dtype, shape) : DeviceTensor(ctx(), desc.dtype, shape, values);
    };
    const DeviceTensor dx = tensor(desc.pass == ConvPass::dgrad, g.x_shape(), x),
                       dw = tensor(desc.pass == ConvPass::wgrad, g.w_shape(), w),
                       dy = tensor(desc.pass == ConvPass::fprop, g.y_shape(), y);
    run_kernel(ctx(), winograd, desc.pass, dx, dw, dy, nullptr);
    if (desc.pass != ConvPass::dgrad) {
      EXPECT_EQ(dx.values(), x);
    }
    if (desc.pass != ConvPass::wgrad) {
      EXPECT_EQ(dw.values(), w);
    }
    if (desc.pass != ConvPass::fprop) {
      EXPECT_EQ(dy.values(), y);
    }
    return (desc.pass == ConvPass::fprop ? dy : desc.pass == ConvPass::dgrad ? dx : dw).values();
  }
};

Values reference_sums(const ConvDesc& d, const Values& x, const Values& w, const Values& y) {
  if (d.pass == ConvPass::fprop) return reference::conv_fprop(d.geometry, x, w, nullptr);
  if (d.pass == ConvPass::dgrad) return reference::conv_dgrad(d.geometry, y, w);
  return reference::conv_wgrad(d.geometry, x, y);
}

// Random operands and the sums of their products, the same for all codes and numbers of threads: made once.
struct Problem {
  Values x, w, y, sums;
  double size;  // the largest sum of the products' sizes
};
const Problem& problem(const ConvDesc& d) {
  static std::map<std::string, Problem> known;
  const std::string key = d.geometry.to_string() + " " + std::string(name_of(d.dtype)) + " " + name_of_pass(d.pass);
  const auto [found, fresh] = known.try_emplace(key);
  Problem& p = found->second;
  if (!fresh) return p;
  p.x = random_of(d.geometry.x_shape(), 1, d.dtype);
  p.w = random_of(d.geometry.w_shape(), 2, d.dtype);
  p.y = random_of(d.geometry.y_shape(), 3, d.dtype);
  p.sums = reference_sums(d, p.x, p.w, p.y);
  const Values sizes = reference_sums(d, absolute(p.x), absolute(p.w), absolute(p.y));
  p.size = *std::max_element(sizes.begin(), sizes.end());
  return p;
}

TEST_P(WinogradTest, MakesTheSumsOfEveryPass) {
  int made = 0;
  for (const ConvGeometry& g : winograd_geometries())
    for (const ConvPass pass : {ConvPass::fprop, ConvPass::dgrad, ConvPass::wgrad}) {
      const ConvDesc desc{pass, g, dtype()};
      const auto winograd = kernel(desc);
      if (!winograd) continue;  // tiles of 4 gain nothing in the smallest pictures
      ++made;
      const Problem& p = problem(desc);
      const std::string what = g.to_string() + " " + name_of_pass(pass);
      const Values found = sums(*winograd, desc, p.x, p.w, p.y);
      expect_near(found, p.sums, 16 * epsilon(DType::f32) * p.size, 1.01 * epsilon(dtype()), what);
      EXPECT_EQ(sums(*winograd, desc, p.x, p.w, p.y), found) << what << ": again";
    }
  EXPECT_GE(made, 24);
}

// Each sum of these passes is made by one thread in one order, however many there are.
TEST_P(WinogradTest, NumberOfThreadsChangesNoBitButOfWeightGradients) {
  for (const ConvPass pass : {ConvPass::fprop, ConvPass::dgrad}) {
    const ConvDesc desc{pass, winograd_geometries()[6], dtype()};
    const Problem& p = problem(desc);
    EXPECT_EQ(sums(*kernel(desc), desc, p.x, p.w, p.y),
              sums(*make_winograd(desc, 1, *GetParam().code), desc, p.x, p.w, p.y));
  }
}

TEST_P(WinogradTest, AddsBiasAndActivates) {
  const ConvGeometry g = winograd_geometries()[1];
  const Values x = random_of(g.x_shape(), 1, dtype()), w = random_of(g.w_shape(), 2, dtype()),
               bias = random_values(g.out_c, 4, -2, 6), positive = absolute(bias);
  const Values raw = reference::conv_fprop(g, x, w, &bias),
               sizes = reference::conv_fprop(g, absolute(x), absolute(w), &positive);
  const DeviceTensor dx(ctx(), dtype(), g.x_shape(), x), dw(ctx(), dtype(), g.w_shape(), w),
      dbias(ctx(), DType::f32, {g.out_c}, bias), y(ctx(), dtype(), g.y_shape());
  for (const auto& [epilogue, act] : {std::pair{ConvEpilogue::bias, Activation::none},
                                      {ConvEpilogue::bias_relu, Activation::relu},
                                      {ConvEpilogue::bias_relu6, Activation::relu6}}) {
    const auto winograd = kernel({.geometry = g, .dtype = dtype(), .epilogue = epilogue});
    ASSERT_NE(winograd, nullptr);
    run_kernel(ctx(), *winograd, ConvPass::fprop, dx, dw, y, dbias.as<float>());
    expect_sums(y, dtype(), reference::activation(raw, act), sizes, "epilogue");
  }
}

// Of a black picture the bias alone is left, rounded to nearest, ties to even.
TEST_P(WinogradTest, RoundsOnce) {
  const ConvGeometry g = winograd_geometries()[1];
  const double half_place = epsilon(dtype());  // odd multiples of it lie halfway
  Values bias;
  for (int64_t k = 0; k < g.out_c; ++k) bias.push_back((k % 2 ? -1 : 1) * (1 + static_cast<double>(k) * half_place));
  const DeviceTensor dx(ctx(), dtype(), g.x_shape(), Values(static_cast<size_t>(g.x_shape().elements()))),
      dw(ctx(), dtype(), g.w_shape(), random_of(g.w_shape(), 2, dtype())), dbias(ctx(), DType::f32, {g.out_c}, bias),
      y(ctx(), dtype(), g.y_shape());
  run_kernel(ctx(), *kernel({.geometry = g, .dtype = dtype(), .epilogue = ConvEpilogue::bias}), ConvPass::fprop, dx, dw,
             y, dbias.as<float>());
  const Values found = y.values();
  for (size_t i = 0; i < found.size(); ++i)
    ASSERT_EQ(found[i], rounded(bias[i % static_cast<size_t>(g.out_c)], dtype())) << i;
}

// A loss that is not finite is found by its NaN: no activation may swallow it, nor 16 bits round it to infinity.
TEST_P(WinogradTest, LetsNansThrough) {
  const ConvGeometry g = winograd_geometries()[1];
  Values x = random_of(g.x_shape(), 1, dtype());
  x[0] = std::numeric_limits<double>::quiet_NaN();
  const DeviceTensor dx(ctx(), dtype(), g.x_shape(), x),
      dw(ctx(), dtype(), g.w_shape(), random_of(g.w_shape(), 2, dtype())),
      dbias(ctx(), DType::f32, {g.out_c}, Values(static_cast<size_t>(g.out_c))), y(ctx(), dtype(), g.y_shape());
  for (const ConvEpilogue epilogue : {ConvEpilogue::bias, ConvEpilogue::bias_relu, ConvEpilogue::bias_relu6}) {
    run_kernel(ctx(), *kernel({.geometry = g, .dtype = dtype(), .epilogue = epilogue}), ConvPass::fprop, dx, dw, y,
               dbias.as<float>());
    EXPECT_TRUE(std::isnan(y.values()[0])) << static_cast<int>(epilogue);
  }
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const winograd::Code* code : {&winograd::kAvx2, &winograd::kAvx512})
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
      for (const int threads : {1, 2, 5}) all.push_back({code, dtype, threads});
  return all;
}
INSTANTIATE_TEST_SUITE_P(Codes, WinogradTest, testing::ValuesIn(cases()), [](const auto& c) {
  return std::string(c.param.code == &winograd::kAvx2 ? "avx2_" : "avx512_") + std::string(name_of(c.param.dtype)) +
         "_" + std::to_string(c.param.threads);
});

TEST(Winograd, LeavesOtherConvolutionsToTheLibrary) {
  const ConvGeometry good = of(2, 12, 12, 16, 16, 1);
  const auto made = [&](auto change) {
    ConvDesc desc{.geometry = good};
    change(desc);
    return make_winograd(desc, 2) != nullptr;
  };
  EXPECT_TRUE(made([](ConvDesc&) {}));
  EXPECT_FALSE(made([](ConvDesc& d) { d.geometry.kernel_h = 5; }));
  EXPECT_FALSE(made([](ConvDesc& d) { d.geometry.kernel_w = 1; }));
  EXPECT_FALSE(made([](ConvDesc& d) { d.geometry.stride_h = 2; }));
  EXPECT_FALSE(made([](ConvDesc& d) { d.geometry.stride_w = 2; }));
  EXPECT_FALSE(made([](ConvDesc& d) { d.geometry.dilation_h = 2; }));
  EXPECT_FALSE(made([](ConvDesc& d) { d.geometry.dilation_w = 2; }));
  EXPECT_FALSE(made([](ConvDesc& d) { d.geometry.groups = 2; }));
  EXPECT_FALSE(made([](ConvDesc& d) { d.geometry.in_c = 24; }));
  EXPECT_FALSE(made([](ConvDesc& d) { d.geometry.out_c = 8; }));
  EXPECT_FALSE(made([](ConvDesc& d) { d.prologue = ConvPrologue::scale_bias; }));
  EXPECT_FALSE(made([](ConvDesc& d) { d.epilogue = ConvEpilogue::stats; }));
  EXPECT_FALSE(made([](ConvDesc& d) {
    d.pass = ConvPass::wgrad;
    d.epilogue = ConvEpilogue::bias;
  }));
  // A picture of 1 x 1 is a quarter of its tile.
  EXPECT_FALSE(made([](ConvDesc& d) { d.geometry.in_h = d.geometry.in_w = 1; }));
}

TEST(Winograd, IsTakenWhereItIsQuicker) {
  const ConvDesc wide{.geometry = of(64, 16, 16, 128, 128, 1)}, narrow{.geometry = of(64, 32, 32, 16, 16, 1)},
      few{.geometry = of(64, 4, 4, 512, 512, 1)};
  for (const ConvDesc& d : {wide, narrow, few}) EXPECT_TRUE(winograd_is_quicker(d, "jit:avx512_core"));
  EXPECT_TRUE(winograd_is_quicker(wide, "brgconv:avx512_core_bf16"));
  EXPECT_FALSE(winograd_is_quicker(narrow, "brgconv:avx512_core_bf16"));
  EXPECT_FALSE(winograd_is_quicker(few, "brgconv:avx512_core_bf16"));
  EXPECT_FALSE(winograd_is_quicker(wide, "brgconv:avx512_core_amx_bf16"));
  ConvDesc gradient = few;
  gradient.pass = ConvPass::wgrad;
  EXPECT_TRUE(winograd_is_quicker(gradient, "jit_bf16:avx512_core_bf16"));
  gradient.geometry = narrow.geometry;
  EXPECT_FALSE(winograd_is_quicker(gradient, "jit:avx512_core"));
}

// As few products as the picture allows; only what is rounded to 16 bits anyway is cut into tiles of 4.
TEST(Winograd, CutsPicturesIntoTheTilesOfFewestProducts) {
  const auto name = [](int64_t side, DType dtype, const winograd::Code& code = winograd::kAvx512) {
    return make_winograd({.geometry = of(8, side, side, 64, 64, 1), .dtype = dtype}, 1, code)->name();
  };
  EXPECT_EQ(name(24, DType::f32), "winograd F(3x3,3x3) AVX-512");
  EXPECT_EQ(name(4, DType::f32, winograd::kAvx2), "winograd F(2x2,3x3) AVX2");
  for (const DType dtype : {DType::bf16, DType::f16}) {
    EXPECT_EQ(name(16, dtype), "winograd F(4x4,3x3) AVX-512");
    EXPECT_EQ(name(9, dtype), "winograd F(3x3,3x3) AVX-512");
    EXPECT_EQ(name(6, dtype), "winograd F(3x3,3x3) AVX-512");
  }
}

}  // namespace
}  // namespace convolt::test
