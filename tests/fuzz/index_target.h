// The target of the index of a data set (targets.h).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace convolt::test {

void read_index(std::span<const uint8_t> bytes);
std::vector<std::vector<uint8_t>> index_seeds();

}  // namespace convolt::test
