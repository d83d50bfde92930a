// The decoders behind decode(): each fills packed rows as stored (not turned) and throws DataError with the reason.
#pragma once

#include <cstdint>
#include <span>

#include "data/decode.h"

namespace convolt {

// Whether a JPEG of so many bytes cannot be that large: a block of 64 pixels takes a bit or more, shared by components
// of coarser sampling.
constexpr bool too_short_for(size_t file_bytes, int width, int height) {
  return int64_t{width} * height / 2048 > static_cast<int64_t>(file_bytes);
}

// A JPEG decoded at 1 / `scale` (1, 2, 4 or 8) by its DCT: [ceil(height / scale), ceil(width / scale), 3], for which
// `rgb` has room. A part of these may be wanted; the rows hold what is returned, that part or more. The same pixels
// and, unless it is known to be sound, the same files refused as if all were decoded. libjpeg-turbo directly, since
// OpenCV returns half a picture for a truncated file.
Region decode_jpeg(std::span<const uint8_t> file, const PictureHeader& header, int scale, const DecodeLimits& limits,
                   const Region& wanted, uint8_t* rgb);

// A PNG at its own size, as RGB or, with four channels, as RGBA. libpng directly, since OpenCV lets it write warnings
// to stderr.
void decode_png(std::span<const uint8_t> file, const PictureHeader& header, int channels, uint8_t* pixels);

// The first picture of a GIF or WebP, as RGBA: what it does not cover is transparent. giflib and libwebp.
void decode_gif(std::span<const uint8_t> file, const PictureHeader& header, uint8_t* rgba);
void decode_webp(std::span<const uint8_t> file, const PictureHeader& header, uint8_t* rgba);

}  // namespace convolt
