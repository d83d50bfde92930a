// A loop whose iterations are independent, on several threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace convolt {

// Calls body(i) for each i in 0..n-1, in any order, on at most `threads` threads (the caller's where one is enough),
// `chunk` neighbours at a time; waits for all and rethrows the first exception.
template <class Body>
void parallel_for(int64_t n, int threads, const Body& body, int64_t chunk = 16) {
  std::atomic<int64_t> next{0};
  std::mutex mutex;
  std::exception_ptr error;
  const auto work = [&] {
    try {
      for (int64_t at = next.fetch_add(chunk); at < n; at = next.fetch_add(chunk))
        for (int64_t i = at; i < std::min(at + chunk, n); ++i) body(i);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
    }
  };
  const int64_t wanted = std::min<int64_t>(threads, (n + chunk - 1) / chunk);
  if (wanted <= 1) {
    work();
  } else {
    std::vector<std::jthread> workers;
    try {
      for (int64_t t = 0; t < wanted; ++t) workers.emplace_back(work);
    } catch (const std::system_error&) {  // no more threads are to be had: this one takes its part too
      work();
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace convolt
