// The targets of archives as data sets (targets.h).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace convolt::test {

void read_tar(std::span<const uint8_t> bytes);
void read_zip(std::span<const uint8_t> bytes);
std::vector<std::vector<uint8_t>> tar_seeds();
std::vector<std::vector<uint8_t>> zip_seeds();

}  // namespace convolt::test
