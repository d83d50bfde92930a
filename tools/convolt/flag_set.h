// The flags of a subcommand. A thin face of CLI11, whose header takes seconds to compile wherever it is included.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace convolt::cli {

// What the text of a flag must be.
struct Rule {
  std::string description;                                // for --help; may be empty
  std::function<std::string(const std::string&)> broken;  // what is wrong with a text, empty when nothing is
};
Rule at_least(double low);
Rule above(double low);
Rule between(double low, double high);
Rule one_of(std::vector<std::string> words);
Rule size_rule();  // what to_bytes() takes

// The number that the whole text is, if it is one.
std::optional<double> to_number(const std::string& text);
// The size that the whole text is, if it is one: 4096, 64K, 512M or 2G, of 1024 each.
std::optional<int64_t> to_bytes(const std::string& text);

// One flag. Belongs to its FlagSet.
class Flag {
public:
  explicit Flag(CLI::Option* option) : option_(option) {}

  Flag& required(bool yes = true);
  Flag& check(const Rule& rule);
  // Of a value that stands for "none given", such as 0 classes.
  Flag& hide_default();
  // Several values in one word, as in 1,2,3.
  Flag& delimiter(char c);
  Flag& expected(int count);
  Flag& expected(int low, int high);
  Flag& needs(const Flag& other);
  Flag& excludes(const Flag& other);
  Flag& describe(const std::string& help);

private:
  CLI::Option* option_;
};

// A handle: copies are of the same subcommand.
class FlagSet {
public:
  // Adds a subcommand to `program` (or to another subcommand), which owns it.
  FlagSet(CLI::App& program, const std::string& name, const std::string& help);
  // It does nothing by itself: one of its own subcommands must follow.
  void require_subcommand();
  // Whether the command line named it.
  bool parsed() const;

  // Flags added from here on stand in --help under this heading.
  void group(const std::string& heading) { group_ = heading; }

  // `names` are as "-b,--batch-size", or "pictures" for what stands without a dash. T is one of those that flag_set.cpp
  // lists. The value is written when the command line is parsed, so it must live until then; what a number or a text
  // holds now is shown as the default.
  template <class T>
  Flag option(const std::string& names, T& value, const std::string& help);
  // Without a place for the value: with_config() has read it.
  Flag option(const std::string& names, const std::string& help);
  // True where given; "!--no-x" among the names makes it false.
  Flag toggle(const std::string& names, bool& value, const std::string& help);

  Flag find(const std::string& name) const;
  bool has(const std::string& name) const;
  bool given(const std::string& name) const;
  void footer(const std::string& text);

  CLI::App& app() const { return *app_; }

private:
  CLI::App* app_;
  std::string group_ = "Options";
};

}  // namespace convolt::cli
