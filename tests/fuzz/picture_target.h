// The target of picture files (targets.h).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace convolt::test {

void read_picture(std::span<const uint8_t> bytes);
std::vector<std::vector<uint8_t>> picture_seeds();

}  // namespace convolt::test
