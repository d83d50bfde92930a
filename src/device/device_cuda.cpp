// An NVIDIA GPU as a device: two non-blocking streams (compute, copies), recycled events, pinned host memory.
#include <cuda_runtime_api.h>

#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "conv/cuda_provider.h"
#include "device/device.h"

namespace convolt {
namespace {

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  // The runtime keeps the last error of a thread; taking it here keeps it from being blamed on the next launch.
  cudaGetLastError();
  throw DeviceError(std::string(what) + " failed: " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) +
                    ")");
}

// What fails on the device is only known later, when nobody can say what it was.
constexpr const char* kWork = "work on the CUDA device (CONVOLT_SYNC=1 runs op after op and names it)";

// The current device is a property of each host thread, and any thread may submit.
void use_device(int index) { check(cudaSetDevice(index), "selecting the CUDA device"); }

// Events that are not in use, kept so that a step creates none.
class EventPool {
public:
  EventPool(Counters& counters, int device) : counters_(counters), device_(device) {}
  ~EventPool() {
    for (cudaEvent_t event : free_) cudaEventDestroy(event);
  }
  EventPool(const EventPool&) = delete;
  EventPool& operator=(const EventPool&) = delete;

  cudaEvent_t take() {
    {
      const std::lock_guard lock(mutex_);
      if (!free_.empty()) {
        cudaEvent_t event = free_.back();
        free_.pop_back();
        return event;
      }
    }
    cudaEvent_t event = nullptr;
    // Blocking: a thread that waits sleeps, and leaves its core to those that decode.
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync), "creating a CUDA event");
    return event;
  }
  void give_back(cudaEvent_t event) noexcept {
    try {
      const std::lock_guard lock(mutex_);
      free_.push_back(event);
    } catch (...) {  // no memory for the list
      cudaEventDestroy(event);
    }
  }
  Counters& counters() { return counters_; }
  int device() const { return device_; }

private:
  Counters& counters_;
  const int device_;
  std::mutex mutex_;
  std::vector<cudaEvent_t> free_;
};

// The answer to a query. One that is not reached yet must not stay behind as the last error, which launches look at.
cudaError_t asked(cudaError_t status) {
  if (status == cudaErrorNotReady) cudaGetLastError();
  return status;
}

class CudaEvent final : public EventState {
public:
  explicit CudaEvent(std::shared_ptr<EventPool> pool) : pool_(std::move(pool)), event_(pool_->take()) {}
  ~CudaEvent() override { pool_->give_back(event_); }
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;

  cudaEvent_t handle() const { return event_; }
  // What the queue had failed with, on the host, when the event was recorded.
  void set_error(std::exception_ptr error) { error_ = std::move(error); }

  // A failure counts as reached, so that nobody polls for ever; wait() reports it.
  bool reached() override {
    use_device(pool_->device());
    return asked(cudaEventQuery(event_)) != cudaErrorNotReady;
  }
  void wait() override {
    use_device(pool_->device());
    cudaError_t status = asked(cudaEventQuery(event_));
    if (status == cudaErrorNotReady) {
      ++pool_->counters().host_waits;
      status = cudaEventSynchronize(event_);
    }
    if (error_) std::rethrow_exception(error_);
    check(status, kWork);
  }
  void sleep_until_reached() override {
    use_device(pool_->device());
    cudaEventSynchronize(event_);
  }

private:
  std::shared_ptr<EventPool> pool_;
  cudaEvent_t event_;
  std::exception_ptr error_;
};

class CudaGraph final : public RecordedWork {
public:
  // Takes the graph over.
  explicit CudaGraph(cudaGraph_t graph) {
    const cudaError_t status = cudaGraphInstantiate(&executable_, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "instantiating a CUDA graph");
  }
  ~CudaGraph() override { cudaGraphExecDestroy(executable_); }
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;
  cudaGraphExec_t executable() const { return executable_; }

private:
  cudaGraphExec_t executable_ = nullptr;
};

class CudaQueue final : public Queue {
public:
  CudaQueue(std::shared_ptr<EventPool> pool, bool counts_submissions)
      : pool_(std::move(pool)), counts_submissions_(counts_submissions) {
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a CUDA stream");
    constexpr size_t kBytes = kStreamCounters * sizeof(int32_t);
    check(cudaMalloc(&counters_, kBytes), "allocating the counters of a queue");
    // In this stream: it does not wait for the default one.
    check(cudaMemsetAsync(counters_, 0, kBytes, stream_), "clearing the counters of a queue");
  }
  ~CudaQueue() override {
    cudaSetDevice(pool_->device());
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
    cudaFree(counters_);
  }
  CudaQueue(const CudaQueue&) = delete;
  CudaQueue& operator=(const CudaQueue&) = delete;

  // The lock makes the launches of one call follow each other in the stream. What `work` throws (a launch that was
  // refused) surfaces at synchronize(), as on the CPU.
  void run(std::function<void(Stream)> work) override {
    use_device(pool_->device());
    const std::lock_guard lock(mutex_);
    if (counts_submissions_) ++pool_->counters().submissions;
    if (error_) return;
    try {
      work(Stream{true, stream_, static_cast<int32_t*>(counters_)});
    } catch (...) {
      error_ = std::current_exception();
    }
  }
  // The lock keeps other threads' work out of the graph. Their copies and allocations go on: the mode is of this
  // thread.
  std::unique_ptr<RecordedWork> record_work(std::function<void(Stream)> work) override {
    use_device(pool_->device());
    const std::lock_guard lock(mutex_);
    check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "beginning a CUDA graph");
    cudaGraph_t graph = nullptr;
    try {
      work(Stream{true, stream_, static_cast<int32_t*>(counters_)});
    } catch (...) {
      cudaStreamEndCapture(stream_, &graph);
      if (graph != nullptr) cudaGraphDestroy(graph);
      cudaGetLastError();
      throw;
    }
    check(cudaStreamEndCapture(stream_, &graph), "ending a CUDA graph");
    return std::make_unique<CudaGraph>(graph);
  }
  void launch(const RecordedWork& work) override {
    use_device(pool_->device());
    const std::lock_guard lock(mutex_);
    ++pool_->counters().graph_launches;
    if (counts_submissions_) ++pool_->counters().submissions;
    if (error_) return;
    remember(cudaGraphLaunch(static_cast<const CudaGraph&>(work).executable(), stream_), "launching a CUDA graph");
  }
  void copy(void* to, const void* from, int64_t bytes) override {
    use_device(pool_->device());
    const std::lock_guard lock(mutex_);
    if (error_ || bytes == 0) return;
    remember(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, stream_), "a copy");
  }
  Event record() override {
    use_device(pool_->device());
    auto event = std::make_shared<CudaEvent>(pool_);
    const std::lock_guard lock(mutex_);
    event->set_error(error_);
    check(cudaEventRecord(event->handle(), stream_), "recording a CUDA event");
    return Event(std::move(event));
  }
  void wait(const Event& event) override {
    if (!event.state()) return;
    use_device(pool_->device());
    const std::lock_guard lock(mutex_);
    const auto& state = static_cast<const CudaEvent&>(*event.state());
    remember(cudaStreamWaitEvent(stream_, state.handle(), 0), "waiting for another queue");
  }
  void synchronize() override {
    use_device(pool_->device());
    cudaError_t status = cudaSuccess;
    std::optional<CudaEvent> end;
    {
      // A query would break off what another thread records, and so would waiting for the stream itself.
      const std::lock_guard lock(mutex_);
      status = asked(cudaStreamQuery(stream_));
      if (status == cudaErrorNotReady) {
        end.emplace(pool_);
        status = cudaEventRecord(end->handle(), stream_);
      }
    }
    if (end && status == cudaSuccess) {
      ++pool_->counters().host_waits;
      status = cudaEventSynchronize(end->handle());
    }
    {
      const std::lock_guard lock(mutex_);
      if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    }
    check(status, kWork);
  }

private:
  void remember(cudaError_t status, const char* what) {
    try {
      check(status, what);
    } catch (...) {
      if (!error_) error_ = std::current_exception();
    }
  }

  std::shared_ptr<EventPool> pool_;
  const bool counts_submissions_;
  cudaStream_t stream_ = nullptr;
  void* counters_ = nullptr;
  std::recursive_mutex mutex_;  // `work` may submit to its own queue
  std::exception_ptr error_;
};

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

class CudaContext final : public Context {
public:
  explicit CudaContext(const Options& options)
      : Context(options.device, options.threads),
        pool_(std::make_shared<EventPool>(counters(), select(options.device.index))),
        compute_(pool_, true),
        copies_(pool_, false) {}

  std::string describe() const override {
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, device().index), "reading the properties of the CUDA device");
    return properties.name;
  }
  int64_t free_bytes() const override {
    size_t free = 0, total = 0;
    use_device(device().index);
    check(cudaMemGetInfo(&free, &total), "asking for the free memory of the CUDA device");
    return static_cast<int64_t>(free);
  }
  std::string driver() const override {
    int version = 0;
    check(cudaDriverGetVersion(&version), "asking for the version of the driver");
    return "driver for CUDA " + version_text(version);
  }
  Queue& compute() override { return compute_; }
  Queue& copies() override { return copies_; }

  ConvProvider& conv() override {
    const std::lock_guard lock(conv_mutex_);
    if (!conv_) {
      use_device(device().index);
      conv_ = make_cuda_provider(device().index);
    }
    return *conv_;
  }

protected:
  void* raw_allocate(int64_t bytes) override {
    use_device(device().index);
    void* memory = nullptr;
    return allocated(cudaMalloc(&memory, static_cast<size_t>(bytes)), "allocating device memory") ? memory : nullptr;
  }
  void raw_free(void* memory) noexcept override {
    cudaSetDevice(device().index);
    cudaFree(memory);
  }
  void* raw_allocate_pinned(int64_t bytes) override {
    use_device(device().index);
    void* memory = nullptr;
    return allocated(cudaHostAlloc(&memory, static_cast<size_t>(bytes), cudaHostAllocDefault),
                     "allocating pinned host memory")
               ? memory
               : nullptr;
  }
  void raw_free_pinned(void* memory) noexcept override {
    cudaSetDevice(device().index);
    cudaFreeHost(memory);
  }

private:
  static int select(int index) {
    use_device(index);
    return index;
  }
  // False when there is not enough memory; throws what else went wrong.
  static bool allocated(cudaError_t status, const char* what) {
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      return false;
    }
    check(status, what);
    return true;
  }

  std::shared_ptr<EventPool> pool_;
  CudaQueue compute_;
  CudaQueue copies_;
  std::mutex conv_mutex_;
  std::unique_ptr<ConvProvider> conv_;  // destroyed before the streams
};

class CudaTimer final : public DeviceTimer {
public:
  explicit CudaTimer(int device) {
    use_device(device);
    check(cudaEventCreate(&start_), "creating a CUDA event");
    check(cudaEventCreate(&stop_), "creating a CUDA event");
  }
  ~CudaTimer() override {
    cudaEventDestroy(start_);
    cudaEventDestroy(stop_);
  }
  CudaTimer(const CudaTimer&) = delete;
  CudaTimer& operator=(const CudaTimer&) = delete;

  void start(Stream s) override { record(start_, s); }
  void stop(Stream s) override { record(stop_, s); }
  double milliseconds() override {
    float time = 0;
    check(cudaEventElapsedTime(&time, start_, stop_), "reading the time between two CUDA events");
    return static_cast<double>(time);
  }

private:
  static void record(cudaEvent_t event, Stream s) {
    check(cudaEventRecord(event, static_cast<cudaStream_t>(s.handle)), "recording a CUDA event");
  }
  cudaEvent_t start_ = nullptr, stop_ = nullptr;
};

}  // namespace

int cuda_device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();
  return 0;
}

std::string cuda_unavailable_reason() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && count > 0) return {};
  cudaGetLastError();
  int driver = 0, runtime = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
    return "no NVIDIA driver was found (libcuda.so.1): install the driver of the card, or use --device cpu";
  cudaRuntimeGetVersion(&runtime);
  if (status == cudaErrorInsufficientDriver)
    return "the NVIDIA driver supports CUDA " + version_text(driver) + " and this program needs " +
           version_text(runtime) + ": install a newer driver, or use --device cpu";
  if (status == cudaErrorNoDevice || status == cudaSuccess)
    return "the NVIDIA driver shows no device: check nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu";
  return std::string("CUDA could not start: ") + cudaGetErrorString(status) +
         "; check the driver with nvidia-smi, or use --device cpu";
}

std::unique_ptr<DeviceTimer> make_cuda_timer(int index) { return std::make_unique<CudaTimer>(index); }

int64_t cuda_last_cache_bytes(int index) {
  int bytes = 0;
  check(cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, index), "reading the size of the L2 cache");
  return bytes;
}

std::unique_ptr<Context> make_cuda_context(const Context::Options& options) {
  const int count = cuda_device_count();
  if (count == 0) throw DeviceError(cuda_unavailable_reason());
  if (options.device.index >= count)
    throw DeviceError("there is no device " + options.device.to_string() + ": the driver shows " +
                      std::to_string(count) + (count == 1 ? " CUDA device" : " CUDA devices"));
  return std::make_unique<CudaContext>(options);
}

}  // namespace convolt
