#include "data/packed_name.h"

#include <algorithm>
#include <filesystem>

namespace convolt {
namespace {

bool part_leads_out(std::string_view part) {
  return part.empty() || part == "." || part == ".." || part.find('\0') != std::string_view::npos;
}

// Calls f(part) for what is between slashes.
template <class F>
void for_each_part(std::string_view name, const F& f) {
  for (size_t at = 0; at <= name.size();) {
    const size_t end = std::min(name.find('/', at), name.size());
    f(name.substr(at, end - at));
    at = end + 1;
  }
}

}  // namespace

bool leads_out(std::string_view name) {
  bool out = false;
  for_each_part(name, [&](std::string_view part) { out = out || part_leads_out(part); });
  return out;
}

std::string kept_inside(std::string_view name) {
  std::string kept;
  for_each_part(name, [&](std::string_view part) {
    if (part_leads_out(part)) return;
    if (!kept.empty()) kept += '/';
    kept += part;
  });
  return kept.empty() ? "unnamed" : kept;
}

std::string numbered_name(const std::string& name, int number) {
  const std::filesystem::path path(name);
  const std::string file = path.stem().string() + "-" + std::to_string(number) + path.extension().string();
  return (path.parent_path() / file).string();
}

}  // namespace convolt
