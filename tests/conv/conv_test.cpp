// Every pass of convolutions and fully connected layers, of every provider, against the naive double references.
#include "conv/conv.h"

#include <gtest/gtest.h>

#include <array>

#include "conv/run_kernel.h"
#include "conv/winograd.h"
#include "reference/conv.h"
#include "reference/elementwise.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

std::vector<ConvGeometry> geometries() {
  return {
      {.n = 2, .in_h = 7, .in_w = 9, .in_c = 16, .out_c = 32, .kernel_h = 3, .kernel_w = 3, .pad = 1},
      {.n = 3,
       .in_h = 9,
       .in_w = 7,
       .in_c = 8,
       .out_c = 16,
       .kernel_h = 3,
       .kernel_w = 3,
       .stride_h = 2,
       .stride_w = 2,
       .pad = 1},
      // Stems: three channels and one.
      {.n = 2,
       .in_h = 17,
       .in_w = 15,
       .in_c = 3,
       .out_c = 16,
       .kernel_h = 7,
       .kernel_w = 7,
       .stride_h = 2,
       .stride_w = 2,
       .pad = 3},
      {.n = 2, .in_h = 8, .in_w = 8, .in_c = 3, .out_c = 16, .kernel_h = 3, .kernel_w = 3, .pad = 1},
      {.n = 2, .in_h = 12, .in_w = 11, .in_c = 1, .out_c = 6, .kernel_h = 5, .kernel_w = 5},
      // 1x1, also strided and of a single pixel.
      {.n = 2, .in_h = 5, .in_w = 6, .in_c = 24, .out_c = 8},
      {.n = 2, .in_h = 7, .in_w = 5, .in_c = 8, .out_c = 16, .stride_h = 2, .stride_w = 2},
      {.n = 1, .in_h = 1, .in_w = 1, .in_c = 16, .out_c = 16},
      // The last rows and columns of the picture lie in no window.
      {.n = 1,
       .in_h = 8,
       .in_w = 10,
       .in_c = 4,
       .out_c = 4,
       .kernel_h = 3,
       .kernel_w = 3,
       .stride_h = 3,
       .stride_w = 4},
      // Unlike in both directions.
      {.n = 2,
       .in_h = 6,
       .in_w = 11,
       .in_c = 8,
       .out_c = 8,
       .kernel_h = 1,
       .kernel_w = 5,
       .stride_h = 1,
       .stride_w = 2,
       .pad = {0, 2}},
      {.n = 2,
       .in_h = 9,
       .in_w = 8,
       .in_c = 8,
       .out_c = 8,
       .kernel_h = 3,
       .kernel_w = 3,
       .dilation_h = 2,
       .dilation_w = 2,
       .pad = 2},
      {.n = 1, .in_h = 5, .in_w = 3, .in_c = 5, .out_c = 7, .kernel_h = 3, .kernel_w = 3, .pad = 1},
      // Groups, depthwise, and depthwise with odd channels.
      {.n = 2, .in_h = 6, .in_w = 6, .in_c = 6, .out_c = 10, .kernel_h = 3, .kernel_w = 3, .pad = 1, .groups = 2},
      {.n = 2,
       .in_h = 5,
       .in_w = 5,
       .in_c = 32,
       .out_c = 32,
       .kernel_h = 3,
       .kernel_w = 3,
       .stride_h = 2,
       .stride_w = 2,
       .pad = 1,
       .groups = 4},
      {.n = 2, .in_h = 7, .in_w = 8, .in_c = 24, .out_c = 24, .kernel_h = 3, .kernel_w = 3, .pad = 1, .groups = 24},
      {.n = 2,
       .in_h = 9,
       .in_w = 8,
       .in_c = 32,
       .out_c = 32,
       .kernel_h = 3,
       .kernel_w = 3,
       .stride_h = 2,
       .stride_w = 2,
       .pad = 1,
       .groups = 32},
      {.n = 1, .in_h = 6, .in_w = 5, .in_c = 7, .out_c = 7, .kernel_h = 3, .kernel_w = 3, .pad = 1, .groups = 7},
      {.n = 2,
       .in_h = 7,
       .in_w = 6,
       .in_c = 8,
       .out_c = 16,
       .kernel_h = 3,
       .kernel_w = 4,
       .stride_h = 2,
       .pad = {0, 1, 1, 2}},
      // Of what oneDNN makes wrong weight gradients, or writes beyond its memory: strides of one pixel and few
      // channels; in bf16 one column of pixels, and wide pictures, windows dilated downwards and channels that fill no
      // block.
      {.n = 3, .in_h = 28, .in_w = 64, .in_c = 8, .out_c = 10, .stride_h = 2, .stride_w = 2},
      {.n = 1,
       .in_h = 17,
       .in_w = 1,
       .in_c = 64,
       .out_c = 10,
       .kernel_h = 3,
       .kernel_w = 3,
       .stride_h = 2,
       .stride_w = 2,
       .pad = 1},
      {.n = 1,
       .in_h = 7,
       .in_w = 32,
       .in_c = 24,
       .out_c = 8,
       .kernel_h = 3,
       .kernel_w = 3,
       .dilation_h = 2,
       .pad = {2, 1}},
      {.n = 1,
       .in_h = 7,
       .in_w = 32,
       .in_c = 8,
       .out_c = 8,
       .kernel_h = 3,
       .kernel_w = 3,
       .dilation_h = 2,
       .dilation_w = 2,
       .pad = 2,
       .groups = 8},
  };
}

class ConvTest : public OpTest {
protected:
  Values random(const Shape& shape, uint64_t seed) const { return random_of(shape, seed, dtype()); }
  void run_kernel(const ConvKernel& kernel, ConvPass pass, const DeviceTensor& x, const DeviceTensor& w,
                  const DeviceTensor& y, const float* bias) {
    test::run_kernel(ctx(), kernel, pass, x, w, y, bias);
  }
  void expect_sums(const DeviceTensor& found, const Values& expected, const Values& sizes,
                   const std::string& what) const {
    test::expect_sums(found, dtype(), expected, sizes, what);
  }

  // All candidates of one description; `make` runs the reference on given operands (x, w or x, dy or dy, w).
  template <class Desc, class Reference>
  void check_pass(const Desc& desc, const Shape& xs, const Shape& ws, const Shape& ys, Reference reference,
                  const std::string& what) {
    const Values x = random(xs, 1), w = random(ws, 2), y = random(ys, 3);
    const auto kernels = ctx().conv().candidates(desc);
    ASSERT_FALSE(kernels.empty()) << what;
    for (const auto& kernel : kernels) {
      const bool reads_x = desc.pass != ConvPass::dgrad, reads_w = desc.pass != ConvPass::wgrad,
                 reads_y = desc.pass != ConvPass::fprop;
      const DeviceTensor dx = reads_x ? DeviceTensor(ctx(), dtype(), xs, x) : DeviceTensor(ctx(), dtype(), xs);
      const DeviceTensor dw = reads_w ? DeviceTensor(ctx(), dtype(), ws, w) : DeviceTensor(ctx(), dtype(), ws);
      const DeviceTensor dy = reads_y ? DeviceTensor(ctx(), dtype(), ys, y) : DeviceTensor(ctx(), dtype(), ys);
      run_kernel(*kernel, desc.pass, dx, dw, dy, nullptr);
      const DeviceTensor& result = reads_x && reads_w ? dy : reads_w ? dx : dw;
      const Values &a = reads_x ? x : y, &b = reads_w ? w : y;
      expect_sums(result, reference(a, b), reference(absolute(a), absolute(b)), what + " " + kernel->name());
      // The operands are left alone.
      if (reads_x) {
        EXPECT_EQ(dx.values(), x) << what;
      }
      if (reads_w) {
        EXPECT_EQ(dw.values(), w) << what;
      }
      if (reads_y) {
        EXPECT_EQ(dy.values(), y) << what;
      }
      const Values first = result.values();
      run_kernel(*kernel, desc.pass, dx, dw, dy, nullptr);
      if (kernel->repeatable()) {
        EXPECT_EQ(result.values(), first) << what << ": again";
      }
    }
  }
};

TEST_P(ConvTest, ForwardOfAllGeometries) {
  for (const ConvGeometry& g : geometries())
    check_pass(
        ConvDesc{ConvPass::fprop, g, dtype()}, g.x_shape(), g.w_shape(), g.y_shape(),
        [&](const Values& x, const Values& w) { return reference::conv_fprop(g, x, w, nullptr); },
        "fprop of " + g.to_string());
}
TEST_P(ConvTest, GradientOfThePictureOfAllGeometries) {
  for (const ConvGeometry& g : geometries())
    check_pass(
        ConvDesc{ConvPass::dgrad, g, dtype()}, g.x_shape(), g.w_shape(), g.y_shape(),
        [&](const Values& dy, const Values& w) { return reference::conv_dgrad(g, dy, w); },
        "dgrad of " + g.to_string());
}
TEST_P(ConvTest, GradientOfTheWeightsOfAllGeometries) {
  for (const ConvGeometry& g : geometries())
    check_pass(
        ConvDesc{ConvPass::wgrad, g, dtype()}, g.x_shape(), g.w_shape(), g.y_shape(),
        [&](const Values& x, const Values& dy) { return reference::conv_wgrad(g, x, dy); },
        "wgrad of " + g.to_string());
}

TEST_P(ConvTest, BiasAndActivationEpilogues) {
  for (const size_t i : {0, 3, 5, 14}) {
    const ConvGeometry g = geometries()[i];
    const Values x = random(g.x_shape(), 1), w = random(g.w_shape(), 2), bias = random_values(g.out_c, 4, -2, 6);
    const DeviceTensor dx(ctx(), dtype(), g.x_shape(), x), dw(ctx(), dtype(), g.w_shape(), w),
        dbias(ctx(), DType::f32, {g.out_c}, bias);
    for (const auto& [epilogue, act] : {std::pair{ConvEpilogue::bias, Activation::none},
                                        {ConvEpilogue::bias_relu, Activation::relu},
                                        {ConvEpilogue::bias_relu6, Activation::relu6}}) {
      const auto kernels = ctx().conv().candidates(ConvDesc{.geometry = g, .dtype = dtype(), .epilogue = epilogue});
      if (kernels.empty() && ctx().device().is_cuda())
        continue;  // a provider may offer less: the pass then does not fuse
      ASSERT_FALSE(kernels.empty());
      const DeviceTensor y(ctx(), dtype(), g.y_shape());
      run_kernel(*kernels[0], ConvPass::fprop, dx, dw, y, dbias.as<float>());
      const Values sums = reference::conv_fprop(g, x, w, &bias), positive = absolute(bias);
      expect_sums(y, reference::activation(sums, act), reference::conv_fprop(g, absolute(x), absolute(w), &positive),
                  "epilogue " + std::to_string(static_cast<int>(epilogue)) + " of " + g.to_string());
    }
  }
}

TEST_P(ConvTest, FullyConnectedLayers) {
  for (const auto& [rows, in, out] :
       {std::array<int64_t, 3>{1, 7, 5}, {4, 64, 10}, {3, 33, 1}, {8, 1, 16}, {5, 100, 47}})
    for (const ConvPass pass : {ConvPass::fprop, ConvPass::dgrad, ConvPass::wgrad}) {
      const LinearDesc d{pass, rows, in, out, dtype()};
      check_pass(
          d, {rows, in}, {out, in}, {rows, out},
          [&](const Values& a, const Values& b) {
            return pass == ConvPass::fprop   ? reference::linear_fprop(d, a, b, nullptr)
                   : pass == ConvPass::dgrad ? reference::linear_dgrad(d, a, b)
                                             : reference::linear_wgrad(d, a, b);
          },
          "linear pass " + std::to_string(static_cast<int>(pass)) + ", " + std::to_string(in) + " -> " +
              std::to_string(out));
    }
}

TEST_P(ConvTest, FullyConnectedLayerWithBiasAndActivation) {
  const Values x = random({3, 20}, 1), w = random({11, 20}, 2), bias = random({11}, 3), positive = absolute(bias);
  const DeviceTensor dx(ctx(), dtype(), {3, 20}, x), dw(ctx(), dtype(), {11, 20}, w), dbias(ctx(), dtype(), {11}, bias);
  for (const auto& [epilogue, act] : {std::pair{ConvEpilogue::bias, Activation::none},
                                      {ConvEpilogue::bias_relu, Activation::relu},
                                      {ConvEpilogue::bias_relu6, Activation::relu6}}) {
    const LinearDesc d{.rows = 3, .in = 20, .out = 11, .dtype = dtype(), .epilogue = epilogue};
    const auto kernels = ctx().conv().candidates(d);
    ASSERT_TRUE(!kernels.empty() || (ctx().device().is_cuda() && act == Activation::relu6));
    for (const auto& kernel : kernels) {
      const DeviceTensor y(ctx(), dtype(), {3, 11});
      test::run_kernel(ctx(), *kernel, ConvPass::fprop, dx, dw, y, nullptr, dbias.as<void>());
      expect_sums(y, reference::activation(reference::linear_fprop(d, x, w, &bias), act),
                  reference::linear_fprop(d, absolute(x), absolute(w), &positive),
                  "linear with epilogue " + std::to_string(static_cast<int>(epilogue)));
    }
  }
}

// What no provider offers is answered by no candidates, not by an error.
TEST_P(ConvTest, UnknownFusionsHaveNoCandidates) {
  const ConvGeometry g = geometries()[0];
  EXPECT_TRUE(ctx()
                  .conv()
                  .candidates(ConvDesc{
                      .pass = ConvPass::wgrad, .geometry = g, .dtype = dtype(), .epilogue = ConvEpilogue::bias_relu})
                  .empty());
  if (ctx().device().is_cuda()) return;
  EXPECT_TRUE(
      ctx().conv().candidates(ConvDesc{.geometry = g, .dtype = dtype(), .prologue = ConvPrologue::scale_bias}).empty());
  EXPECT_TRUE(
      ctx().conv().candidates(ConvDesc{.geometry = g, .dtype = dtype(), .epilogue = ConvEpilogue::stats}).empty());
}

INSTANTIATE_OP_TEST(ConvTest);

// Where the forward kernel and the weight gradient share a packed form, unpacking gives back what was packed, bit for
// bit.
TEST(OneDnn, PackingAndUnpackingIsARoundTrip) {
  Context& context = context_of(Device::cpu());
  int shared = 0;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (const ConvGeometry& g : geometries()) {
      const auto forward = context.conv().candidates(ConvDesc{ConvPass::fprop, g, dtype}),
                 gradient = context.conv().candidates(ConvDesc{ConvPass::wgrad, g, dtype});
      ASSERT_FALSE(forward.empty() || gradient.empty()) << g.to_string();
      if (forward[0]->packed_bytes() == 0 || forward[0]->packed_format() != gradient[0]->packed_format()) continue;
      ++shared;
      const DeviceTensor w(context, dtype, g.w_shape(), random_values(g.w_shape().elements(), 5)),
          back(context, dtype, g.w_shape()),
          packed(context, DType::u8, {std::max(forward[0]->packed_bytes(), gradient[0]->packed_bytes())});
      run(context, [&](Stream s) {
        forward[0]->pack(s, w.tensor().data, packed.tensor().data);
        gradient[0]->unpack(s, packed.tensor().data, back.tensor().data);
      });
      EXPECT_EQ(back.values(), w.values()) << g.to_string();
      back.check_guards();
    }
  EXPECT_GT(shared, 0);
}

// Packing the weights of a layer costs more than it gains, for each step of few rows. On AVX2 the library packs them
// for some passes only.
TEST(OneDnn, OffersPlainWeightsFirstWhereRowsAreFew) {
  Context& context = context_of(Device::cpu());
  int passes_with_choice = 0;
  for (const ConvPass pass : {ConvPass::dgrad, ConvPass::wgrad})
    for (const int64_t rows : {128, 2048}) {
      const auto found = context.conv().candidates(LinearDesc{pass, rows, 96, 64});
      ASSERT_FALSE(found.empty());
      if (found.size() == 1) {
        EXPECT_EQ(found[0]->packed_bytes(), 0);
        continue;
      }
      ++passes_with_choice;
      ASSERT_EQ(found.size(), 2U);
      EXPECT_EQ(found[0]->packed_bytes() > 0, rows == 2048);
      EXPECT_EQ(found[1]->packed_bytes() > 0, rows == 128);
    }
  EXPECT_GE(passes_with_choice, 2);
}

TEST(OneDnn, SaysWhereItComputesInAWiderType) {
  Context& context = context_of(Device::cpu());
  const ConvGeometry g = geometries()[0];
  EXPECT_FALSE(context.conv().candidates(ConvDesc{.geometry = g, .dtype = DType::f32})[0]->widened());
  EXPECT_TRUE(context.conv().candidates(ConvDesc{.geometry = g, .dtype = DType::f16})[0]->widened());
  EXPECT_EQ(context.conv().describe().find("oneDNN "), 0U);
  // A training resumed with other instructions goes on to other bits: the checkpoint compares this.
  EXPECT_NE(context.conv().describe().find(std::string("Winograd ") + winograd_code().name), std::string::npos);
}

TEST(ConvGeometryTest, ExtentsFlopsAndName) {
  const ConvGeometry g = geometries()[13];
  EXPECT_EQ(g.y_shape(), (Shape{2, 3, 3, 32}));
  EXPECT_EQ(g.w_shape(), (Shape{32, 3, 3, 8}));
  EXPECT_EQ(g.flops(), 2 * 2 * 9 * 32 * 9 * 8);
  EXPECT_EQ(g.to_string(), "n2 5x5x32 -> 32, 3x3 s2 p1 g4");
}

}  // namespace
}  // namespace convolt::test
