#include "data/copy_watch.h"

namespace convolt {

void CopyWatch::watch(Event begin, Event end) {
  const std::lock_guard lock(mutex_);
  copies_.push_back({std::move(begin), std::move(end)});
  changed_.notify_all();
}

void CopyWatch::work(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (changed_.wait(lock, stop, [this] { return !copies_.empty(); })) {
    const Copy copy = std::move(copies_.front());
    copies_.pop_front();
    lock.unlock();
    try {
      copy.begin.wait();
      const auto begin = Trace::Clock::now();
      copy.end.wait();
      track_.span("copy", begin, Trace::Clock::now());
    } catch (...) {  // belongs to whoever synchronises with the queue
    }
    lock.lock();
  }
}

}  // namespace convolt
