#include "io/leftovers.h"

#include <csignal>

#include <cerrno>
#include <charconv>
#include <regex>

namespace convolt {
namespace {

bool is_gone(const std::string& process) {
  pid_t id = 0;
  std::from_chars(process.data(), process.data() + process.size(), id);  // stays 0, our own group, for too large a one
  return ::kill(id, 0) != 0 && errno == ESRCH;
}

}  // namespace

std::vector<std::filesystem::path> leftovers_in(const std::string& folder, const char* pattern) {
  const std::regex name_pattern(pattern);
  std::vector<std::filesystem::path> found;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename();
    if (std::smatch parts; std::regex_match(name, parts, name_pattern) && is_gone(parts[1]))
      found.push_back(entry.path());
  }
  return found;
}

}  // namespace convolt
