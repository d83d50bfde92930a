// "evaluating 1280/50000" on one line of a terminal, a few times a second.
#pragma once

#include <unistd.h>

#include <chrono>
#include <string>

#include "say.h"

namespace convolt::cli {

class CountLine {
public:
  CountLine(std::string verb, int64_t total, bool quiet)
      : verb_(std::move(verb)), total_(total), shown_(!quiet && isatty(STDERR_FILENO) != 0) {}
  ~CountLine() {
    if (shown_) say("\r\x1b[K");
  }
  CountLine(const CountLine&) = delete;
  CountLine& operator=(const CountLine&) = delete;

  void at(int64_t done) {
    const auto now = std::chrono::steady_clock::now();
    if (!shown_ || now - last_ < std::chrono::milliseconds(100)) return;
    last_ = now;
    say("\r\x1b[K{} {}/{}", verb_, done, total_);
    std::fflush(stderr);
  }

private:
  std::string verb_;
  int64_t total_;
  bool shown_;
  std::chrono::steady_clock::time_point last_;
};

}  // namespace convolt::cli
