#include "text_table.h"

#include <algorithm>
#include <cstdint>

namespace convolt::cli {
namespace {

constexpr uint32_t kReplacement = 0xFFFD;

struct Character {
  size_t bytes;
  uint32_t code;
};

// The first character of a text that is not empty; a byte that does not begin valid UTF-8 (RFC 3629) is alone.
Character first_character(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<uint8_t>(text[i]) : uint8_t{0}; };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {1, lead};
  const size_t bytes = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4) return {1, kReplacement};
  uint32_t code = lead & (0x7FU >> bytes);
  for (size_t i = 1; i < bytes; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {1, kReplacement};
    code = code << 6 | (byte(i) & 0x3FU);
  }
  constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (code < kSmallest[bytes] || (code >= 0xD800 && code <= 0xDFFF) || code > 0x10FFFF) return {1, kReplacement};
  return {bytes, code};
}

template <class Take>
void for_each_character(std::string_view text, const Take& take) {
  while (!text.empty()) {
    const Character c = first_character(text);
    take(c.code == kReplacement ? std::string_view("\xEF\xBF\xBD") : text.substr(0, c.bytes), c.code);
    text.remove_prefix(c.bytes);
  }
}

// The blocks that matter of Unicode's East Asian Width (UAX #11), and of combining marks.
size_t columns_of(uint32_t code) {
  struct Range {
    uint32_t first, last;
  };
  constexpr Range kNone[] = {{0x300, 0x36F}, {0x1AB0, 0x1AFF}, {0x200B, 0x200F}, {0x20D0, 0x20FF}, {0xFE00, 0xFE0F}};
  constexpr Range kWide[] = {{0x1100, 0x115F},   {0x2E80, 0x303E},   {0x3041, 0xA4CF},  {0xAC00, 0xD7A3},
                             {0xF900, 0xFAFF},   {0xFE30, 0xFE6F},   {0xFF00, 0xFF60},  {0xFFE0, 0xFFE6},
                             {0x1F300, 0x1F64F}, {0x1F900, 0x1F9FF}, {0x20000, 0x3FFFD}};
  const auto holds = [code](const Range& r) { return code >= r.first && code <= r.last; };
  if (std::ranges::any_of(kNone, holds)) return 0;
  return std::ranges::any_of(kWide, holds) ? 2 : 1;
}

}  // namespace

std::string printable(std::string_view text) {
  std::string shown;
  for_each_character(text, [&](std::string_view bytes, uint32_t code) {
    const bool control = code < 0x20 || (code >= 0x7F && code < 0xA0);
    shown += control ? std::string_view("?") : bytes;
  });
  return shown;
}

size_t columns_of(std::string_view text) {
  size_t columns = 0;
  for_each_character(text, [&](std::string_view, uint32_t code) { columns += columns_of(code); });
  return columns;
}

std::string cut(std::string_view text, size_t columns) {
  if (columns_of(text) <= columns) return std::string(text);
  std::string kept;
  size_t used = 1;  // of the dots
  bool full = false;
  for_each_character(text, [&](std::string_view bytes, uint32_t code) {
    full = full || used + columns_of(code) > columns;
    if (full) return;
    used += columns_of(code);
    kept += bytes;
  });
  return kept + "…";
}

std::string TextTable::text() const {
  std::vector<size_t> widths;
  for (const auto& cells : rows_) {
    widths.resize(std::max(widths.size(), cells.size()));
    for (size_t i = 0; i < cells.size(); ++i) widths[i] = std::max(widths[i], columns_of(cells[i]));
  }
  std::string all;
  for (const auto& cells : rows_) {
    std::string line;
    for (size_t i = 0; i < cells.size(); ++i) {
      const std::string space(widths[i] - columns_of(cells[i]), ' ');
      line += i == 0 ? cells[i] + space : "  " + space + cells[i];
    }
    line.erase(line.find_last_not_of(' ') + 1);
    all += line + "\n";
  }
  return all;
}

}  // namespace convolt::cli
