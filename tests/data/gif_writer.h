// GIFs of a few pixels, which OpenCV does not write.
#pragma once

#include <cstdint>
#include <vector>

#include "test_files.h"

namespace convolt::test {

// The lowest `bytes` bytes of a number.
inline Bytes little(uint32_t value, int bytes) {
  Bytes out;
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<uint8_t>(value >> 8 * i));
  return out;
}

// Indices 0 to 3, each after a clear code, so that codes stay at three bits.
inline Bytes gif_codes(const Bytes& indices) {
  Bytes data;
  uint32_t bits = 0;
  int count = 0;
  const auto put = [&](uint32_t code) {
    bits |= code << count;
    for (count += 3; count >= 8; count -= 8, bits >>= 8) data.push_back(static_cast<uint8_t>(bits));
  };
  for (const uint8_t index : indices) {
    put(4);
    put(index);
  }
  put(5);
  if (count > 0) data.push_back(static_cast<uint8_t>(bits));
  return Bytes{2, static_cast<uint8_t>(data.size())} + data + Bytes{0};
}

constexpr uint8_t kGifColours[4][3] = {{10, 20, 30}, {200, 0, 0}, {0, 150, 0}, {70, 80, 250}};

struct GifFrame {
  uint32_t left, top, width, height;
  Bytes indices;
  bool interlaced = false;
  int transparent = -1;
};
inline Bytes gif(uint32_t width, uint32_t height, const std::vector<GifFrame>& frames) {
  Bytes file = bytes_of("GIF89a") + little(width, 2) + little(height, 2) + Bytes{0x81, 0, 0};
  for (const auto& colour : kGifColours) file = file + Bytes(colour, colour + 3);
  for (const GifFrame& f : frames) {
    if (f.transparent >= 0) file = file + Bytes{0x21, 0xF9, 4, 1, 0, 0, static_cast<uint8_t>(f.transparent), 0};
    file = file + Bytes{0x2C} + little(f.left, 2) + little(f.top, 2) + little(f.width, 2) + little(f.height, 2) +
           Bytes{static_cast<uint8_t>(f.interlaced ? 0x40 : 0)} + gif_codes(f.indices);
  }
  return file + Bytes{0x3B};
}

}  // namespace convolt::test
