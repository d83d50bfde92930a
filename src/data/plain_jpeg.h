// Which JPEGs are left to a device decoder.
#pragma once

#include <cstdint>
#include <span>

namespace convolt {

// Whether a JPEG is of the plain and whole kind about which decoders agree: sequential Huffman codes of 8-bit samples,
// grey, or YCbCr as 4:4:4, 4:2:2 or 4:2:0, all in one scan that nothing but restart markers interrupts and the end
// marker follows. So a file that was cut short is none, and of what damage is left libjpeg would say no more than a
// warning. ITU-T T.81, annex B. Any bytes at all give an answer.
bool is_plain_jpeg(std::span<const uint8_t> file);

}  // namespace convolt
