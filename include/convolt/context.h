// A device and its queues. There is no default device, no default stream and no global state.
//
// The CPU is a device like the GPU: work is handed to an in-order asynchronous queue (a worker thread), copies go to a
// second queue, events order the two, and an error inside queued work surfaces at the next synchronisation of that
// queue.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "convolt/dtype.h"
#include "convolt/error.h"

namespace convolt {

// Which device: the CPU, or a CUDA device by its number.
constexpr int kMostThreads = 1024;  // of a context, or that decode: more would be a mistake

struct Device {
  // The kinds of devices.
  enum class Type : uint8_t { cpu, cuda };
  Type type = Type::cpu;  // the kind
  int index = 0;          // among those of its kind

  // The CPU, and a CUDA device (which need not exist: Context::create() finds out).
  static Device cpu() { return {Type::cpu, 0}; }
  static Device cuda(int index = 0) { return {Type::cuda, index}; }
  // The first CUDA device where one can be used, else the CPU.
  static Device best();
  // "cpu", "cuda", "cuda:1"; throws UsageError for anything else.
  static Device parse(std::string_view text);
  // "cpu", "cuda:1".
  std::string to_string() const;
  bool is_cuda() const { return type == Type::cuda; }
  friend bool operator==(const Device&, const Device&) = default;
};

// How many CUDA devices can be used, 0 where the program was built without CUDA or finds no driver.
int cuda_device_count();
// Why cuda_device_count() is 0, in one sentence; empty when it is not.
std::string cuda_unavailable_reason();

// Where a kernel runs, passed to every kernel function: on a CUDA stream, or here and now on the calling thread (and
// the OpenMP threads it leads) when `cuda` is false. Code inside Queue::run receives one; nobody else makes one but
// tests.
struct Stream {
  bool cuda = false;            // on a CUDA stream
  void* handle = nullptr;       // cudaStream_t
  int32_t* counters = nullptr;  // kStreamCounters zeros in device memory, for kernels that leave them zero; CUDA
};
// How many counters a stream has.
constexpr int kStreamCounters = 4096;

struct EventState;

// A point in a queue's work. Copies share the point. Default-constructed: already reached.
class Event {
public:
  Event() = default;
  // For queues.
  explicit Event(std::shared_ptr<EventState> state) : state_(std::move(state)) {}
  // True once the queue has passed the point. Does not wait.
  bool reached() const;
  // Blocks the calling thread until the point is passed; counted in Counters::host_waits when it was not yet passed.
  // Throws the error of the work before the point, if any.
  void wait() const;
  // The same for a thread that has nothing else to do: it sleeps, is not counted, and leaves an error of the work to
  // whoever waits for that.
  void sleep_until_reached() const;
  const std::shared_ptr<EventState>& state() const { return state_; }

private:
  std::shared_ptr<EventState> state_;
};

// Work that a queue has recorded, to be launched any number of times; of that queue.
class RecordedWork {
public:
  virtual ~RecordedWork() = default;
};

// An in-order queue of asynchronous work on one device. Thread-safe: any thread may submit.
class Queue {
public:
  virtual ~Queue() = default;
  // CPU: `work` runs later on the queue's thread. CUDA: `work` runs now, on the caller's thread, and what it launches
  // on the stream runs later. Either way everything that `work` refers to must live until the queue has passed it.
  virtual void run(std::function<void(Stream)> work) = 0;
  // Records what `work` would do, now and on the caller's thread, without doing it: CUDA launches become one graph,
  // whose arguments are those of this moment. On the CPU `work` is kept, and does it at each launch. Throws what `work`
  // throws and DeviceError where the device refuses. launch() submits it as one piece; counted in
  // Counters::graph_launches.
  virtual std::unique_ptr<RecordedWork> record_work(std::function<void(Stream)> work) = 0;
  virtual void launch(const RecordedWork& work) = 0;
  // Copies `bytes` in queue order; either side may be device memory or (pinned) host memory of this context.
  virtual void copy(void* to, const void* from, int64_t bytes) = 0;
  // Marks the point after everything submitted so far.
  virtual Event record() = 0;
  // Work submitted from now on runs after `event` is reached; the calling thread does not wait.
  virtual void wait(const Event& event) = 0;
  // Blocks until all submitted work is done and throws the first error it raised (once). Counted in
  // Counters::host_waits.
  virtual void synchronize() = 0;
};

// What has been asked of a context; all monotonic but the *_bytes. Read by tests that prove what a step does not do.
struct Counters {
  // Requests for memory of the device and for pinned memory of the host; bytes asked for and not yet freed, and the
  // most that was so at once.
  std::atomic<int64_t> device_allocations{0};
  std::atomic<int64_t> device_bytes{0};
  std::atomic<int64_t> device_bytes_peak{0};
  // Device memory that is held for a while, to time kernels in; the device_* above leave it out. How many convolutions
  // and linear layers had their kernels timed.
  std::atomic<int64_t> tuning_bytes{0};
  std::atomic<int64_t> tuning_bytes_peak{0};
  std::atomic<int64_t> tunings{0};
  std::atomic<int64_t> pinned_allocations{0};
  std::atomic<int64_t> pinned_bytes{0};
  std::atomic<int64_t> host_waits{0};      // times a host thread really blocked on the device
  std::atomic<int64_t> submissions{0};     // closures (CPU) or Queue::run calls (CUDA) handed to the compute queue
  std::atomic<int64_t> graph_launches{0};  // of recorded work
};

class ConvProvider;  // src/conv/conv.h

// Owns a device's queues, allocators and library handles. Thread-safe. Must outlive everything made from it.
class Context {
public:
  // What create() is asked for.
  struct Options {
    Device device = Device::cpu();  // must exist
    // CPU compute threads, at most kMostThreads; 0 for all cores. Results on the CPU are bitwise repeatable for one
    // number of threads.
    int threads = 0;
  };
  // Throws DeviceError (with what is missing) when the device cannot be used, UsageError for options out of range.
  static std::unique_ptr<Context> create(const Options& options);
  static std::unique_ptr<Context> create(Device device) { return create(Options{device, 0}); }
  virtual ~Context() = default;

  // What create() was asked for.
  const Device& device() const { return device_; }
  // "AMD EPYC (2 threads)", "NVIDIA H200".
  virtual std::string describe() const = 0;
  // The driver of the device, "driver for CUDA 13.0"; empty where there is none.
  virtual std::string driver() const { return {}; }
  // CPU compute threads.
  int threads() const { return threads_; }
  // The queue of kernels, the queue of copies beside it, and what was asked of both. The context's own.
  virtual Queue& compute() = 0;
  virtual Queue& copies() = 0;
  Counters& counters() { return counters_; }
  // True when CONVOLT_SYNC=1: each op is synchronised and named if it fails.
  bool synchronous() const { return synchronous_; }

  // Memory of the device, 256-byte aligned, uninitialised; bytes may be 0 (returns nullptr). Throws OutOfMemoryError.
  void* allocate(int64_t bytes);
  void free(void* memory, int64_t bytes) noexcept;
  // The same for tuning, which is counted apart.
  void* allocate_for_tuning(int64_t bytes);
  void free_of_tuning(void* memory, int64_t bytes) noexcept;
  // Host memory that copies to and from the device asynchronously. On the CPU: ordinary aligned memory.
  void* allocate_pinned(int64_t bytes);
  void free_pinned(void* memory, int64_t bytes) noexcept;

  // Memory of the device that is free now, as far as its system knows.
  virtual int64_t free_bytes() const = 0;

  // The convolution and matrix-product library of this device, made at first use.
  virtual ConvProvider& conv() = 0;

protected:
  // For the kinds of devices: the memory behind allocate() and its like; nullptr when there is not enough.
  Context(Device device, int threads);
  virtual void* raw_allocate(int64_t bytes) = 0;
  virtual void raw_free(void* memory) noexcept = 0;
  virtual void* raw_allocate_pinned(int64_t bytes) = 0;
  virtual void raw_free_pinned(void* memory) noexcept = 0;

private:
  void* device_memory(int64_t bytes, std::atomic<int64_t>& held, std::atomic<int64_t>& peak);
  Device device_;
  int threads_;
  bool synchronous_;
  Counters counters_;
};

// Owns device memory (or pinned host memory) of a context. Move-only.
class Buffer {
public:
  // Of the device; of the host and pinned; of the device, for tuning.
  enum class Kind : uint8_t { device, pinned, tuning };
  Buffer() = default;
  // Uninitialised memory; the context must outlive it. Throws OutOfMemoryError.
  Buffer(Context& context, int64_t bytes, Kind kind = Kind::device);
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  // Its address, null when it is empty; its size; the address as that of elements.
  void* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

private:
  Context* context_ = nullptr;
  void* data_ = nullptr;
  int64_t bytes_ = 0;
  Kind kind_ = Kind::device;
};

}  // namespace convolt
