// Pixels as a PNG file.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace convolt {

// `pixels`: u8 [height, width, channels], RGB or grey, rows packed. Throws OutOfMemoryError.
std::string encode_png(std::span<const uint8_t> pixels, int height, int width, int channels);

}  // namespace convolt
