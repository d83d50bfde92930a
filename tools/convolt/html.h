// One HTML file that needs nothing else: text made safe, pictures inside, readable in light and in dark.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace convolt::cli {

// Any bytes as text of an element or of a quoted attribute.
std::string html(std::string_view text);
// RFC 4648.
std::string base64(std::span<const uint8_t> bytes);
// A figure in large print, what it counts, and a word more below; all three are plain text.
std::string tile(std::string_view value, std::string_view what, std::string_view more = {});
// A box; `title` and `body` are HTML.
std::string panel(std::string_view title, std::string_view body);
// The document; `body` is HTML, `title` plain text.
std::string html_page(std::string_view title, std::string_view body);

}  // namespace convolt::cli
