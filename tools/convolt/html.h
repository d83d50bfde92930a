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
// The document; `body` is HTML, `title` plain text.
std::string html_page(std::string_view title, std::string_view body);

}  // namespace convolt::cli
