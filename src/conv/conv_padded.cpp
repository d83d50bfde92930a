#include "conv/conv_padded.h"

#include <cuda_runtime_api.h>

#include <string>

namespace convolt {
namespace {

ConvDesc with_border(const ConvDesc& desc) {
  ConvDesc bordered = desc;
  bordered.geometry.in_h += desc.geometry.pad.vertical();
  bordered.geometry.in_w += desc.geometry.pad.horizontal();
  bordered.geometry.pad = 0;
  return bordered;
}

void check(cudaError_t status) {
  if (status != cudaSuccess) throw DeviceError(std::string("padding a picture failed: ") + cudaGetErrorString(status));
}

class PaddedKernel final : public ConvKernel {
public:
  PaddedKernel(std::unique_ptr<ConvKernel> kernel, const ConvDesc& desc) : kernel_(std::move(kernel)), desc_(desc) {}

  std::string name() const override { return "padded, " + kernel_->name(); }
  bool repeatable() const override { return kernel_->repeatable(); }
  int64_t workspace_bytes() const override { return bordered_bytes() + kernel_->workspace_bytes(); }

  void run(Stream s, const ConvArgs& args) const override {
    auto* const stream = static_cast<cudaStream_t>(s.handle);
    ConvArgs inner = args;
    inner.x = args.workspace;
    inner.workspace = static_cast<char*>(args.workspace) + bordered_bytes();
    if (desc_.pass != ConvPass::dgrad) {
      check(cudaMemsetAsync(inner.x, 0, static_cast<size_t>(bordered_bytes()), stream));
      copy(stream, args.x, inner.x, /*in=*/true);
    }
    kernel_->run(s, inner);
    if (desc_.pass == ConvPass::dgrad) copy(stream, inner.x, args.x, /*in=*/false);
  }

private:
  // Rounded up: the workspace behind it starts on 256 bytes.
  int64_t bordered_bytes() const {
    return (with_border(desc_).geometry.x_shape().elements() * size_of(desc_.dtype) + 255) / 256 * 256;
  }
  void copy(cudaStream_t stream, void* from, void* to, bool in) const {
    const ConvGeometry &g = desc_.geometry, bordered = with_border(desc_).geometry;
    const auto pixel = static_cast<size_t>(g.in_c * size_of(desc_.dtype));
    const auto picture = [&](void* at, const ConvGeometry& size) {
      const size_t row = static_cast<size_t>(size.in_w) * pixel;
      return cudaPitchedPtr{at, row, row, static_cast<size_t>(size.in_h)};
    };
    const size_t first = static_cast<size_t>(g.pad.top * bordered.in_w + g.pad.left) * pixel;
    cudaMemcpy3DParms p{};
    p.srcPtr = in ? picture(from, g) : picture(static_cast<char*>(from) + first, bordered);
    p.dstPtr = in ? picture(static_cast<char*>(to) + first, bordered) : picture(to, g);
    p.extent = {static_cast<size_t>(g.in_w) * pixel, static_cast<size_t>(g.in_h), static_cast<size_t>(g.n)};
    p.kind = cudaMemcpyDeviceToDevice;
    check(cudaMemcpy3DAsync(&p, stream));
  }

  std::unique_ptr<ConvKernel> kernel_;
  ConvDesc desc_;
};

}  // namespace

std::vector<std::unique_ptr<ConvKernel>> padded_candidates(
    const ConvDesc& desc, const std::function<std::vector<std::unique_ptr<ConvKernel>>(const ConvDesc&)>& offer) {
  std::vector<std::unique_ptr<ConvKernel>> kernels;
  if (desc.epilogue == ConvEpilogue::drelu_bn_reduce || desc.prologue != ConvPrologue::none) return kernels;
  for (auto& kernel : offer(with_border(desc)))
    kernels.push_back(std::make_unique<PaddedKernel>(std::move(kernel), desc));
  return kernels;
}

}  // namespace convolt
