// How fast a device is, as far as that bounds a kernel.
#pragma once

namespace convolt {

// Bytes read and written per second by a copy within the device's memory, and operations per second of large matrix
// products.
struct DeviceRates {
  double copy = 0;
  double f16 = 0, bf16 = 0, tf32 = 0, f32 = 0;
};

}  // namespace convolt
