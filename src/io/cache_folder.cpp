#include "io/cache_folder.h"

#include <cstdlib>

namespace convolt {

std::filesystem::path cache_folder() {
  const auto absolute = [](const char* variable) {
    const char* value = std::getenv(variable);
    return value != nullptr && *value == '/' ? std::filesystem::path(value) : std::filesystem::path();
  };
  // A relative one counts for nothing, says the XDG specification.
  if (const auto folder = absolute("XDG_CACHE_HOME"); !folder.empty()) return folder / "convolt";
  const auto home = absolute("HOME");
  return home.empty() ? home : home / ".cache" / "convolt";
}

}  // namespace convolt
