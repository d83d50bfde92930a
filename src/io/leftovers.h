// What processes that were killed leave behind.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace convolt {

// The entries of a folder whose whole name is like `pattern`, and whose process, its first group, is no more.
std::vector<std::filesystem::path> leftovers_in(const std::string& folder, const char* pattern);

}  // namespace convolt
