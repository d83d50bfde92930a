#include "flag_set.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

namespace convolt::cli {
namespace {

Rule limit(double low, bool inclusive) {
  const std::string what = fmt::format("{} {}", inclusive ? "at least" : "above", low);
  return {"(" + what + ")", [low, inclusive, what](const std::string& text) {
            const std::optional<double> value = to_number(text);
            if (!value) return fmt::format("expected a number, found '{}'", text);
            if (std::isfinite(*value) && (inclusive ? *value >= low : *value > low)) return std::string{};
            return fmt::format("expected {}, found {}", what, text);
          }};
}

}  // namespace

Rule at_least(double low) { return limit(low, true); }
Rule above(double low) { return limit(low, false); }

Rule between(double low, double high) {
  return {fmt::format("({} to {})", low, high), [low, high](const std::string& text) {
            const std::optional<double> value = to_number(text);
            if (!value) return fmt::format("expected a number, found '{}'", text);
            if (*value >= low && *value <= high) return std::string{};
            return fmt::format("expected {} to {}, found {}", low, high, text);
          }};
}

Rule one_of(std::vector<std::string> words) {
  return {"", [words = std::move(words)](const std::string& text) {
            if (std::find(words.begin(), words.end(), text) != words.end()) return std::string{};
            return fmt::format("expected one of {}, found {}", fmt::join(words, ", "), text);
          }};
}

Rule size_rule() {
  return {"", [](const std::string& text) {
            if (to_bytes(text)) return std::string{};
            return fmt::format("expected a size such as 64K, 512M or 2G, found '{}'", text);
          }};
}

// As the program prints them too: KB is 1000, K and KiB are 1024.
std::optional<int64_t> to_bytes(const std::string& text) {
  double value = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  const std::string_view unit(rest, static_cast<size_t>(end - rest));
  if (error != std::errc{} || !(value >= 0)) return std::nullopt;
  if (!unit.empty()) {
    const size_t power = std::string_view("KMGT").find(unit[0]);
    const std::string_view more = unit.substr(1);
    if (power == std::string_view::npos || (!more.empty() && more != "B" && more != "iB")) return std::nullopt;
    value *= std::pow(more == "B" ? 1000.0 : 1024.0, static_cast<double>(power + 1));
  }
  if (value > 0x1p62) return std::nullopt;
  return std::llround(value);
}

std::optional<double> to_number(const std::string& text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  if (result.ec != std::errc{} || result.ptr != end) return std::nullopt;
  return value;
}

Flag& Flag::required(bool yes) {
  option_->required(yes);
  return *this;
}
Flag& Flag::check(const Rule& rule) {
  option_->check(CLI::Validator([broken = rule.broken](std::string& text) { return broken(text); }, rule.description));
  return *this;
}
Flag& Flag::hide_default() {
  option_->default_str("");
  return *this;
}
Flag& Flag::delimiter(char c) {
  option_->delimiter(c);
  return *this;
}
Flag& Flag::expected(int count) {
  option_->expected(count);
  return *this;
}
Flag& Flag::expected(int low, int high) {
  option_->expected(low, high);
  return *this;
}
Flag& Flag::needs(const Flag& other) {
  option_->needs(other.option_);
  return *this;
}
Flag& Flag::excludes(const Flag& other) {
  option_->excludes(other.option_);
  return *this;
}
Flag& Flag::describe(const std::string& help) {
  option_->description(help);
  return *this;
}

FlagSet::FlagSet(CLI::App& program, const std::string& name, const std::string& help)
    : app_(program.add_subcommand(name, help)) {}
void FlagSet::require_subcommand() { app_->require_subcommand(1); }
bool FlagSet::parsed() const { return app_->parsed(); }

template <class T>
Flag FlagSet::option(const std::string& names, T& value, const std::string& help) {
  CLI::Option* option = app_->add_option(names, value, help)->group(group_);
  if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) option->capture_default_str();
  // CLI11 takes -1 for 2^64 - 1, and what is larger too.
  if constexpr (std::is_same_v<T, uint64_t>)
    option->check(CLI::Validator(
        [](std::string& text) {
          uint64_t number = 0;
          const char* const end = text.data() + text.size();
          const auto result = std::from_chars(text.data(), end, number);
          return std::string(result.ec == std::errc{} && result.ptr == end
                                 ? ""
                                 : "expected a whole number from 0 to 2^64 - 1, found " + text);
        },
        ""));
  return Flag(option);
}
template Flag FlagSet::option(const std::string&, int&, const std::string&);
template Flag FlagSet::option(const std::string&, int64_t&, const std::string&);
template Flag FlagSet::option(const std::string&, uint64_t&, const std::string&);
template Flag FlagSet::option(const std::string&, float&, const std::string&);
template Flag FlagSet::option(const std::string&, double&, const std::string&);
template Flag FlagSet::option(const std::string&, std::string&, const std::string&);
template Flag FlagSet::option(const std::string&, std::optional<int>&, const std::string&);
template Flag FlagSet::option(const std::string&, std::optional<float>&, const std::string&);
template Flag FlagSet::option(const std::string&, std::optional<double>&, const std::string&);
template Flag FlagSet::option(const std::string&, std::optional<std::string>&, const std::string&);
template Flag FlagSet::option(const std::string&, std::vector<float>&, const std::string&);
template Flag FlagSet::option(const std::string&, std::vector<double>&, const std::string&);
template Flag FlagSet::option(const std::string&, std::vector<std::string>&, const std::string&);

Flag FlagSet::option(const std::string& names, const std::string& help) {
  return Flag(app_->add_option(names, help)->group(group_));
}

Flag FlagSet::toggle(const std::string& names, bool& value, const std::string& help) {
  return Flag(app_->add_flag(names, value, help)->group(group_));
}

Flag FlagSet::find(const std::string& name) const { return Flag(app_->get_option(name)); }
bool FlagSet::has(const std::string& name) const { return app_->get_option_no_throw(name) != nullptr; }
bool FlagSet::given(const std::string& name) const { return app_->get_option(name)->count() > 0; }
void FlagSet::footer(const std::string& text) { app_->footer(text); }

}  // namespace convolt::cli
