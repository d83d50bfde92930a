#include "conv/conv_depthwise.h"

#include "depthwise.h"
#include "grouped.h"

namespace convolt {
namespace {

// What depthwise and grouped kernels have in common: packed taps go in, plain gradients come out.
class OwnKernel : public ConvKernel {
public:
  explicit OwnKernel(const ConvDesc& desc)
      : desc_(desc),
        window_{desc.geometry.kernel_h, desc.geometry.stride_h, desc.geometry.stride_w, desc.geometry.pad} {}

  int64_t packed_bytes() const override {
    return desc_.pass == ConvPass::wgrad ? 0 : desc_.geometry.w_shape().elements() * 4;
  }

protected:
  Tensor x(const ConvArgs& args) const { return {desc_.dtype, desc_.geometry.x_shape(), args.x}; }
  Tensor w(const void* memory) const { return {desc_.dtype, desc_.geometry.w_shape(), const_cast<void*>(memory)}; }
  Tensor y(const ConvArgs& args) const { return {desc_.dtype, desc_.geometry.y_shape(), args.y}; }
  ConvFinish finish(const ConvArgs& args) const {
    using Act = ConvFinish::Act;
    if (desc_.epilogue == ConvEpilogue::none) return {};
    return {args.bias, desc_.epilogue == ConvEpilogue::bias_relu    ? Act::relu
                       : desc_.epilogue == ConvEpilogue::bias_relu6 ? Act::relu6
                                                                    : Act::none};
  }

  const ConvDesc desc_;
  const ConvWindow window_;
};

class DepthwiseKernel final : public OwnKernel {
public:
  using OwnKernel::OwnKernel;

  std::string name() const override {
    const std::string k = std::to_string(window_.kernel);
    return "convolt depthwise " + k + "x" + k;
  }
  int64_t workspace_bytes() const override {
    if (desc_.pass != ConvPass::wgrad) return 0;
    return depthwise_wgrad_scratch(desc_.geometry.y_shape(), desc_.dtype, window_.kernel);
  }
  std::string packed_format() const override { return desc_.pass == ConvPass::wgrad ? "" : "convolt depthwise taps"; }
  void pack(Stream s, const void* plain, void* packed) const override {
    depthwise_taps(s, w(plain), static_cast<float*>(packed));
  }
  void run(Stream s, const ConvArgs& args) const override {
    const auto* const taps = static_cast<const float*>(args.w);
    switch (desc_.pass) {
      case ConvPass::fprop:
        return depthwise(s, x(args), taps, y(args), window_, finish(args));
      case ConvPass::dgrad:
        return depthwise_dgrad(s, y(args), taps, x(args), window_);
      case ConvPass::wgrad:
        return depthwise_wgrad(s, x(args), y(args), static_cast<float*>(args.workspace), w(args.w), window_);
    }
  }
};

class GroupedKernel final : public OwnKernel {
public:
  explicit GroupedKernel(const ConvDesc& desc)
      : OwnKernel(desc), group_(static_cast<int>(desc.geometry.in_c / desc.geometry.groups)) {}

  std::string name() const override { return "convolt grouped 3x3, " + std::to_string(group_) + " channels a group"; }
  int64_t workspace_bytes() const override {
    if (desc_.pass != ConvPass::wgrad) return 0;
    return grouped_wgrad_scratch(desc_.geometry.y_shape(), desc_.dtype, group_);
  }
  std::string packed_format() const override {
    if (desc_.pass == ConvPass::wgrad) return "";
    return desc_.pass == ConvPass::fprop ? "convolt grouped taps" : "convolt grouped taps, transposed";
  }
  void pack(Stream s, const void* plain, void* packed) const override {
    auto* const taps = static_cast<float*>(packed);
    desc_.pass == ConvPass::fprop ? grouped_taps(s, w(plain), taps) : grouped_transposed_taps(s, w(plain), taps);
  }
  void run(Stream s, const ConvArgs& args) const override {
    const auto* const taps = static_cast<const float*>(args.w);
    switch (desc_.pass) {
      case ConvPass::fprop:
        return grouped(s, x(args), taps, y(args), group_, window_, finish(args));
      case ConvPass::dgrad:
        return grouped_dgrad(s, y(args), taps, x(args), group_, window_);
      case ConvPass::wgrad:
        return grouped_wgrad(s, x(args), y(args), static_cast<float*>(args.workspace), w(args.w), group_, window_);
    }
  }

private:
  const int group_;
};

// What both take: square windows, strides of 1 or 2.
bool fits(const ConvDesc& d) {
  const ConvGeometry& g = d.geometry;
  const auto stride_fits = [](int stride) { return stride == 1 || stride == 2; };
  const bool finishes =
      d.epilogue == ConvEpilogue::none ||
      (d.pass == ConvPass::fprop && (d.epilogue == ConvEpilogue::bias || d.epilogue == ConvEpilogue::bias_relu ||
                                     d.epilogue == ConvEpilogue::bias_relu6));
  return finishes && d.prologue == ConvPrologue::none && g.in_c == g.out_c && g.kernel_h == g.kernel_w &&
         stride_fits(g.stride_h) && stride_fits(g.stride_w) && g.dilation_h == 1 && g.dilation_w == 1;
}

}  // namespace

std::vector<std::unique_ptr<ConvKernel>> depthwise_candidates(const ConvDesc& desc) {
  const ConvGeometry& g = desc.geometry;
  std::vector<std::unique_ptr<ConvKernel>> found;
  if (fits(desc) && g.groups == g.in_c && (g.kernel_h == 3 || g.kernel_h == 5 || g.kernel_h == 7))
    found.push_back(std::make_unique<DepthwiseKernel>(desc));
  return found;
}

std::vector<std::unique_ptr<ConvKernel>> grouped_candidates(const ConvDesc& desc) {
  const ConvGeometry& g = desc.geometry;
  std::vector<std::unique_ptr<ConvKernel>> found;
  if (fits(desc) && g.groups > 1 && (g.in_c == 4 * g.groups || g.in_c == 8 * g.groups) && g.kernel_h == 3 &&
      g.stride_h == g.stride_w)
    found.push_back(std::make_unique<GroupedKernel>(desc));
  return found;
}

// What the library has for weight gradients of wide depthwise windows, and of groups of 4, is code for any groups.
bool own_is_quicker(const ConvDesc& desc, const ConvKernel& library) {
  const ConvGeometry& g = desc.geometry;
  if (g.in_c % 8 != 0) return false;
  if (g.groups < g.in_c) return desc.pass == ConvPass::wgrad && g.in_c == 4 * g.groups;
  return library.widened() || (desc.pass == ConvPass::wgrad && g.kernel_h > 3);
}

}  // namespace convolt
