// JSON as the program writes it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace convolt::cli {

// One line. File and class names may hold any bytes: what is not UTF-8 in them is replaced.
template <class Json>
std::string json_text(const Json& j) {
  return j.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace convolt::cli
