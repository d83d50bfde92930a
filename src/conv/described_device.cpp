#include "conv/described_device.h"

#include <array>

#include "conv/conv_depthwise.h"
#include "conv/conv_pointwise.h"
#include "convolt/error.h"

namespace convolt {
namespace {

// Copies and 16-bit products as measured there by published runs (8192^3 products, copies within the device); tf32 at
// half of that and f32 outside the tensor cores at the data sheet's ratio to it.
const std::array kDevices = {
    DescribedDevice{"h200", {.copy = 4.3e12, .f16 = 780e12, .bf16 = 780e12, .tf32 = 390e12, .f32 = 53e12}},
    DescribedDevice{"h100", {.copy = 2.95e12, .f16 = 720e12, .bf16 = 720e12, .tf32 = 360e12, .f32 = 53e12}},
    DescribedDevice{"a100", {.copy = 1.75e12, .f16 = 270e12, .bf16 = 270e12, .tf32 = 135e12, .f32 = 17e12}}};

const DescribedDevice* find(std::string_view name) {
  for (const DescribedDevice& d : kDevices)
    if (d.name == name) return &d;
  return nullptr;
}

class DescribedKernel final : public ConvKernel {
public:
  DescribedKernel(std::string name, bool repeatable) : name_(std::move(name)), repeatable_(repeatable) {}
  std::string name() const override { return name_; }
  bool repeatable() const override { return repeatable_; }
  void run(Stream, const ConvArgs&) const override {
    throw DeviceError("'" + name_ + "' belongs to a plan that was made to be looked at: it cannot run here");
  }

private:
  std::string name_;
  bool repeatable_;
};

// cuDNN's precompiled fusions of convolution and batch norm.
bool fuses_batch_norm(const ConvDesc& d) {
  const ConvGeometry& g = d.geometry;
  if (d.dtype != DType::f16 || g.groups != 1 || g.in_c % 8 != 0 || g.out_c % 8 != 0) return false;
  switch (d.pass) {
    case ConvPass::fprop:
      return d.epilogue == ConvEpilogue::stats && d.prologue != ConvPrologue::scale_bias;
    case ConvPass::dgrad:
      return d.epilogue == ConvEpilogue::drelu_bn_reduce && d.prologue == ConvPrologue::none;
    default:
      return d.epilogue == ConvEpilogue::none && d.prologue == ConvPrologue::scale_bias_relu;
  }
}

bool is_offered(const ConvDesc& d) {
  if (d.prologue == ConvPrologue::none && d.epilogue == ConvEpilogue::none) return true;
  const bool biased = d.epilogue == ConvEpilogue::bias || d.epilogue == ConvEpilogue::bias_relu ||
                      d.epilogue == ConvEpilogue::bias_relu6;
  if (biased) return d.pass == ConvPass::fprop && d.prologue == ConvPrologue::none && d.geometry.groups == 1;
  return fuses_batch_norm(d);
}

class DescribedProvider final : public ConvProvider {
public:
  explicit DescribedProvider(DescribedDevice device) : device_(std::move(device)) {}
  std::vector<std::unique_ptr<ConvKernel>> candidates(const ConvDesc& desc) override {
    std::vector<std::unique_ptr<ConvKernel>> found;
    const auto describe = [&](const auto& own) {
      for (const auto& kernel : own)
        found.push_back(std::make_unique<DescribedKernel>(kernel->name(), kernel->repeatable()));
    };
    describe(depthwise_candidates(desc));
    const bool grouped_first = own_grouped_first(desc);
    if (grouped_first) describe(grouped_candidates(desc));
    if (is_offered(desc)) found.push_back(std::make_unique<DescribedKernel>("cuDNN", !cudnn_adds_in_any_order(desc)));
    if (!grouped_first) describe(grouped_candidates(desc));
    describe(pointwise_candidates(desc, device_.rates));
    return found;
  }
  std::vector<std::unique_ptr<ConvKernel>> candidates(const LinearDesc& desc) override {
    std::vector<std::unique_ptr<ConvKernel>> found;
    if (cublaslt_has(desc)) found.push_back(std::make_unique<DescribedKernel>("cuBLASLt", true));
    return found;
  }
  std::string describe() const override { return device_.name + " as described, cuDNN 9.19"; }
  int channel_alignment() const override { return 8; }
  DeviceRates rates() const override { return device_.rates; }

private:
  DescribedDevice device_;
};

}  // namespace

bool is_described_device(std::string_view name) { return find(name) != nullptr; }

DescribedDevice described_device(std::string_view name) {
  if (const DescribedDevice* d = find(name)) return *d;
  throw UsageError("no description of a device '" + std::string(name) + "': expected h200, h100 or a100");
}

bool cudnn_adds_in_any_order(const ConvDesc& desc) {
  return desc.epilogue == ConvEpilogue::stats || desc.epilogue == ConvEpilogue::drelu_bn_reduce;
}

bool cublaslt_has(const LinearDesc& desc) {
  switch (desc.epilogue) {
    case ConvEpilogue::none:
      return true;
    case ConvEpilogue::bias:
    case ConvEpilogue::bias_relu:
    case ConvEpilogue::bias_relu_mask:
      return desc.pass == ConvPass::fprop;
    case ConvEpilogue::drelu_bias_gradient:
      return desc.pass == ConvPass::dgrad;
    case ConvEpilogue::bias_gradient:
      return desc.pass == ConvPass::wgrad;
    default:
      return false;
  }
}

std::unique_ptr<ConvProvider> make_described_provider(const DescribedDevice& device) {
  return std::make_unique<DescribedProvider>(device);
}

}  // namespace convolt
