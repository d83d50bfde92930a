// The decoders behind decode(): each fills packed RGB rows as stored (not turned) and throws DataError with the reason.
#pragma once

#include <cstdint>
#include <span>

#include "data/decode.h"

namespace convolt {

// A JPEG decoded at 1 / `scale` (1, 2, 4 or 8) by its DCT: [ceil(height / scale), ceil(width / scale), 3].
// libjpeg-turbo directly, since OpenCV returns half a picture for a truncated file.
void decode_jpeg(std::span<const uint8_t> file, const PictureHeader& header, int scale, double max_seconds,
                 uint8_t* rgb);

// A PNG at its own size. libpng directly, since OpenCV lets it write warnings to stderr.
void decode_png(std::span<const uint8_t> file, const PictureHeader& header, uint8_t* rgb);

}  // namespace convolt
