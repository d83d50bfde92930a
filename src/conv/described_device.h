// GPUs by description: how fast they are, and what their libraries offer, so that plans for them can be made and looked
// at where there is none.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "conv/conv.h"
#include "conv/device_rates.h"

namespace convolt {

struct DescribedDevice {
  std::string name;
  DeviceRates rates;
};

// "h200", "h100", "a100"; throws UsageError for others.
DescribedDevice described_device(std::string_view name);
bool is_described_device(std::string_view name);

// Answers as cuDNN 9.19, cuBLASLt and our own kernels would on the device (docs/conv-coverage.md; a test of CUDA builds
// compares). Its kernels have names and no workspace, and throw when they are run.
std::unique_ptr<ConvProvider> make_described_provider(const DescribedDevice& device);

// Whether the plans that cuDNN 9.19 has for it make its sums over the rows by atomic additions, which they do not say.
bool cudnn_adds_in_any_order(const ConvDesc& desc);

// Which epilogues cuBLASLt has for the products of a linear layer, on any device; its library may still have no
// algorithm.
bool cublaslt_has(const LinearDesc& desc);

}  // namespace convolt
