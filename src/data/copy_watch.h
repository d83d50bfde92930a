// When the copies of batches to the device really run, for profiles.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "convolt/context.h"
#include "io/trace.h"

namespace convolt {

// A thread of its own waits for the copies, since only a host thread that waits learns when an event was reached. The
// destructor waits for those that are left.
class CopyWatch {
public:
  explicit CopyWatch(Trace::Track& track)
      : track_(track), thread_([this](const std::stop_token& stop) { work(stop); }) {}
  // A copy that begins when the one event is reached and ends when the other one is. In their order, from any thread.
  void watch(Event begin, Event end);

private:
  struct Copy {
    Event begin, end;
  };

  void work(const std::stop_token& stop);

  Trace::Track& track_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Copy> copies_;
  std::jthread thread_;  // last: it uses all of the above
};

}  // namespace convolt
