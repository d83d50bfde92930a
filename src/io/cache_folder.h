// Where what a start has found out is kept for the next.
#pragma once

#include <filesystem>

namespace convolt {

// $XDG_CACHE_HOME/convolt, or ~/.cache/convolt; empty where neither variable is an absolute path. Nothing is made.
std::filesystem::path cache_folder();

}  // namespace convolt
