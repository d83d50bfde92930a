// The activation functions, by name.
#pragma once

#include <cstdint>

namespace convolt {

enum class Activation : uint8_t { none, relu, relu6 };

}  // namespace convolt
