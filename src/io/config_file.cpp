#include "io/config_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>

namespace {
// toml++ 3.3 asserts in places that odd input reaches.
struct TomlGaveUp {};
}  // namespace
#define TOML_ASSERT(expression) ((expression) ? void() : throw TomlGaveUp{})
#define TOML_ENABLE_FORMATTERS 0
#define TOML_ENABLE_WINDOWS_COMPAT 0
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wterminate"  // of those in noexcept functions, which only a fault of its own reaches
#include <toml++/toml.h>
#pragma GCC diagnostic pop

#include "convolt/error.h"

namespace convolt {
namespace {

[[noreturn]] void refuse(const std::string& name, const toml::source_position& at, const std::string& what) {
  throw FormatError(fmt::format("{}:{}:{}: {}", name, at.line, at.column, what));
}

std::string scalar(const toml::node& node, const std::string& name, const std::string& key) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* number = node.as_integer()) return fmt::format("{}", number->get());
  if (const auto* number = node.as_floating_point()) return fmt::format("{}", number->get());
  if (const auto* flag = node.as_boolean()) return flag->get() ? "true" : "false";
  refuse(name, node.source().begin,
         fmt::format("'{}' holds {}; expected a string, a number, true or false, or an array of these", key,
                     node.is_table()   ? "a table"
                     : node.is_array() ? "an array in an array"
                                       : "a date or time"));
}

// TOML wants basic strings escaped.
std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\')
      out += fmt::format("\\{}", c);
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    else
      out += c;
  }
  return out + "\"";
}

// Whether a reader that parses the text as a number and prints it gets the same text.
bool is_number(const std::string& text) {
  const char* end = text.data() + text.size();
  int64_t integer = 0;
  if (const auto r = std::from_chars(text.data(), end, integer); r.ec == std::errc{} && r.ptr == end)
    return fmt::format("{}", integer) == text;
  double real = 0;
  const auto r = std::from_chars(text.data(), end, real);
  return r.ec == std::errc{} && r.ptr == end && std::isfinite(real) && fmt::format("{}", real) == text;
}

std::string value_text(const std::string& value) {
  return value == "true" || value == "false" || is_number(value) ? value : quoted(value);
}

}  // namespace

std::vector<ConfigEntry> parse_config(std::string_view text, const std::string& name) {
  toml::table table;
  try {
    table = toml::parse(text);
  } catch (const toml::parse_error& e) {
    refuse(name, e.source().begin, std::string(e.description()));
  } catch (const TomlGaveUp&) {
    throw FormatError(name + ": this is not TOML");
  }
  std::vector<ConfigEntry> entries;
  for (const auto& [key, node] : table) {
    ConfigEntry entry{.key = std::string(key.str()), .line = static_cast<int>(key.source().begin.line)};
    if (const toml::array* array = node.as_array()) {
      entry.array = true;
      for (const toml::node& element : *array) entry.values.push_back(scalar(element, name, entry.key));
    } else {
      entry.values.push_back(scalar(node, name, entry.key));
    }
    entries.push_back(std::move(entry));
  }
  std::stable_sort(entries.begin(), entries.end(),
                   [](const ConfigEntry& a, const ConfigEntry& b) { return a.line < b.line; });
  return entries;
}

std::string format_config(const ConfigEntry& entry) {
  std::vector<std::string> values;
  for (const std::string& value : entry.values) values.push_back(value_text(value));
  const std::string text = fmt::format("{}", fmt::join(values, ", "));
  return entry.key + " = " + (entry.array ? "[" + text + "]" : text);
}

}  // namespace convolt
