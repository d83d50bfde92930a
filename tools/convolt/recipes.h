// The files of recipes/, which the program carries: --recipe NAME.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace convolt::cli {

// Names (of the files without .toml) and texts, sorted. Made by CMake.
const std::vector<std::pair<std::string_view, std::string_view>>& recipes();
// The text of one. Throws UsageError for a name that is none.
std::string_view find_recipe(const std::string& name);
// "a, b or c".
std::string recipe_names();

}  // namespace convolt::cli
