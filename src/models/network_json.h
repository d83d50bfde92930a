// The text of a network file as JSON.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace convolt {

// What a key or a text of a network file may have at most, in bytes.
constexpr size_t kLongestName = 256;
// Of a whole file, in bytes.
constexpr int64_t kLargestNetworkFile = int64_t{4} << 20;

// Throws FormatError that names `file` for what is too large or no JSON, and for what nlohmann-json takes though it
// means nothing: a key twice in an object, and lists in lists deeper than any network has them.
nlohmann::json parse_network_json(const std::string& file, const std::string& text);

}  // namespace convolt
