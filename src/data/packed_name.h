// Names of samples in a packed set, which become paths again when it is unpacked.
#pragma once

#include <string>
#include <string_view>

namespace convolt {

// Whether a name leads elsewhere than down: it has a part that is "", "." or "..", or a zero byte.
bool leads_out(std::string_view name);
// The name without such parts.
std::string kept_inside(std::string_view name);
// "a/1-2.jpg" of "a/1.jpg".
std::string numbered_name(const std::string& name, int number);

}  // namespace convolt
