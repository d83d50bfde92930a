// Large numbers for people.
#pragma once

#include <string>

namespace convolt {

// "9.3 GB" of 9.28e9 and "B"; decimal prefixes.
std::string readable(double value, const char* unit);

}  // namespace convolt
