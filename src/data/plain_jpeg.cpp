#include "data/plain_jpeg.h"

#include <cstring>

#include "data/codecs.h"

namespace convolt {
namespace {

// What follows a marker and its length.
using Body = std::span<const uint8_t>;

int big16(Body bytes, size_t at) { return bytes[at] << 8 | bytes[at + 1]; }

// Components that libjpeg, whatever else the file says, takes for grey or YCbCr.
bool is_plain_frame(Body frame, size_t file_bytes) {
  if (frame.size() < 9 || frame[0] != 8) return false;
  const int components = frame[5];
  if (frame.size() != 6 + 3 * static_cast<size_t>(components)) return false;
  if (too_short_for(file_bytes, big16(frame, 3), big16(frame, 1))) return false;
  const int sampling = frame[7];  // of the first: horizontal, vertical
  if (components == 1) return sampling == 0x11;
  return components == 3 && frame[6] == 1 && frame[9] == 2 && frame[12] == 3 && frame[10] == 0x11 &&
         frame[13] == 0x11 && (sampling == 0x11 || sampling == 0x21 || sampling == 0x22);
}

// Adobe's segment may say that three components are RGB.
bool says_other_colours(Body adobe) {
  return adobe.size() >= 12 && std::memcmp(adobe.data(), "Adobe", 5) == 0 && adobe[11] != 1;
}

// From behind the header of the scan.
bool ends_whole(Body codes, bool restarts) {
  while (!codes.empty()) {
    const auto* const marker = static_cast<const uint8_t*>(std::memchr(codes.data(), 0xFF, codes.size()));
    if (marker == nullptr || marker + 1 == codes.data() + codes.size()) return false;
    if (marker[1] == 0xD9) return true;
    if (marker[1] != 0 && !(restarts && marker[1] >= 0xD0 && marker[1] <= 0xD7)) return false;
    codes = codes.subspan(static_cast<size_t>(marker + 2 - codes.data()));
  }
  return false;
}

}  // namespace

bool is_plain_jpeg(std::span<const uint8_t> file) {
  if (file.size() < 2 || file[0] != 0xFF || file[1] != 0xD8) return false;
  int components = 0;
  bool quantized = false, coded = false, restarts = false;
  for (size_t at = 2; at + 4 <= file.size() && file[at] == 0xFF;) {
    const int marker = file[at + 1];
    const auto length = static_cast<size_t>(big16(file, at + 2));
    if (length < 2 || length > file.size() - at - 2) return false;
    const Body body = file.subspan(at + 4, length - 2);
    at += 2 + length;
    if (marker == 0xC0 || marker == 0xC1) {
      if (components != 0 || !is_plain_frame(body, file.size())) return false;
      components = body[5];
    } else if (marker == 0xDA) {
      const bool whole = components > 0 && body.size() == 4 + 2 * static_cast<size_t>(components);
      return whole && body[0] == components && quantized && coded && ends_whole(file.subspan(at), restarts);
    } else if (marker == 0xDD) {
      restarts = body.size() == 2 && big16(body, 0) > 0;
    } else if (marker == 0xEE && says_other_colours(body)) {
      return false;
    } else {
      quantized = quantized || marker == 0xDB;
      coded = coded || marker == 0xC4;
      const bool known = marker == 0xDB || marker == 0xC4 || marker == 0xFE || (marker >= 0xE0 && marker <= 0xEF);
      if (!known) return false;
    }
  }
  return false;
}

}  // namespace convolt
