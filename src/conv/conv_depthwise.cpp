#include "conv/conv_depthwise.h"

#include "depthwise.h"

namespace convolt {
namespace {

class DepthwiseKernel final : public ConvKernel {
public:
  explicit DepthwiseKernel(const ConvDesc& desc) : desc_(desc) {}

  std::string name() const override {
    const std::string k = std::to_string(desc_.geometry.kernel_h);
    return "convolt depthwise " + k + "x" + k;
  }
  int64_t workspace_bytes() const override {
    const ConvGeometry& g = desc_.geometry;
    return desc_.pass == ConvPass::wgrad ? depthwise_wgrad_scratch(g.y_shape(), desc_.dtype, g.kernel_h) : 0;
  }
  int64_t packed_bytes() const override {
    return desc_.pass == ConvPass::wgrad ? 0 : desc_.geometry.w_shape().elements() * 4;
  }
  std::string packed_format() const override { return desc_.pass == ConvPass::wgrad ? "" : "convolt depthwise taps"; }
  void pack(Stream s, const void* plain, void* packed) const override {
    depthwise_taps(s, {desc_.dtype, desc_.geometry.w_shape(), const_cast<void*>(plain)}, static_cast<float*>(packed));
  }

  void run(Stream s, const ConvArgs& args) const override {
    const ConvGeometry& g = desc_.geometry;
    const Tensor x{desc_.dtype, g.x_shape(), args.x}, y{desc_.dtype, g.y_shape(), args.y};
    const DepthwiseWindow window{g.kernel_h, g.stride_h, g.stride_w, g.pad};
    const auto* const taps = static_cast<const float*>(args.w);
    switch (desc_.pass) {
      case ConvPass::fprop:
        return depthwise(s, x, taps, y, window, finish(args.bias));
      case ConvPass::dgrad:
        return depthwise_dgrad(s, y, taps, x, window);
      case ConvPass::wgrad:
        return depthwise_wgrad(s, x, y, static_cast<float*>(args.workspace), {desc_.dtype, g.w_shape(), args.w},
                               window);
    }
  }

private:
  DepthwiseFinish finish(const float* bias) const {
    using Act = DepthwiseFinish::Act;
    if (desc_.epilogue == ConvEpilogue::none) return {};
    return {bias, desc_.epilogue == ConvEpilogue::bias_relu    ? Act::relu
                  : desc_.epilogue == ConvEpilogue::bias_relu6 ? Act::relu6
                                                               : Act::none};
  }

  ConvDesc desc_;
};

bool fits(const ConvDesc& d) {
  const ConvGeometry& g = d.geometry;
  const auto stride_fits = [](int stride) { return stride == 1 || stride == 2; };
  const bool finishes =
      d.epilogue == ConvEpilogue::none ||
      (d.pass == ConvPass::fprop && (d.epilogue == ConvEpilogue::bias || d.epilogue == ConvEpilogue::bias_relu ||
                                     d.epilogue == ConvEpilogue::bias_relu6));
  return finishes && d.prologue == ConvPrologue::none && g.groups == g.in_c && g.groups == g.out_c &&
         g.kernel_h == g.kernel_w && (g.kernel_h == 3 || g.kernel_h == 5 || g.kernel_h == 7) &&
         stride_fits(g.stride_h) && stride_fits(g.stride_w) && g.dilation_h == 1 && g.dilation_w == 1;
}

}  // namespace

std::vector<std::unique_ptr<ConvKernel>> depthwise_candidates(const ConvDesc& desc) {
  std::vector<std::unique_ptr<ConvKernel>> found;
  if (fits(desc)) found.push_back(std::make_unique<DepthwiseKernel>(desc));
  return found;
}

// What the library has for weight gradients of wide depthwise windows is code for windows of any groups.
bool depthwise_is_quicker(const ConvDesc& desc, const ConvKernel& library) {
  if (desc.geometry.in_c % 8 != 0) return false;
  return library.widened() || (desc.pass == ConvPass::wgrad && desc.geometry.kernel_h > 3);
}

}  // namespace convolt
