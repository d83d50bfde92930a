// What the device layer offers to context.cpp. device_cpu.cpp is always linked; of device_cuda.cpp and device_none.cpp
// exactly one.
#pragma once

#include <memory>

#include "convolt/context.h"

namespace convolt {

// Milliseconds of the work between two points of a queue. start() and stop() are called inside Queue::run,
// milliseconds() once the queue has passed both.
class DeviceTimer {
public:
  virtual ~DeviceTimer() = default;
  virtual void start(Stream s) = 0;
  virtual void stop(Stream s) = 0;
  virtual double milliseconds() = 0;
};
std::unique_ptr<DeviceTimer> make_timer(const Device& device);

// Bytes of the largest cache between a core, or the GPU's processors, and memory.
int64_t last_cache_bytes(const Device& device);

struct EventState {
  virtual ~EventState() = default;
  virtual bool reached() = 0;
  virtual void wait() = 0;  // throws the error of the work before the event
  virtual void sleep_until_reached() = 0;
};

std::unique_ptr<Context> make_cpu_context(const Context::Options& options);
// Throws DeviceError that says what is missing.
std::unique_ptr<Context> make_cuda_context(const Context::Options& options);
std::unique_ptr<DeviceTimer> make_cpu_timer();
std::unique_ptr<DeviceTimer> make_cuda_timer(int index);
int64_t cpu_last_cache_bytes();
int64_t cuda_last_cache_bytes(int index);

}  // namespace convolt
