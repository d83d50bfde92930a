// Text for terminals: names of any kind made printable, in columns that line up.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace convolt::cli {

// As it can be shown on a line: valid UTF-8 (what is not becomes U+FFFD), control characters as '?'.
std::string printable(std::string_view text);
// Columns on a terminal: East Asian wide characters take two, combining marks none.
size_t columns_of(std::string_view text);
// At most so many columns, the end as "…" where it is longer.
std::string cut(std::string_view text, size_t columns);

// Rows of cells: the first column to the left, the others to the right, two spaces between.
class TextTable {
public:
  void row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  // Each row ends with a newline; no trailing spaces.
  std::string text() const;

private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace convolt::cli
