#include "conv/cuda_provider.h"

#include <cuda_runtime_api.h>

#include "conv/conv_depthwise.h"

namespace convolt {
namespace {

class CudaProvider final : public ConvProvider {
public:
  explicit CudaProvider(int index) : index_(index) {
    use_device();
    conv_ = make_cudnn();
    matmul_ = make_cublaslt();
  }
  std::vector<std::unique_ptr<ConvKernel>> candidates(const ConvDesc& desc) override {
    use_device();
    auto found = depthwise_candidates(desc);
    for (auto& kernel : conv_->candidates(desc)) found.push_back(std::move(kernel));
    return found;
  }
  std::vector<std::unique_ptr<ConvKernel>> candidates(const LinearDesc& desc) override {
    use_device();
    return matmul_->candidates(desc);
  }
  std::string describe() const override { return conv_->version() + ", " + matmul_->version(); }

private:
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
