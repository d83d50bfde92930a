#include "io/npy.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string_view>

#include "convolt/error.h"
#include "io/atomic_file.h"

namespace convolt {
namespace {

// The value of a key of the header, a Python dictionary of plain literals: up to the comma, brace or bracket that ends
// it.
std::string_view value_of(std::string_view header, std::string_view key) {
  for (const char quote : {'\'', '"'}) {
    const std::string quoted = quote + std::string(key) + quote;
    const size_t at = header.find(quoted);
    if (at == std::string_view::npos) continue;
    const size_t colon = header.find(':', at + quoted.size());
    const size_t first = colon == std::string_view::npos ? colon : header.find_first_not_of(' ', colon + 1);
    if (first == std::string_view::npos) return {};
    const char open = header[first];
    const size_t end = open == '\'' || open == '"' ? header.find(open, first + 1)
                       : open == '('               ? header.find(')', first)
                                                   : header.find_first_of(",}", first);
    if (end == std::string_view::npos) return {};
    const bool plain = open != '\'' && open != '"' && open != '(';
    return plain ? header.substr(first, end - first) : header.substr(first + 1, end - first - 1);
  }
  return {};
}

// "60000, 28, 28" or "5,": false where it is anything else, or too large.
bool read_shape(std::string_view text, std::vector<int64_t>& shape) {
  int64_t elements = 1;
  while (text.find_first_not_of(" ,") != std::string_view::npos) {
    text.remove_prefix(text.find_first_not_of(" ,"));
    int64_t extent = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), extent);
    if (error != std::errc() || extent < 0 || __builtin_mul_overflow(elements, std::max<int64_t>(extent, 1), &elements))
      return false;
    shape.push_back(extent);
    text.remove_prefix(static_cast<size_t>(end - text.data()));
  }
  return elements < int64_t{1} << 62;
}

}  // namespace

NpyHeader read_npy_header(std::span<const uint8_t> begin, const std::string& name) {
  const auto refuse = [&](const char* why) -> FormatError { return FormatError(name + ": " + why); };
  const std::string_view text(reinterpret_cast<const char*>(begin.data()), begin.size());
  if (!text.starts_with("\x93NUMPY") || text.size() < 12) throw refuse("is no .npy file: it does not begin as one");
  const bool long_header = begin[6] >= 2;
  if (begin[6] < 1 || begin[6] > 3) throw refuse("is an .npy of an unknown version; expected 1, 2 or 3");
  const size_t first = long_header ? 12 : 10;
  size_t length = begin[8] | static_cast<size_t>(begin[9]) << 8;
  if (long_header) length |= static_cast<size_t>(begin[10]) << 16 | static_cast<size_t>(begin[11]) << 24;
  if (length > 1 << 16 || text.size() < first + length) throw refuse("ends within the header of its array");
  const std::string_view header = text.substr(first, length);
  NpyHeader h;
  h.type = value_of(header, "descr");
  h.fortran_order = value_of(header, "fortran_order").starts_with("True");
  if (h.type.empty() || header.find("shape") == std::string_view::npos ||
      !read_shape(value_of(header, "shape"), h.shape))
    throw refuse("has a header that makes no sense");
  h.data = static_cast<int64_t>(first + length);
  return h;
}

void write_npy(const std::string& path, std::span<const float> values, int64_t rows, int64_t columns) {
  int64_t expected = 0;
  if (rows < 0 || columns < 0 || __builtin_mul_overflow(rows, columns, &expected) ||
      values.size() != static_cast<size_t>(expected))
    throw UsageError(
        fmt::format("cannot write {}: expected {} x {} values, found {}", path, rows, columns, values.size()));
  std::string header = fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows, columns);
  constexpr size_t kPrefix = 10, kAlignment = 64;
  header.resize((kPrefix + header.size() + 1 + kAlignment - 1) / kAlignment * kAlignment - kPrefix - 1, ' ');
  header += '\n';
  const std::string prefix{'\x93',
                           'N',
                           'U',
                           'M',
                           'P',
                           'Y',
                           '\x01',
                           '\x00',
                           static_cast<char>(header.size() & 0xff),
                           static_cast<char>(header.size() >> 8)};
  AtomicFile file(path);
  file.write(prefix + header);
  file.write(std::as_bytes(values));
  file.commit();
}

}  // namespace convolt
