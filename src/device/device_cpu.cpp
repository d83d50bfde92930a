// The CPU as a device: two in-order worker threads (compute, copies), events between them, sticky errors.
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <limits>
#include <mutex>
#include <thread>
#include <utility>

#include "conv/conv.h"
#include "device/device.h"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace convolt {
namespace {

class CpuEvent final : public EventState {
public:
  explicit CpuEvent(Counters& counters) : counters_(counters) {}

  void fire(std::exception_ptr error) {
    {
      const std::lock_guard lock(mutex_);
      fired_ = true;
      error_ = std::move(error);
    }
    changed_.notify_all();
  }
  bool reached() override {
    const std::lock_guard lock(mutex_);
    return fired_;
  }
  void wait() override {
    std::unique_lock lock(mutex_);
    if (!fired_) {
      ++counters_.host_waits;
      changed_.wait(lock, [this] { return fired_; });
    }
    if (error_) std::rethrow_exception(error_);
  }
  void sleep_until_reached() override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return fired_; });
  }
  // As wait(), but for a queue's thread: not a host wait.
  void wait_in_queue() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return fired_; });
    if (error_) std::rethrow_exception(error_);
  }

private:
  Counters& counters_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool fired_ = false;
  std::exception_ptr error_;
};

class CpuQueue final : public Queue {
public:
  // compute_threads 0: a queue for copies, which never enters OpenMP.
  CpuQueue(Counters& counters, int compute_threads)
      : counters_(counters), compute_threads_(compute_threads), thread_([this] { work(); }) {}

  ~CpuQueue() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  CpuQueue(const CpuQueue&) = delete;
  CpuQueue& operator=(const CpuQueue&) = delete;

  void run(std::function<void(Stream)> work) override {
    if (compute_threads_ > 0) ++counters_.submissions;
    push({std::move(work), nullptr});
  }
  std::unique_ptr<RecordedWork> record_work(std::function<void(Stream)> work) override {
    return std::make_unique<Kept>(std::move(work));
  }
  void launch(const RecordedWork& work) override {
    ++counters_.graph_launches;
    run(static_cast<const Kept&>(work).work);
  }
  void copy(void* to, const void* from, int64_t bytes) override {
    if (bytes == 0) return;  // of nothing at a null address
    push({[=](Stream) { std::memcpy(to, from, static_cast<size_t>(bytes)); }, nullptr});
  }
  Event record() override {
    auto event = std::make_shared<CpuEvent>(counters_);
    push({nullptr, event});
    return Event(event);
  }
  void wait(const Event& event) override {
    if (!event.state()) return;
    push({[state = std::static_pointer_cast<CpuEvent>(event.state())](Stream) { state->wait_in_queue(); }, nullptr});
  }
  void synchronize() override {
    record_and_wait();
    const std::lock_guard lock(mutex_);
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

private:
  struct Kept final : RecordedWork {
    explicit Kept(std::function<void(Stream)> w) : work(std::move(w)) {}
    std::function<void(Stream)> work;
  };
  struct Task {
    std::function<void(Stream)> work;
    std::shared_ptr<CpuEvent> event;
  };

  void push(Task task) {
    {
      const std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    changed_.notify_one();
  }

  void record_and_wait() {
    try {
      record().wait();
    } catch (...) {  // the same error is thrown by synchronize, from error_
    }
  }

  void work() {
#ifdef _OPENMP
    if (compute_threads_ > 0) omp_set_num_threads(compute_threads_);
#endif
    for (;;) {
      Task task;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
        if (tasks_.empty()) return;
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
      execute(task);
    }
  }

  // After a failure the queue skips work, as a CUDA stream does, until synchronize() has reported it; events still
  // fire.
  void execute(const Task& task) {
    std::exception_ptr error;
    {
      const std::lock_guard lock(mutex_);
      error = error_;
    }
    if (task.event) return task.event->fire(error);
    if (error) return;
    try {
      task.work(Stream{});
    } catch (...) {
      const std::lock_guard lock(mutex_);
      error_ = std::current_exception();
    }
  }

  Counters& counters_;
  const int compute_threads_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Task> tasks_;
  std::exception_ptr error_;
  bool stopping_ = false;
  std::thread thread_;
};

class CpuContext final : public Context {
public:
  explicit CpuContext(const Options& options)
      : Context(options.device, options.threads), compute_(counters(), threads()), copies_(counters(), 0) {}

  std::string describe() const override {
    std::ifstream info("/proc/cpuinfo");
    std::string name = "CPU";
    for (std::string line; std::getline(info, line);)
      if (line.starts_with("model name")) {
        name = line.substr(line.find(':') + 2);
        break;
      }
    return name + " (" + std::to_string(threads()) + (threads() == 1 ? " thread)" : " threads)");
  }
  Queue& compute() override { return compute_; }
  Queue& copies() override { return copies_; }

  ConvProvider& conv() override {
    const std::lock_guard lock(conv_mutex_);
    if (!conv_) conv_ = make_onednn_provider(threads());
    return *conv_;
  }

  // What the system could give without swapping others out, and its swap space.
  int64_t free_bytes() const override {
    std::ifstream info("/proc/meminfo");
    int64_t kilobytes = 0;
    bool known = false;
    for (std::string name, line; info >> name && std::getline(info, line);)
      if (name == "MemAvailable:" || name == "SwapFree:") {
        kilobytes += std::strtoll(line.c_str(), nullptr, 10);
        known = true;
      }
    return known ? kilobytes * 1024 : std::numeric_limits<int64_t>::max();
  }

protected:
  // Large memory lies on whole huge pages and asks for them: a sweep through tensors of some 100 MB otherwise spends a
  // good part of its time on address translation.
  void* raw_allocate(int64_t bytes) override {
    constexpr int64_t kHugePage = 2 << 20;
    const int64_t alignment = bytes >= 4 * kHugePage ? kHugePage : 256;
    const auto rounded = static_cast<size_t>((bytes + alignment - 1) / alignment * alignment);
    void* memory = std::aligned_alloc(static_cast<size_t>(alignment), rounded);
    if (memory != nullptr && alignment == kHugePage) madvise(memory, rounded, MADV_HUGEPAGE);  // a wish: it may fail
    return memory;
  }
  void raw_free(void* memory) noexcept override { std::free(memory); }
  void* raw_allocate_pinned(int64_t bytes) override { return raw_allocate(bytes); }
  void raw_free_pinned(void* memory) noexcept override { std::free(memory); }

private:
  std::mutex conv_mutex_;
  std::unique_ptr<ConvProvider> conv_;
  CpuQueue compute_;
  CpuQueue copies_;
};

// Work runs where it is queued.
class CpuTimer final : public DeviceTimer {
public:
  void start(Stream) override { start_ = Clock::now(); }
  void stop(Stream) override { stop_ = Clock::now(); }
  double milliseconds() override { return std::chrono::duration<double, std::milli>(stop_ - start_).count(); }

private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_, stop_;
};

// As Linux tells it of the first core, "32768K".
int64_t read_last_cache_bytes() {
  constexpr int64_t kUnknown = int64_t{32} << 20;
  int64_t largest = 0;
  for (int i = 0; i < 8; ++i) {
    std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(i) + "/size");
    int64_t size = 0;
    char unit = ' ';
    if (file >> size >> unit) largest = std::max(largest, size << (unit == 'M' ? 20 : 10));
  }
  return largest > 0 ? largest : kUnknown;
}

}  // namespace

std::unique_ptr<DeviceTimer> make_cpu_timer() { return std::make_unique<CpuTimer>(); }

int64_t cpu_last_cache_bytes() {
  static const int64_t bytes = read_last_cache_bytes();
  return bytes;
}

std::unique_ptr<Context> make_cpu_context(const Context::Options& options) {
  if (__builtin_cpu_supports("avx2") == 0 || __builtin_cpu_supports("fma") == 0)
    throw DeviceError("this processor lacks AVX2 or FMA: Convolt's CPU code needs the x86-64-v3 instruction set");
  return std::make_unique<CpuContext>(options);
}

}  // namespace convolt
