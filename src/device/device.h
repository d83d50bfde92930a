// What the device layer offers to context.cpp. device_cpu.cpp is always linked; of device_cuda.cpp and device_none.cpp
// exactly one.
#pragma once

#include <memory>

#include "convolt/context.h"

namespace convolt {

struct EventState {
  virtual ~EventState() = default;
  virtual bool reached() = 0;
  virtual void wait() = 0;  // throws the error of the work before the event
};

std::unique_ptr<Context> make_cpu_context(const Context::Options& options);
// Throws DeviceError that says what is missing.
std::unique_ptr<Context> make_cuda_context(const Context::Options& options);

}  // namespace convolt
