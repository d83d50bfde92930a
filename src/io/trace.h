// Spans of time on tracks, for chrome://tracing and https://ui.perfetto.dev.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

namespace convolt {

// Thread-safe.
class Trace {
public:
  using Clock = std::chrono::steady_clock;

  // What one thread did, or one queue. Of one user at a time.
  class Track {
  public:
    explicit Track(std::string name) : name_(std::move(name)) {}
    // `name` is a literal. The first 100,000 spans are kept.
    void span(const char* name, Clock::time_point begin, Clock::time_point end);

  private:
    friend class Trace;
    struct Span {
      const char* name;
      Clock::time_point begin, end;
    };
    const std::string name_;
    std::mutex mutex_;
    std::vector<Span> spans_;
  };

  // A new track, which lives as long as the trace.
  Track& track(std::string name);
  // The trace so far in the JSON format of Chrome's trace viewer: complete events ("ph": "X"), in microseconds since
  // the trace was made, each track a thread of one process.
  std::string json();

private:
  const Clock::time_point start_ = Clock::now();
  std::mutex mutex_;
  std::deque<Track> tracks_;
};

inline double seconds_between(Trace::Clock::time_point begin, Trace::Clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

}  // namespace convolt
