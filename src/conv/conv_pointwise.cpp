#include "conv/conv_pointwise.h"

#include <algorithm>

#include "pointwise.h"

namespace convolt {
namespace {

class PointwiseKernel final : public ConvKernel {
public:
  explicit PointwiseKernel(const ConvDesc& desc) : desc_(desc) {}

  std::string name() const override { return "convolt pointwise"; }
  int64_t workspace_bytes() const override {
    const ConvGeometry& g = desc_.geometry;
    const int64_t rows = g.n * g.in_h * g.in_w;
    if (desc_.pass == ConvPass::fprop) return pointwise_scratch(rows, g.in_c, g.out_c, 2);
    return pointwise_scratch(rows, g.out_c, g.in_c, desc_.epilogue == ConvEpilogue::join ? 3 : 2);
  }
  void run(Stream s, const ConvArgs& a) const override {
    const ConvGeometry& g = desc_.geometry;
    const Tensor x{desc_.dtype, g.x_shape(), a.x}, w{desc_.dtype, g.w_shape(), a.w}, y{desc_.dtype, g.y_shape(), a.y};
    auto* const scratch = static_cast<float*>(a.workspace);
    const void* const prologue = desc_.prologue == ConvPrologue::none ? nullptr : a.prologue;
    if (desc_.pass == ConvPass::fprop) return pointwise_stats(s, x, w, y, prologue, scratch, a.sums);
    const auto like_x = [&](const void* data) { return Tensor{desc_.dtype, x.shape, const_cast<void*>(data)}; };
    GradientJoinArgs end{.x = like_x(a.normalised_x),
                         .coef = a.coef,
                         .gate = Gate::recomputed,
                         .dz = x,
                         .scratch = scratch,
                         .dgamma = a.dgamma,
                         .dbeta = a.dbeta};
    if (desc_.epilogue == ConvEpilogue::join) {
      end.dy2 = like_x(a.joined);
      if (a.joined_thin) end.dy2.shape = thinned(x.shape);
      end.gate = Gate::mask;
      end.gate_data = a.mask;
      end.x2 = like_x(a.second_x);
      end.coef2 = a.second_coef;
      end.dgamma2 = a.second_dgamma;
      end.dbeta2 = a.second_dbeta;
    }
    pointwise_dgrad(s, y, w, end);
  }

private:
  const ConvDesc desc_;
};

class WindowKernel final : public ConvKernel {
public:
  explicit WindowKernel(const ConvDesc& desc) : desc_(desc) {}

  std::string name() const override { return "convolt windows"; }
  int64_t workspace_bytes() const override {
    const ConvGeometry& g = desc_.geometry;
    return pointwise_scratch(g.n * g.out_h() * g.out_w(), g.kernel_h * g.kernel_w * g.in_c, g.out_c, 2);
  }
  void run(Stream s, const ConvArgs& a) const override {
    const ConvGeometry& g = desc_.geometry;
    window_stats(s, {desc_.dtype, g.x_shape(), a.x}, {desc_.dtype, g.w_shape(), a.w}, {desc_.dtype, g.y_shape(), a.y},
                 static_cast<float*>(a.workspace), a.sums);
  }

private:
  const ConvDesc desc_;
};

bool is_pointwise(const ConvGeometry& g) { return g.kernel_h == 1 && g.kernel_w == 1; }

// What both ask for.
bool fits_products(const ConvDesc& d) {
  const ConvGeometry& g = d.geometry;
  return (d.dtype == DType::f16 || d.dtype == DType::bf16) && g.stride_h == 1 && g.stride_w == 1 &&
         g.pad == Padding() && g.groups == 1 && g.in_c % 8 == 0 && g.out_c % 8 == 0;
}

bool fits_pointwise(const ConvDesc& d) {
  const bool loads = d.prologue == ConvPrologue::scale_bias_relu && d.dtype == DType::f16;
  if (!fits_products(d) || !is_pointwise(d.geometry)) return false;
  if (d.pass == ConvPass::fprop)
    return d.epilogue == ConvEpilogue::stats && (d.prologue == ConvPrologue::none || loads);
  return d.pass == ConvPass::dgrad && d.prologue == ConvPrologue::none &&
         (d.epilogue == ConvEpilogue::drelu_bn_reduce || d.epilogue == ConvEpilogue::join);
}

bool fits_windows(const ConvDesc& d) {
  const ConvGeometry& g = d.geometry;
  return fits_products(d) && !is_pointwise(g) && d.pass == ConvPass::fprop && d.epilogue == ConvEpilogue::stats &&
         d.prologue == ConvPrologue::none && g.in_c < kFewChannels && g.out_c <= kMostOfWindow && g.dilation_h == 1 &&
         g.dilation_w == 1;
}

// Of the rate of large products. mma, which these kernels use but on Hopper, reaches about 0.63 of what wgmma does
// there (W. Luo et al., arXiv 2402.13499), and no kernel reaches all of that; with their epilogues those of an H200 did
// not pass 0.4.
constexpr double kShareOfProducts = 0.5;

// By bytes and operations, whichever take longer: one fused kernel against a plain one with a sweep behind it.
bool is_worth_it(const ConvDesc& d, const DeviceRates& rates) {
  const ConvGeometry& g = d.geometry;
  const double size = size_of(d.dtype), products = d.dtype == DType::f16 ? rates.f16 : rates.bf16;
  const double x = static_cast<double>(g.x_shape().elements()) * size,
               y = static_cast<double>(g.y_shape().elements()) * size,
               w = static_cast<double>(g.w_shape().elements()) * size;
  // What the epilogue reads besides, and what a sweep would move: y; dx and the batch norm's input; those, the other
  // gradient, and what comes of them. The sweep in place of a prologue reads and writes x.
  const double beside = d.epilogue == ConvEpilogue::stats ? 0 : d.epilogue == ConvEpilogue::join ? 2 * x : x;
  const double loaded = d.prologue == ConvPrologue::none ? 0 : 2 * x;
  const double swept = loaded + (d.epilogue == ConvEpilogue::stats  ? y
                                 : d.epilogue == ConvEpilogue::join ? 4 * x
                                                                    : 2 * x);
  const auto flops = static_cast<double>(g.flops());
  const double of_library =
      is_pointwise(g) ? flops : flops * static_cast<double>(kFewChannels) / static_cast<double>(g.in_c);
  const double fused = std::max((x + y + w + beside) / rates.copy, flops / (kShareOfProducts * products));
  return fused < std::max((x + y + w) / rates.copy, of_library / products) + swept / rates.copy;
}

}  // namespace

std::vector<std::unique_ptr<ConvKernel>> pointwise_candidates(const ConvDesc& desc, const DeviceRates& rates) {
  std::vector<std::unique_ptr<ConvKernel>> found;
  if (fits_pointwise(desc) && is_worth_it(desc, rates)) found.push_back(std::make_unique<PointwiseKernel>(desc));
  if (fits_windows(desc) && is_worth_it(desc, rates)) found.push_back(std::make_unique<WindowKernel>(desc));
  return found;
}

}  // namespace convolt
