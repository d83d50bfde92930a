// Comma-separated values (RFC 4180).
#pragma once

#include <string>

namespace convolt {

// A field as it stands in a line: in quotes where it has commas, quotes or line breaks.
std::string csv_field(const std::string& text);

}  // namespace convolt
