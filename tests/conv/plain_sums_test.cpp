// The sums that kernels are held against: as the references have them, and as every kernel of the CPU has them.
#include "conv/plain_sums.h"

#include <gtest/gtest.h>

#include <functional>

#include "conv/conv_pointwise.h"
#include "conv/fake_provider.h"
#include "conv/kernel_trial.h"
#include "pointwise.h"
#include "reference/conv.h"
#include "support/device.h"

namespace convolt::test {
namespace {

using Values = std::vector<double>;

std::vector<ConvGeometry> plain_geometries() {
  return {{.n = 2, .in_h = 7, .in_w = 9, .in_c = 16, .out_c = 32, .kernel_h = 3, .kernel_w = 3, .pad = 1},
          {.n = 3,
           .in_h = 17,
           .in_w = 15,
           .in_c = 3,
           .out_c = 16,
           .kernel_h = 7,
           .kernel_w = 7,
           .stride_h = 2,
           .stride_w = 2,
           .pad = 3},
          {.n = 2,
           .in_h = 6,
           .in_w = 11,
           .in_c = 8,
           .out_c = 8,
           .kernel_h = 3,
           .kernel_w = 4,
           .stride_h = 1,
           .stride_w = 2,
           .pad = {0, 1, 1, 2}},
          {.n = 2,
           .in_h = 9,
           .in_w = 8,
           .in_c = 8,
           .out_c = 16,
           .kernel_h = 3,
           .kernel_w = 3,
           .dilation_h = 2,
           .dilation_w = 3,
           .pad = 2,
           .groups = 4},
          {.n = 4, .in_c = 40, .out_c = 10}};
}

Values operand(const Pattern& pattern, const Shape& shape) {
  Values v;
  for (int64_t i = 0; i < shape.elements(); ++i) v.push_back(pattern(i));
  return v;
}

Values expected(const ConvDesc& d, const PlainSums& sums) {
  const ConvGeometry& g = d.geometry;
  const Values bias = operand(sums.bias(), {g.out_c});
  switch (d.pass) {
    case ConvPass::fprop:
      return reference::conv_fprop(g, operand(sums.first(), g.x_shape()), operand(sums.second(), g.w_shape()),
                                   d.epilogue == ConvEpilogue::none ? nullptr : &bias);
    case ConvPass::dgrad:
      return reference::conv_dgrad(g, operand(sums.first(), g.y_shape()), operand(sums.second(), g.w_shape()));
    default:
      return reference::conv_wgrad(g, operand(sums.first(), g.x_shape()), operand(sums.second(), g.y_shape()));
  }
}

TEST(PlainSums, AreTheReferences) {
  for (const ConvGeometry& g : plain_geometries())
    for (const ConvPass pass : {ConvPass::fprop, ConvPass::dgrad, ConvPass::wgrad}) {
      SCOPED_TRACE(g.to_string());
      ConvDesc desc{.pass = pass, .geometry = g, .dtype = DType::bf16};
      if (pass == ConvPass::fprop) desc.epilogue = ConvEpilogue::bias;
      const PlainSums sums(desc);
      const Values all = expected(desc, sums);
      ASSERT_EQ(static_cast<int64_t>(all.size()), sums.result_shape().elements());
      for (size_t i = 0; i < all.size(); ++i) ASSERT_NEAR(sums(static_cast<int64_t>(i)), all[i], 1e-12);
    }
}

// Behind relu of a batch norm, and through it backwards.
TEST(PlainSums, KnowFusions) {
  for (const ConvGeometry& g : plain_geometries())
    for (const ConvPass pass : {ConvPass::fprop, ConvPass::dgrad, ConvPass::wgrad}) {
      SCOPED_TRACE(g.to_string());
      ConvDesc desc{.pass = pass, .geometry = g, .dtype = DType::f16};
      const bool backwards = pass == ConvPass::dgrad;
      if (backwards)
        desc.epilogue = ConvEpilogue::drelu_bn_reduce;
      else
        desc.prologue = ConvPrologue::scale_bias_relu;
      ASSERT_TRUE(PlainSums::known(desc));
      const PlainSums sums(desc);
      const PatternNorm& n = sums.norm();
      const auto channels = static_cast<size_t>(g.in_c);
      const auto relu_of = [&](const Pattern& x) {
        Values y = operand(x, g.x_shape());
        for (size_t i = 0; i < y.size(); ++i)
          y[i] = std::max(
              0.0, y[i] * static_cast<double>(n.scale[i % channels]) + static_cast<double>(n.bias[i % channels]));
        return y;
      };
      Values all;
      int passing = 0;
      if (backwards) {
        all = reference::conv_dgrad(g, operand(sums.first(), g.y_shape()), operand(sums.second(), g.w_shape()));
        const Values gate = relu_of(sums.normalised());
        for (size_t i = 0; i < all.size(); ++i) {
          passing += gate[i] > 0 ? 1 : 0;
          if (gate[i] <= 0) all[i] = 0;
        }
        EXPECT_GT(passing, static_cast<int>(all.size() / 8));
        EXPECT_LT(passing, static_cast<int>(all.size() * 7 / 8));
      } else if (pass == ConvPass::fprop) {
        all = reference::conv_fprop(g, relu_of(sums.first()), operand(sums.second(), g.w_shape()), nullptr);
      } else {
        all = reference::conv_wgrad(g, relu_of(sums.first()), operand(sums.second(), g.y_shape()));
      }
      for (size_t i = 0; i < all.size(); ++i) ASSERT_NEAR(sums(static_cast<int64_t>(i)), all[i], 1e-12);
    }
}

// Another gradient is added to it, and bits of the element's own gate what comes of them.
TEST(PlainSums, KnowJoins) {
  for (const ConvGeometry& g : plain_geometries()) {
    const ConvDesc desc{.pass = ConvPass::dgrad, .geometry = g, .dtype = DType::f16, .epilogue = ConvEpilogue::join};
    ASSERT_TRUE(PlainSums::known(desc));
    const PlainSums sums(desc);
    const Values dx = reference::conv_dgrad(g, operand(sums.first(), g.y_shape()), operand(sums.second(), g.w_shape()));
    int passing = 0;
    for (size_t i = 0; i < dx.size(); ++i) {
      const bool open = (sums.mask()[i / 8] >> i % 8 & 1) != 0;
      passing += open ? 1 : 0;
      const auto at = static_cast<int64_t>(i);
      ASSERT_NEAR(sums(at), open ? dx[i] + sums.joined()(at) : 0, 1e-12) << i;
    }
    EXPECT_GT(passing, static_cast<int>(dx.size() / 4));
    EXPECT_LT(passing, static_cast<int>(dx.size() * 3 / 4));
  }
}

TEST(PlainSums, ApplyTheActivation) {
  ConvDesc desc{.geometry = plain_geometries()[0], .epilogue = ConvEpilogue::bias};
  const PlainSums plain(desc);
  desc.epilogue = ConvEpilogue::bias_relu;
  const PlainSums relu(desc);
  desc.epilogue = ConvEpilogue::bias_relu6;
  const PlainSums relu6(desc);
  int cut = 0;
  for (int64_t i = 0; i < 200; ++i) {
    EXPECT_EQ(relu(i), std::max(plain(i), 0.0));
    const double with_its_bias = plain(i) - plain.bias()(i % 32) + relu6.bias()(i % 32);
    EXPECT_NEAR(relu6(i), std::clamp(with_its_bias, 0.0, 6.0), 1e-12);
    cut += relu6(i) == 6 ? 1 : 0;
  }
  EXPECT_GT(cut, 10);  // else a kernel that cuts elsewhere would pass
}

TEST(PlainSums, LookAtAllCorners) {
  const PlainSums sums({.geometry = plain_geometries()[0]});
  const std::vector<int64_t> places = sums.places();
  EXPECT_EQ(places.size(), 256U);
  for (const int64_t corner :
       {int64_t{0}, int64_t{31}, int64_t{8 * 32}, int64_t{6 * 9 * 32}, int64_t{2 * 7 * 9 * 32 - 1}})
    EXPECT_NE(std::find(places.begin(), places.end(), corner), places.end()) << corner;
}

// The gradient of a bias beside that of the weights, or of what a ReLU let through.
TEST(KernelTrial, LooksAtGradientsOfBiases) {
  Context& context = context_of(Device::cpu());
  FakeDevice device;
  for (const auto& [pass, epilogue] : {std::pair{ConvPass::wgrad, ConvEpilogue::bias_gradient},
                                       {ConvPass::dgrad, ConvEpilogue::drelu_bias_gradient}}) {
    const ConvDesc desc{.pass = pass, .geometry = {.n = 30, .in_c = 20, .out_c = 12}, .epilogue = epilogue};
    ASSERT_TRUE(PlainSums::known(desc));
    KernelTrial trial(context, desc, {});
    EXPECT_EQ(trial.check(FakeKernel({.name = "right"}, desc, device)), "");
    const FakeSpec wrong{.name = "wrong", .spoil_sums = [](std::vector<double>& sums) { sums[3] += 0.5; }};
    EXPECT_TRUE(trial.check(FakeKernel(wrong, desc, device)).starts_with("the gradient of bias 3 is"));
  }
  EXPECT_FALSE(PlainSums::known({.pass = ConvPass::dgrad, .epilogue = ConvEpilogue::bias_gradient}));
}

// No kernel that there is may be taken for a wrong one: also where sums are long, and by Winograd's algorithm.
TEST(KernelTrial, EveryKernelOfTheCpuIsRight) {
  Context& context = context_of(Device::cpu());
  std::vector<ConvGeometry> all = plain_geometries();
  all.push_back({.n = 1, .in_h = 4, .in_w = 4, .in_c = 512, .out_c = 64, .kernel_h = 3, .kernel_w = 3, .pad = 1});
  all.push_back({.n = 8, .in_h = 40, .in_w = 40, .in_c = 16, .out_c = 16, .kernel_h = 3, .kernel_w = 3, .pad = 1});
  int kernels = 0;
  for (const ConvGeometry& g : all)
    for (const ConvPass pass : {ConvPass::fprop, ConvPass::dgrad, ConvPass::wgrad})
      for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
        ConvDesc desc{.pass = pass, .geometry = g, .dtype = dtype};
        if (pass == ConvPass::fprop && g.groups == 1) desc.epilogue = ConvEpilogue::bias_relu6;
        for (const auto& kernel : context.conv().candidates(desc)) {
          KernelTrial trial(context, desc,
                            {.workspace_bytes = kernel->workspace_bytes(), .packed_bytes = kernel->packed_bytes()});
          EXPECT_EQ(trial.check(*kernel), "") << kernel->name() << ", " << g.to_string() << ", " << name_of(dtype);
          ++kernels;
        }
      }
  EXPECT_GT(kernels, 70);
}

// Our own for CUDA, whose formulas run here too.
TEST(KernelTrial, PointwiseKernelsAreRight) {
  if (!pointwise_on_cpu()) GTEST_SKIP() << "a build for GPUs has none for the CPU";
  Context& context = context_of(Device::cpu());
  const DeviceRates rates{.copy = 1, .f16 = 1e9, .bf16 = 1e9};  // every sweep that is spared counts
  const auto none = ConvPrologue::none, norm = ConvPrologue::scale_bias_relu;
  for (const DType dtype : {DType::bf16, DType::f16})
    for (const auto& [pass, prologue, epilogue] : {std::tuple{ConvPass::fprop, none, ConvEpilogue::stats},
                                                   {ConvPass::fprop, norm, ConvEpilogue::stats},
                                                   {ConvPass::dgrad, none, ConvEpilogue::drelu_bn_reduce},
                                                   {ConvPass::dgrad, none, ConvEpilogue::join}}) {
      if (prologue == norm && dtype == DType::bf16) continue;  // not offered: below
      const ConvGeometry g{.n = 3, .in_h = 9, .in_w = 7, .in_c = 136, .out_c = 72};
      const ConvDesc desc{.pass = pass, .geometry = g, .dtype = dtype, .prologue = prologue, .epilogue = epilogue};
      const auto kernels = pointwise_candidates(desc, rates);
      ASSERT_EQ(kernels.size(), 1U);
      KernelTrial trial(context, desc, {.workspace_bytes = kernels[0]->workspace_bytes()});
      EXPECT_EQ(trial.check(*kernels[0]), "") << static_cast<int>(epilogue) << ", " << name_of(dtype);
    }
}

TEST(KernelTrial, WindowKernelsAreRight) {
  if (!pointwise_on_cpu()) GTEST_SKIP() << "a build for GPUs has none for the CPU";
  const DeviceRates rates{.copy = 1, .f16 = 1e9, .bf16 = 1e9};
  const ConvGeometry g{.n = 2, .in_h = 19, .in_w = 17, .in_c = 16, .out_c = 64, .kernel_h = 4, .kernel_w = 4};
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const ConvDesc desc{.geometry = g, .dtype = dtype, .epilogue = ConvEpilogue::stats};
    const auto kernels = pointwise_candidates(desc, rates);
    ASSERT_EQ(kernels.size(), 1U);
    EXPECT_EQ(kernels[0]->name(), "convolt windows");
    KernelTrial trial(context_of(Device::cpu()), desc, {.workspace_bytes = kernels[0]->workspace_bytes()});
    EXPECT_EQ(trial.check(*kernels[0]), "") << name_of(dtype);
  }
}

TEST(Pointwise, IsOfferedForTheWindowsOfStems) {
  const DeviceRates h200{.copy = 4.3e12, .f16 = 780e12, .bf16 = 780e12};
  const auto offered = [&](const ConvDesc& d) { return !pointwise_candidates(d, h200).empty(); };
  const ConvDesc stem{
      .geometry = {.n = 256, .in_h = 115, .in_w = 115, .in_c = 16, .out_c = 64, .kernel_h = 4, .kernel_w = 4},
      .dtype = DType::f16,
      .epilogue = ConvEpilogue::stats};
  EXPECT_TRUE(offered(stem));
  ConvDesc other = stem;
  other.pass = ConvPass::dgrad;
  other.epilogue = ConvEpilogue::join;
  EXPECT_FALSE(offered(other));
  other = stem;
  other.prologue = ConvPrologue::scale_bias_relu;
  EXPECT_FALSE(offered(other));
  for (const auto& change : std::vector<std::function<void(ConvGeometry&)>>{
           [](auto& g) { g.in_c = 64; }, [](auto& g) { g.out_c = 136; }, [](auto& g) { g.pad = 1; },
           [](auto& g) { g.dilation_w = 2; }, [](auto& g) { g.stride_h = 2; }, [](auto& g) { g.in_c = 12; }}) {
    other = stem;
    change(other.geometry);
    EXPECT_FALSE(offered(other)) << other.geometry.to_string();
  }
}

TEST(Pointwise, IsOfferedWhereASweepCostsMoreThanSlowerProducts) {
  const DeviceRates h200{.copy = 4.3e12, .f16 = 780e12, .bf16 = 780e12};
  const auto offered = [&](const ConvDesc& d) { return !pointwise_candidates(d, h200).empty(); };
  ConvDesc desc{.geometry = {.n = 256, .in_h = 56, .in_w = 56, .in_c = 64, .out_c = 256},
                .dtype = DType::bf16,
                .epilogue = ConvEpilogue::stats};
  EXPECT_TRUE(offered(desc));
  ConvDesc other = desc;
  other.dtype = DType::f32;
  EXPECT_FALSE(offered(other));
  other = desc;
  other.epilogue = ConvEpilogue::none;
  EXPECT_FALSE(offered(other));
  other = desc;
  other.prologue = ConvPrologue::scale_bias_relu;
  EXPECT_FALSE(offered(other));  // of bf16 the weight gradient has none, and a plan wants both
  other.dtype = DType::f16;
  EXPECT_TRUE(offered(other));
  other = desc;
  other.pass = ConvPass::dgrad;
  EXPECT_FALSE(offered(other));
  other.epilogue = ConvEpilogue::join;
  EXPECT_TRUE(offered(other));
  other.prologue = ConvPrologue::scale_bias_relu;
  EXPECT_FALSE(offered(other));
  for (const auto& change : std::vector<std::function<void(ConvGeometry&)>>{
           [](auto& g) { g.in_c = 60; }, [](auto& g) { g.out_c = 252; }, [](auto& g) { g.kernel_w = 3; },
           [](auto& g) { g.stride_h = 2; }, [](auto& g) { g.pad = 1; }, [](auto& g) { g.groups = 2; },
           // As much to multiply as 4096 channels are is done sooner by the library, with a sweep behind it.
           [](auto& g) { g.in_c = g.out_c = 4096; }}) {
    other = desc;
    change(other.geometry);
    EXPECT_FALSE(offered(other)) << other.geometry.to_string();
  }
}

}  // namespace
}  // namespace convolt::test
