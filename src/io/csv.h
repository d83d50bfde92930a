// Comma-separated values (RFC 4180), and with tabs in place of commas.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace convolt {

// A field as it stands in a line: in quotes where it has commas, quotes or line breaks.
std::string csv_field(const std::string& text);

// Calls f(line, fields) for each record of `text`, with the number, from 1, of the line that it begins in. Fields may
// be in quotes, and then hold separators, line breaks and doubled quotes; lines end in \n or \r\n; empty ones are
// passed over, and so is a byte order mark. Throws FormatError with the line where quotes are not closed or text
// follows them.
void read_csv(std::string_view text, char separator,
              const std::function<void(int64_t line, std::vector<std::string>& fields)>& f);

}  // namespace convolt
