// The CUDA side of conv.h: convolutions by cuDNN, matrix products by cuBLASLt, both loaded when a provider is made.
// Linked in CUDA builds only.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "conv/conv.h"

namespace convolt {

// Whose heuristics cuDNN is asked for: those of mode A, or those of mode B too, which know other engines for some
// shapes. Either way what it falls back on follows where mode A gives few.
enum class Heuristics : uint8_t { a, a_and_b };

// One library and its handle on one device. Thread-safe.
class ConvLibrary {
public:
  virtual ~ConvLibrary() = default;
  virtual std::vector<std::unique_ptr<ConvKernel>> candidates(const ConvDesc& desc, Heuristics heuristics) = 0;
  virtual std::string version() const = 0;  // "cuDNN 9.19.0"
};
class MatmulLibrary {
public:
  virtual ~MatmulLibrary() = default;
  virtual std::vector<std::unique_ptr<ConvKernel>> candidates(const LinearDesc& desc) = 0;
  virtual std::string version() const = 0;  // "cuBLASLt 13.1.0"
};

// On the current CUDA device. Throw DeviceError when the library is missing or refuses to start.
std::unique_ptr<ConvLibrary> make_cudnn();
std::unique_ptr<MatmulLibrary> make_cublaslt();
// Both of them, on device `index`.
std::unique_ptr<ConvProvider> make_cuda_provider(int index);

// What candidates() would offer on a described device.
struct PlanReport {
  std::string name;
  int64_t workspace_bytes = 0;
  bool repeatable = true;
};

// Builds the plans of `desc` for the device that `device_json` describes (a serialised cuDNN DeviceProperties; its
// compute capability is read from "deviceVer"), without any device. Best first, by mode A and then those that mode B
// adds; empty where cuDNN has none. Only precompiled engines answer where no libcuda.so.1 can be loaded. Throws
// DeviceError when cuDNN cannot be loaded, FormatError when the description is not one.
std::vector<PlanReport> deviceless_plans(const ConvDesc& desc, const std::string& device_json,
                                         Heuristics heuristics = Heuristics::a);

// What cuDNN knows of the current CUDA device, as deviceless_plans() takes it. Throws DeviceError when cuDNN cannot be
// loaded or is older than 9.8.
std::string device_description();

// The loaded cuDNN, "cuDNN 9.19.0"; throws DeviceError when it cannot be loaded.
std::string cudnn_version();

}  // namespace convolt
