// A JPEG with an Exif block that says how it is turned.
#pragma once

#include "test_files.h"

namespace convolt::test {

inline Bytes with_exif(const Bytes& jpeg, int orientation, bool big) {
  const auto value = static_cast<uint8_t>(orientation);
  const Bytes little_tiff{'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 0x01, 3, 0, 1, 0, 0, 0, value, 0, 0, 0, 0, 0, 0, 0};
  const Bytes big_tiff{'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, value, 0, 0, 0, 0, 0, 0};
  const Bytes exif = Bytes{'E', 'x', 'i', 'f', 0, 0} + (big ? big_tiff : little_tiff);
  return Bytes{0xFF, 0xD8, 0xFF, 0xE1, 0, static_cast<uint8_t>(exif.size() + 2)} + exif +
         Bytes(jpeg.begin() + 2, jpeg.end());
}

}  // namespace convolt::test
