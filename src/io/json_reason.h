// What nlohmann-json found wrong.
#pragma once

#include <string>
#include <string_view>

namespace convolt {

// Its error's text without the code at its beginning: "[json.exception.parse_error.101] parse error at line 3, ...".
inline std::string json_reason(std::string_view what) {
  const size_t end = what.find("] ");
  return std::string(end == std::string_view::npos ? what : what.substr(end + 2));
}

}  // namespace convolt
