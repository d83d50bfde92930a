#include "convolt/context.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <thread>
#include <utility>

#include "device/device.h"

namespace convolt {

Device Device::best() { return cuda_device_count() > 0 ? cuda() : cpu(); }

Device Device::parse(std::string_view text) {
  if (text == "cpu") return cpu();
  if (text == "cuda") return cuda(0);
  if (text.starts_with("cuda:")) {
    const std::string_view digits = text.substr(5);
    int index = -1;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
    if (error == std::errc{} && end == digits.data() + digits.size() && index >= 0) return cuda(index);
  }
  throw UsageError("unknown device '" + std::string(text) + "': expected cpu, cuda or cuda:N");
}

std::string Device::to_string() const { return is_cuda() ? "cuda:" + std::to_string(index) : "cpu"; }

bool Event::reached() const { return !state_ || state_->reached(); }
void Event::sleep_until_reached() const {
  if (state_) state_->sleep_until_reached();
}
void Event::wait() const {
  if (state_) state_->wait();
}

namespace {
bool environment_flag(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' && std::string_view(value) != "0";
}
}  // namespace

Context::Context(Device device, int threads)
    : device_(device),
      threads_(threads > 0 ? threads : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()))),
      synchronous_(environment_flag("CONVOLT_SYNC")) {}

std::unique_ptr<Context> Context::create(const Options& options) {
  if (options.threads < 0 || options.threads > kMostThreads)
    throw UsageError("a context has 1 to " + std::to_string(kMostThreads) +
                     " compute threads, 0 for all cores; found " + std::to_string(options.threads));
  if (!options.device.is_cuda() && options.device.index != 0)
    throw UsageError("there is one CPU, of index 0; found " + std::to_string(options.device.index));
  return options.device.is_cuda() ? make_cuda_context(options) : make_cpu_context(options);
}

std::unique_ptr<DeviceTimer> make_timer(const Device& device) {
  return device.is_cuda() ? make_cuda_timer(device.index) : make_cpu_timer();
}

int64_t last_cache_bytes(const Device& device) {
  return device.is_cuda() ? cuda_last_cache_bytes(device.index) : cpu_last_cache_bytes();
}

void* Context::device_memory(int64_t bytes, std::atomic<int64_t>& held, std::atomic<int64_t>& peak) {
  void* memory = raw_allocate(bytes);
  if (memory == nullptr)
    throw OutOfMemoryError("out of memory on " + device_.to_string() + ": asked for " + std::to_string(bytes) +
                           " bytes, of which " + std::to_string(free_bytes()) + " are free; try a smaller batch (-b)");
  const int64_t now = held += bytes;
  for (int64_t most = peak; now > most && !peak.compare_exchange_weak(most, now);) {
  }
  return memory;
}

void* Context::allocate(int64_t bytes) {
  if (bytes == 0) return nullptr;
  void* memory = device_memory(bytes, counters_.device_bytes, counters_.device_bytes_peak);
  ++counters_.device_allocations;
  return memory;
}

void* Context::allocate_for_tuning(int64_t bytes) {
  if (bytes == 0) return nullptr;
  return device_memory(bytes, counters_.tuning_bytes, counters_.tuning_bytes_peak);
}

void Context::free(void* memory, int64_t bytes) noexcept {
  if (memory == nullptr) return;
  raw_free(memory);
  counters_.device_bytes -= bytes;
}

void Context::free_of_tuning(void* memory, int64_t bytes) noexcept {
  if (memory == nullptr) return;
  raw_free(memory);
  counters_.tuning_bytes -= bytes;
}

void* Context::allocate_pinned(int64_t bytes) {
  if (bytes == 0) return nullptr;
  void* memory = raw_allocate_pinned(bytes);
  if (memory == nullptr)
    throw OutOfMemoryError("out of host memory: asked for " + std::to_string(bytes) +
                           " bytes of pinned memory; try a smaller batch (-b) or --max-side");
  ++counters_.pinned_allocations;
  counters_.pinned_bytes += bytes;
  return memory;
}

void Context::free_pinned(void* memory, int64_t bytes) noexcept {
  if (memory == nullptr) return;
  raw_free_pinned(memory);
  counters_.pinned_bytes -= bytes;
}

Buffer::Buffer(Context& context, int64_t bytes, Kind kind)
    : context_(&context),
      data_(kind == Kind::device   ? context.allocate(bytes)
            : kind == Kind::pinned ? context.allocate_pinned(bytes)
                                   : context.allocate_for_tuning(bytes)),
      bytes_(bytes),
      kind_(kind) {}

Buffer::~Buffer() {
  if (data_ == nullptr) return;
  if (kind_ == Kind::device)
    context_->free(data_, bytes_);
  else if (kind_ == Kind::pinned)
    context_->free_pinned(data_, bytes_);
  else
    context_->free_of_tuning(data_, bytes_);
}

Buffer::Buffer(Buffer&& other) noexcept
    : context_(other.context_),
      data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      kind_(other.kind_) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(context_, other.context_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(kind_, other.kind_);
  return *this;
}

}  // namespace convolt
