// A cache folder of its own for what a test times.
#pragma once

#include <cstdlib>
#include <string>

#include "support/temp_folder.h"

namespace convolt::test {

// Makes $XDG_CACHE_HOME a fresh folder while it lives.
class CacheHome {
public:
  CacheHome() {
    if (const char* value = std::getenv("XDG_CACHE_HOME")) before_ = value;
    setenv("XDG_CACHE_HOME", folder_.path().c_str(), 1);
  }
  ~CacheHome() { before_.empty() ? unsetenv("XDG_CACHE_HOME") : setenv("XDG_CACHE_HOME", before_.c_str(), 1); }
  CacheHome(const CacheHome&) = delete;
  CacheHome& operator=(const CacheHome&) = delete;
  const TempFolder& folder() const { return folder_; }

private:
  TempFolder folder_;
  std::string before_;
};

}  // namespace convolt::test
