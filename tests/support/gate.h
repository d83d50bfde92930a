// Holds a queue of the CPU at one point until it is let on.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "convolt/context.h"

namespace convolt::test {

// Must outlive what the queue has to do. Gives up after a minute, so that code which waits for too much fails and does
// not hang.
class Gate {
public:
  void hold(Queue& queue) {
    queue.run([this](Stream) {
      std::unique_lock lock(mutex_);
      timed_out_ = !changed_.wait_for(lock, std::chrono::minutes(1), [this] { return open_; });
    });
  }
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  // Nobody opened it.
  bool timed_out() {
    const std::lock_guard lock(mutex_);
    return timed_out_;
  }

private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false, timed_out_ = false;
};

}  // namespace convolt::test
