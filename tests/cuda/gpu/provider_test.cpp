// Every kernel that cuDNN, cuBLASLt and we ourselves offer, on the device, against the double references.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "activation.h"
#include "conv/conv.h"
#include "reference/conv.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

const Device kDevice = Device::cuda();
constexpr ConvPass kPasses[] = {ConvPass::fprop, ConvPass::dgrad, ConvPass::wgrad};

class ProviderTest : public testing::TestWithParam<DType> {
protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << cuda_unavailable_reason();
  }
  DType dtype() const { return GetParam(); }
  // Values that the dtype holds exactly, so that the reference sees what the kernel sees.
  std::vector<double> inputs(const Shape& shape, uint64_t seed) const {
    auto values = random_values(shape.elements(), seed);
    for (double& v : values) v = rounded(v, dtype());
    return values;
  }
  // f32 sums of `terms` products of values up to 1, each product wrong by `unit`, stored as the dtype. Up to 16 times
  // what chance makes of the roundings.
  void expect_sums(const DeviceTensor& found, const std::vector<double>& expected, int64_t terms, double unit,
                   const std::string& what) const {
    // What is summed up on the way may be larger than the sum, and leaves roundings of its size.
    expect_near(found.values(), expected, 16 * unit * std::sqrt(static_cast<double>(terms)) + 1e-7,
                std::max(2 * epsilon(dtype()), 8e-6), what);
    found.check_guards();
  }
};

struct Operands {
  Shape x, w, y;
};

// Runs one kernel on fresh tensors; the result starts as NaN, so that what is not written shows.
DeviceTensor run_kernel(const ConvKernel& kernel, ConvPass pass, DType dtype, const Operands& shapes,
                        const std::vector<double>& x, const std::vector<double>& w, const std::vector<double>& y,
                        const std::vector<double>* bias) {
  Context& context = context_of(kDevice);
  const auto tensor = [&](const Shape& shape, const std::vector<double>& values, bool is_result) {
    return DeviceTensor(context, dtype, shape,
                        is_result ? std::vector<double>(static_cast<size_t>(shape.elements()), NAN) : values);
  };
  DeviceTensor tx = tensor(shapes.x, x, pass == ConvPass::dgrad);
  DeviceTensor tw = tensor(shapes.w, w, pass == ConvPass::wgrad);
  DeviceTensor ty = tensor(shapes.y, y, pass == ConvPass::fprop);
  const Buffer workspace(context, kernel.workspace_bytes()), packed(context, kernel.packed_bytes());
  const DeviceTensor tbias =
      bias ? DeviceTensor(context, DType::f32, {shapes.w[0]}, *bias) : DeviceTensor(context, DType::f32, {1}, {0.0});
  const bool packs = kernel.packed_bytes() > 0;
  const ConvArgs args{tx.as<void>(), packs ? packed.data() : tw.as<void>(), ty.as<void>(),
                      bias ? tbias.as<float>() : nullptr, workspace.data()};
  run(context, [&](Stream s) {
    if (packs && pass != ConvPass::wgrad) kernel.pack(s, tw.as<void>(), packed.data());
    kernel.run(s, args);
    if (packs && pass == ConvPass::wgrad) kernel.unpack(s, packed.data(), tw.as<void>());
  });
  if (pass == ConvPass::fprop) return ty;
  return pass == ConvPass::dgrad ? std::move(tx) : std::move(tw);
}

std::vector<ConvGeometry> geometries() {
  const ConvGeometry plain{
      .n = 3, .in_h = 9, .in_w = 11, .in_c = 16, .out_c = 24, .kernel_h = 3, .kernel_w = 3, .pad = 1};
  ConvGeometry strided = plain, stem = plain, one = plain, grouped = plain, odd = plain;
  strided.stride_h = strided.stride_w = 2;
  stem.in_c = 3;
  stem.kernel_h = stem.kernel_w = 7;
  stem.pad = 3;
  stem.stride_h = stem.stride_w = 2;
  one.kernel_h = one.kernel_w = 1;
  one.pad = 0;
  grouped.groups = 8;
  odd.in_c = 5;
  odd.out_c = 7;
  odd.kernel_w = 5;
  odd.dilation_h = 2;
  return {plain, strided, stem, one, grouped, odd};
}

// With each of our kernels: whole and cut packets of channels, several slabs of them, any strides.
std::vector<ConvGeometry> own_geometries() {
  std::vector<ConvGeometry> all;
  for (const int kernel : {3, 5, 7})
    for (const auto& [stride_h, stride_w] : {std::pair{1, 1}, {2, 2}, {2, 1}})
      for (const int64_t channels : {136, 12, 65})
        all.push_back({.n = 3,
                       .in_h = 19,
                       .in_w = 22,
                       .in_c = channels,
                       .out_c = channels,
                       .kernel_h = kernel,
                       .kernel_w = kernel,
                       .stride_h = stride_h,
                       .stride_w = stride_w,
                       .pad = {kernel / 2, 0, 1, kernel / 2},
                       .groups = channels});
  for (const int group : {4, 8})
    for (const int stride : {1, 2})
      all.push_back({.n = 3,
                     .in_h = 19,
                     .in_w = 22,
                     .in_c = 33 * group,
                     .out_c = 33 * group,
                     .kernel_h = 3,
                     .kernel_w = 3,
                     .stride_h = stride,
                     .stride_w = stride,
                     .pad = {1, 0, 2, 1},
                     .groups = 33});
  return all;
}

TEST_P(ProviderTest, EveryConvolutionKernelAgreesWithTheReference) {
  std::vector<ConvGeometry> all = geometries();
  for (const ConvGeometry& g : own_geometries()) all.push_back(g);
  for (const ConvGeometry& g : all) {
    const auto x = inputs(g.x_shape(), 1), w = inputs(g.w_shape(), 2), y = inputs(g.y_shape(), 3);
    const int64_t fan_in = g.kernel_h * g.kernel_w * g.in_c / g.groups;
    for (const ConvPass pass : kPasses) {
      const auto kernels =
          context_of(kDevice).conv().candidates(ConvDesc{.pass = pass, .geometry = g, .dtype = dtype()});
      ASSERT_FALSE(kernels.empty()) << g.to_string();
      const auto expected = pass == ConvPass::fprop   ? reference::conv_fprop(g, x, w, nullptr)
                            : pass == ConvPass::dgrad ? reference::conv_dgrad(g, y, w)
                                                      : reference::conv_wgrad(g, x, y);
      const int64_t terms = pass == ConvPass::fprop   ? fan_in
                            : pass == ConvPass::dgrad ? g.kernel_h * g.kernel_w * g.out_c / g.groups
                                                      : g.n * g.out_h() * g.out_w();
      for (const auto& kernel : kernels)
        expect_sums(run_kernel(*kernel, pass, dtype(), {g.x_shape(), g.w_shape(), g.y_shape()}, x, w, y, nullptr),
                    expected, terms, epsilon(DType::f32), g.to_string() + " " + kernel->name());
    }
  }
}

TEST_P(ProviderTest, BiasAndActivationEpiloguesAgreeWhereOffered) {
  for (const ConvGeometry& g : {geometries()[0], own_geometries()[0]}) {
    const auto x = inputs(g.x_shape(), 1), w = inputs(g.w_shape(), 2), bias = random_values(g.out_c, 4);
    for (const ConvEpilogue epilogue : {ConvEpilogue::bias, ConvEpilogue::bias_relu, ConvEpilogue::bias_relu6}) {
      auto expected = reference::conv_fprop(g, x, w, &bias);
      for (double& v : expected) {
        if (epilogue != ConvEpilogue::bias) v = std::max(v, 0.0);
        if (epilogue == ConvEpilogue::bias_relu6) v = std::min(v, 6.0);
      }
      for (const auto& kernel :
           context_of(kDevice).conv().candidates(ConvDesc{.geometry = g, .dtype = dtype(), .epilogue = epilogue}))
        expect_sums(
            run_kernel(*kernel, ConvPass::fprop, dtype(), {g.x_shape(), g.w_shape(), g.y_shape()}, x, w, {}, &bias),
            expected, 9 * g.in_c / g.groups, epsilon(DType::f32), kernel->name());
    }
  }
}

// Ours are there, and come first where a tensor core would multiply zeros.
TEST_P(ProviderTest, OffersOurOwnKernels) {
  for (const ConvGeometry& g : own_geometries())
    for (const ConvPass pass : kPasses) {
      const auto kernels =
          context_of(kDevice).conv().candidates(ConvDesc{.pass = pass, .geometry = g, .dtype = dtype()});
      const auto ours = [](const auto& kernel) { return kernel->name().starts_with("convolt "); };
      EXPECT_EQ(std::count_if(kernels.begin(), kernels.end(), ours), 1) << g.to_string();
      EXPECT_EQ(ours(kernels[0]), g.in_c < 8 * g.groups) << g.to_string();
    }
}

TEST_P(ProviderTest, EveryMatrixProductAgreesWithTheReference) {
  for (const auto& [rows, in, out] : {std::tuple{7, 33, 10}, {64, 256, 128}, {1, 5, 1}}) {
    const Operands shapes{{rows, in}, {out, in}, {rows, out}};
    const auto x = inputs(shapes.x, 1), w = inputs(shapes.w, 2), y = inputs(shapes.y, 3);
    for (const ConvPass pass : kPasses) {
      const LinearDesc d{.pass = pass, .rows = rows, .in = in, .out = out, .dtype = dtype()};
      const auto kernels = context_of(kDevice).conv().candidates(d);
      ASSERT_FALSE(kernels.empty()) << rows << " x " << in << " -> " << out;
      const auto expected = pass == ConvPass::fprop   ? reference::linear_fprop(d, x, w, nullptr)
                            : pass == ConvPass::dgrad ? reference::linear_dgrad(d, y, w)
                                                      : reference::linear_wgrad(d, x, y);
      for (const auto& kernel : kernels)
        expect_sums(run_kernel(*kernel, pass, dtype(), shapes, x, w, y, nullptr), expected, std::max({rows, in, out}),
                    epsilon(DType::f32), kernel->name());
    }
  }
}

// Two layers with relu between: [rows, in] -> [rows, middle] -> [rows, out]. The mask that one kernel writes is read by
// all; a described device says which epilogues there are.
TEST_P(ProviderTest, EpiloguesOfLinearLayersAgreeWithTheReference) {
  constexpr int64_t kRows = 64, kIn = 96, kMiddle = 136, kOut = 40;
  Context& context = context_of(kDevice);
  const auto launch = [&](const ConvKernel& kernel, ConvArgs args) {
    const Buffer workspace(context, kernel.workspace_bytes());
    args.workspace = workspace.data();
    run(context, [&](Stream s) { kernel.run(s, args); });
  };
  const auto kernels = [&](ConvPass pass, int64_t in, int64_t out, ConvEpilogue epilogue) {
    auto found =
        context.conv().candidates(LinearDesc{pass, kRows, in, out, dtype(), /*tf32=*/false, /*epilogue=*/epilogue});
    EXPECT_FALSE(found.empty()) << "epilogue " << static_cast<int>(epilogue);
    return found;
  };
  const auto tensor = [&](const Shape& shape, const std::vector<double>& values) {
    return DeviceTensor(context, dtype(), shape, values);
  };
  const auto x = inputs({kRows, kIn}, 1), w = inputs({kMiddle, kIn}, 2), bias = inputs({kMiddle}, 3),
             dy = inputs({kRows, kOut}, 4), w2 = inputs({kOut, kMiddle}, 5);
  const DeviceTensor tx = tensor({kRows, kIn}, x), tw = tensor({kMiddle, kIn}, w), tbias = tensor({kMiddle}, bias),
                     tdy = tensor({kRows, kOut}, dy), tw2 = tensor({kOut, kMiddle}, w2);
  const DeviceTensor mask(context, DType::u8, {kRows, mask_row_bytes(kMiddle)});
  const auto plain = reference::linear_fprop({.rows = kRows, .in = kIn, .out = kMiddle}, x, w, &bias);
  auto y = plain;
  for (double& v : y) v = std::max(v, 0.0);
  for (const ConvEpilogue epilogue : {ConvEpilogue::bias, ConvEpilogue::bias_relu, ConvEpilogue::bias_relu_mask})
    for (const auto& kernel : kernels(ConvPass::fprop, kIn, kMiddle, epilogue)) {
      const DeviceTensor found = tensor({kRows, kMiddle}, std::vector<double>(kRows * kMiddle, NAN));
      launch(*kernel, {.x = tx.as<void>(),
                       .w = tw.as<void>(),
                       .y = found.as<void>(),
                       .linear_bias = tbias.as<void>(),
                       .mask = mask.as<void>()});
      expect_sums(found, epilogue == ConvEpilogue::bias ? plain : y, kIn, epsilon(DType::f32), kernel->name());
    }
  auto dx = reference::linear_dgrad({.rows = kRows, .in = kMiddle, .out = kOut}, dy, w2);
  std::vector<double> sums(kMiddle), bias_gradient(kOut);
  for (size_t i = 0; i < dx.size(); ++i) {
    if (!(y[i] > 0)) dx[i] = 0;
    sums[i % kMiddle] += dx[i];
  }
  for (size_t i = 0; i < dy.size(); ++i) bias_gradient[i % kOut] += dy[i];
  for (const auto& kernel : kernels(ConvPass::dgrad, kMiddle, kOut, ConvEpilogue::drelu_bias_gradient)) {
    const DeviceTensor found = tensor({kRows, kMiddle}, std::vector<double>(kRows * kMiddle, NAN)),
                       total = tensor({kMiddle}, std::vector<double>(kMiddle, NAN));
    launch(*kernel, {.x = found.as<void>(),
                     .w = tw2.as<void>(),
                     .y = tdy.as<void>(),
                     .bias_gradient = total.as<void>(),
                     .mask = mask.as<void>()});
    expect_sums(found, dx, kOut, epsilon(DType::f32), kernel->name());
    expect_sums(total, sums, kRows, epsilon(dtype()), kernel->name());  // of what it stored
  }
  // Of the first layer's x, which is as long.
  const auto dw = reference::linear_wgrad({.rows = kRows, .in = kIn, .out = kOut}, x, dy);
  for (const auto& kernel : kernels(ConvPass::wgrad, kIn, kOut, ConvEpilogue::bias_gradient)) {
    const DeviceTensor found = tensor({kOut, kIn}, std::vector<double>(kOut * kIn, NAN)),
                       total = tensor({kOut}, std::vector<double>(kOut, NAN));
    launch(*kernel,
           {.x = tx.as<void>(), .w = found.as<void>(), .y = tdy.as<void>(), .bias_gradient = total.as<void>()});
    expect_sums(found, dw, kRows, epsilon(DType::f32), kernel->name());
    expect_sums(total, bias_gradient, kRows, epsilon(DType::f32), kernel->name());
  }
}

// Ten times the same bits, also of the sums: deterministic plans rely on what a kernel says of itself.
TEST_P(ProviderTest, FusedConvolutionsRepeatWhereTheySaySo) {
  Context& context = context_of(kDevice);
  for (const ConvGeometry& g :
       {ConvGeometry{.n = 32, .in_h = 28, .in_w = 28, .in_c = 64, .out_c = 64, .kernel_h = 3, .kernel_w = 3, .pad = 1},
        ConvGeometry{.n = 32, .in_h = 14, .in_w = 14, .in_c = 256, .out_c = 64},
        ConvGeometry{.n = 4, .in_h = 8, .in_w = 8, .in_c = 16, .out_c = 32, .kernel_h = 3, .kernel_w = 3, .pad = 1}})
    for (const ConvDesc& desc :
         {ConvDesc{.geometry = g, .dtype = dtype(), .epilogue = ConvEpilogue::stats},
          ConvDesc{.geometry = g,
          .dtype = dtype(),
          .prologue = ConvPrologue::scale_bias_relu,
          .epilogue = ConvEpilogue::stats},
          ConvDesc{.pass = ConvPass::dgrad, .geometry = g, .dtype = dtype(), .epilogue = ConvEpilogue::drelu_bn_reduce},
          ConvDesc{.pass = ConvPass::wgrad, .geometry = g, .dtype = dtype(), .prologue = ConvPrologue::scale_bias_relu},
          ConvDesc{.pass = ConvPass::wgrad, .geometry = g, .dtype = dtype()},
          ConvDesc{.pass = ConvPass::dgrad, .geometry = g, .dtype = dtype()}}) {
      const auto tensor = [&](const Shape& shape, uint64_t seed, DType type) {
        return DeviceTensor(context, type, shape, random_values(shape.elements(), seed, 0.1, 1.1));
      };
      const DeviceTensor x = tensor(g.x_shape(), 1, dtype()), w = tensor(g.w_shape(), 2, dtype()),
                         y = tensor(g.y_shape(), 3, dtype()), normalised = tensor(g.x_shape(), 4, dtype()),
                         prologue = tensor({2, g.in_c}, 5, dtype() == DType::f16 ? DType::f16 : DType::f32),
                         norm = tensor({6, g.in_c}, 6, DType::f32);
      const DeviceTensor sums(context, DType::f32, {2, std::max(g.in_c, g.out_c)});
      for (const auto& kernel : context.conv().candidates(desc)) {
        if (!kernel->repeatable()) continue;
        std::vector<double> first_result, first_sums;
        for (int round = 0; round < 10; ++round) {
          const DeviceTensor& result = desc.pass == ConvPass::fprop ? y : desc.pass == ConvPass::dgrad ? x : w;
          const Buffer workspace(context, kernel->workspace_bytes());
          const auto* const coef = norm.as<const float>();
          run(context, [&](Stream s) {
            kernel->run(s, {.x = x.as<void>(),
                            .w = w.as<void>(),
                            .y = y.as<void>(),
                            .workspace = workspace.data(),
                            .prologue = prologue.as<void>(),
                            .sums = sums.as<float>(),
                            .normalised_x = normalised.as<void>(),
                            .coef = coef,
                            .gamma = coef + 4 * g.in_c,
                            .beta = coef + 5 * g.in_c,
                            .dgamma = sums.as<float>(),
                            .dbeta = sums.as<float>() + g.in_c});
          });
          if (round == 0) {
            first_result = result.values();
            first_sums = sums.values();
            continue;
          }
          const std::string what = kernel->name() + " of " + g.to_string() + ", pass " +
                                   std::to_string(static_cast<int>(desc.pass)) + ", epilogue " +
                                   std::to_string(static_cast<int>(desc.epilogue)) + ", round " + std::to_string(round);
          const bool same_result = result.values() == first_result, same_sums = sums.values() == first_sums;
          EXPECT_TRUE(same_result) << what << ": the result";
          EXPECT_TRUE(same_sums) << what << ": the sums";
          if (!same_result || !same_sums) break;
        }
      }
    }
}

INSTANTIATE_TEST_SUITE_P(Cuda, ProviderTest, testing::Values(DType::f32, DType::bf16, DType::f16),
                         [](const auto& test) { return std::string(name_of(test.param)); });

}  // namespace
}  // namespace convolt::test
