// Linked in place of nvjpeg.cpp when the build has no CUDA.
#include "convolt/error.h"
#include "data/device_decoder.h"

namespace convolt {

std::unique_ptr<DeviceDecoder> make_nvjpeg_decoder(Context&) { throw DeviceError(cuda_unavailable_reason()); }

}  // namespace convolt
