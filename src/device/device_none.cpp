// Linked in place of device_cuda.cpp when the build has no CUDA.
#include "device/device.h"

namespace convolt {

int cuda_device_count() { return 0; }

std::string cuda_unavailable_reason() {
  return "this program was built without CUDA; build it with a CUDA 12.8 or newer toolkit (CONVOLT_CUDA=ON) or use "
         "--device cpu";
}

std::unique_ptr<Context> make_cuda_context(const Context::Options&) { throw DeviceError(cuda_unavailable_reason()); }
std::unique_ptr<DeviceTimer> make_cuda_timer(int) { throw DeviceError(cuda_unavailable_reason()); }
int64_t cuda_last_cache_bytes(int) { throw DeviceError(cuda_unavailable_reason()); }

}  // namespace convolt
