// Configuration files: flags of the command line as TOML 1.0, one key for each.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace convolt {

struct ConfigEntry {
  std::string key;                  // as written, "batch-size"
  std::vector<std::string> values;  // one; or the elements of an array. Numbers as the shortest decimals, true, false
  bool array = false;
  int line = 0;  // counted from 1
};

// The entries in order of the file. `name` is for messages. Keys stand at the top level and hold strings, numbers,
// booleans or arrays of these. Throws FormatError naming file, line and column.
std::vector<ConfigEntry> parse_config(std::string_view text, const std::string& name);

// The entry as a line of TOML without its end: what reads as a number or as true or false stands bare, the rest as a
// string. parse_config gives the same key and values back, as long as numbers are no longer than a double holds.
std::string format_config(const ConfigEntry& entry);

}  // namespace convolt
