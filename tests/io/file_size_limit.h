#pragma once

#include <sys/resource.h>

#include <csignal>

namespace convolt::test {

// No file may grow beyond `bytes` while this lives: a full disk, as far as write(2) tells. Undone before gtest writes
// its report.
class FileSizeLimit {
public:
  explicit FileSizeLimit(rlim_t bytes) {
    old_handler_ = std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old_limit_);
    const rlimit limit{bytes, old_limit_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &old_limit_);
    std::signal(SIGXFSZ, old_handler_);
  }

private:
  rlimit old_limit_{};
  void (*old_handler_)(int) = nullptr;
};

}  // namespace convolt::test
