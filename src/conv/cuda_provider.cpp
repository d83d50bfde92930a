#include "conv/cuda_provider.h"

#include <cuda_runtime_api.h>

#include "conv/conv_depthwise.h"
#include "conv/conv_padded.h"
#include "conv/conv_pointwise.h"
#include "conv/described_device.h"

namespace convolt {
namespace {

// A convolution of single pixels: each is a row of a matrix. Its bias is f32, which products in 16 bits do not take.
bool is_product(const ConvDesc& d) {
  const ConvGeometry& g = d.geometry;
  return g.kernel_h == 1 && g.kernel_w == 1 && g.stride_h == 1 && g.stride_w == 1 && g.pad == Padding() &&
         g.groups == 1 && d.prologue == ConvPrologue::none &&
         (d.epilogue == ConvEpilogue::none || d.dtype == DType::f32);
}
LinearDesc as_product(const ConvDesc& d) {
  const ConvGeometry& g = d.geometry;
  return {d.pass, g.n * g.in_h * g.in_w, g.in_c, g.out_c, d.dtype, d.tf32, d.epilogue};
}

class CudaProvider final : public ConvProvider {
public:
  explicit CudaProvider(int index) : index_(index) {
    use_device();
    conv_ = make_cudnn();
    matmul_ = make_cublaslt();
  }
  std::vector<std::unique_ptr<ConvKernel>> candidates(const ConvDesc& desc) override {
    return find(desc, Heuristics::a);
  }
  std::vector<std::unique_ptr<ConvKernel>> all_candidates(const ConvDesc& desc) override {
    return find(desc, Heuristics::a_and_b);
  }
  std::vector<std::unique_ptr<ConvKernel>> candidates(const LinearDesc& desc) override {
    use_device();
    return matmul_->candidates(desc);
  }
  int channel_alignment() const override { return 8; }
  DeviceRates rates() const override { return described_device("h200").rates; }
  std::string describe() const override { return conv_->version() + ", " + matmul_->version(); }

private:
  using Kernels = std::vector<std::unique_ptr<ConvKernel>>;

  Kernels find(const ConvDesc& desc, Heuristics heuristics) {
    use_device();
    Kernels kernels = depthwise_candidates(desc);
    const auto append = [&](Kernels more) {
      for (auto& kernel : more) kernels.push_back(std::move(kernel));
    };
    const bool grouped_first = own_grouped_first(desc);
    if (grouped_first) append(grouped_candidates(desc));
    append(library_candidates(desc, heuristics, !kernels.empty()));
    if (!grouped_first) append(grouped_candidates(desc));
    append(pointwise_candidates(desc, rates()));
    // Last: whether products are quicker is for the tuning to say.
    if (is_product(desc)) append(matmul_->candidates(as_product(desc)));
    return kernels;
  }
  // Not all of cuDNN's engines are right where padding differs from side to side, and for depthwise layers those that
  // sum up a weight gradient in 16 bits round their partial sums (cuDNN 9.19).
  Kernels library_candidates(const ConvDesc& desc, Heuristics heuristics, bool has_own) {
    const auto ask = [&](const ConvDesc& d) { return conv_->candidates(d, heuristics); };
    if (has_own && desc.pass == ConvPass::wgrad && desc.dtype != DType::f32) return {};
    return is_lopsided(desc.geometry.pad) ? padded_candidates(desc, ask) : ask(desc);
  }
  // Any thread may ask, and the current device is a property of each.
  void use_device() const {
    if (const cudaError_t status = cudaSetDevice(index_); status != cudaSuccess)
      throw DeviceError(std::string("selecting the CUDA device failed: ") + cudaGetErrorString(status));
  }

  const int index_;
  std::unique_ptr<ConvLibrary> conv_;
  std::unique_ptr<MatmulLibrary> matmul_;
};

}  // namespace

std::unique_ptr<ConvProvider> make_cuda_provider(int index) { return std::make_unique<CudaProvider>(index); }

}  // namespace convolt
