#include "models/network_json.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "convolt/error.h"
#include "io/json_reason.h"

namespace convolt {
namespace {

using nlohmann::json;

constexpr int kDeepest = 64;

// Refuses what nlohmann-json takes: a key twice, of which it keeps the last, and objects in objects so deep that the
// writing of an error would run out of stack.
class WatchedParse {
public:
  explicit WatchedParse(std::string file) : file_(std::move(file)) {}
  bool operator()(int depth, json::parse_event_t event, const json& parsed) {
    if (depth > kDeepest) throw FormatError(fmt::format("{}: it has more than {} lists in lists", file_, kDeepest));
    if (event == json::parse_event_t::object_start) keys_.emplace_back();
    if (event == json::parse_event_t::object_end) keys_.pop_back();
    if (event == json::parse_event_t::key && !keys_.back().insert(parsed.get<std::string>()).second)
      throw FormatError(
          fmt::format("{}: an object has two '{}'", file_, parsed.get<std::string>().substr(0, kLongestName)));
    return true;
  }

private:
  std::string file_;
  std::vector<std::set<std::string>> keys_;  // of the objects that are open
};

}  // namespace

json parse_network_json(const std::string& file, const std::string& text) {
  if (text.size() > static_cast<size_t>(kLargestNetworkFile))
    throw FormatError(fmt::format("{}: expected at most {} bytes, found {}", file, kLargestNetworkFile, text.size()));
  try {
    return json::parse(text, WatchedParse(file));
  } catch (const json::exception& e) {
    throw FormatError(fmt::format("{}: it is not JSON: {}", file, json_reason(e.what())));
  }
}

}  // namespace convolt
