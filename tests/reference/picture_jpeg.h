// What JPEG leaves of a picture (ITU T.81, JFIF; chroma halved both ways), in double and by the definition of the DCT.
#pragma once

#include <cstdint>
#include <vector>

namespace convolt::test {

// [height, width, channels] to values in 0..255 that are yet to be rounded. Quality 1 to 100, as libjpeg counts it.
std::vector<double> jpeg_round_trip(const std::vector<uint8_t>& picture, int height, int width, int channels,
                                    int quality);

}  // namespace convolt::test
