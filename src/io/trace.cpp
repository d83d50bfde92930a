#include "io/trace.h"

#include <fmt/format.h>

namespace convolt {

void Trace::Track::span(const char* name, Clock::time_point begin, Clock::time_point end) {
  constexpr size_t kMost = 100'000;  // that a viewer still opens with some dozens of tracks
  const std::lock_guard lock(mutex_);
  if (spans_.size() < kMost) spans_.push_back({name, begin, end});
}

Trace::Track& Trace::track(std::string name) {
  const std::lock_guard lock(mutex_);
  return tracks_.emplace_back(std::move(name));
}

std::string Trace::json() {
  const auto microseconds = [&](Clock::time_point t) { return 1e6 * seconds_between(start_, t); };
  const std::lock_guard lock(mutex_);
  std::string text = R"({"displayTimeUnit":"ms","traceEvents":[)";
  text += R"({"name":"process_name","ph":"M","pid":1,"tid":0,"args":{"name":"convolt"}})";
  int id = 0;
  for (Track& track : tracks_) {
    const std::lock_guard of_track(track.mutex_);
    text += fmt::format(
        ",\n"
        R"({{"name":"thread_name","ph":"M","pid":1,"tid":{},"args":{{"name":"{}"}}}})",
        ++id, track.name_);
    for (const Track::Span& s : track.spans_)
      text += fmt::format(
          ",\n"
          R"({{"name":"{}","ph":"X","pid":1,"tid":{},"ts":{:.3f},"dur":{:.3f}}})",
          s.name, id, microseconds(s.begin), microseconds(s.end) - microseconds(s.begin));
  }
  return text + "]}\n";
}

}  // namespace convolt
