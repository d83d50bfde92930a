// What the program says beside its results.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <string>
#include <utility>

namespace convolt::cli {

// Prints to stderr. What cannot be written there, since the terminal is gone or the disk is full, is lost: a training
// goes on.
template <class... Args>
void say(fmt::format_string<Args...> format, Args&&... args) {
  const std::string text = fmt::format(format, std::forward<Args>(args)...);
  std::fwrite(text.data(), 1, text.size(), stderr);
}

}  // namespace convolt::cli
