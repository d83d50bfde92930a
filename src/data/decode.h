// From the bytes of a file to upright 8-bit RGB. Pictures are shrunk by an integer factor that depends on the header
// alone, so the size of the result is known before anything is decoded.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "convolt/dataset.h"
#include "data/picture_header.h"

namespace convolt {

struct DecodeLimits {
  int64_t max_pixels = kMaxPixels;       // a header that declares more is refused before any decoder runs
  int max_side = 1 << 20;                // the longer side of the result,
  int min_side = 0;                      // where the shorter one keeps so many pixels, if it had them
  double max_seconds = 2;                // of processor time: a JPEG that takes longer is given up
  std::optional<Background> background;  // what shows through transparent pixels; none: their own colours
  bool full_decode = false;              // no coarser picture than max_side asks for, however few pixels are wanted
  bool known_sound = false;              // decoded before without an error: nothing behind the wanted part is read
};

// u8 [height, width, channels], rows packed.
struct PictureSize {
  int height = 0, width = 0, channels = 3;
  int64_t bytes() const { return int64_t{height} * width * channels; }
  friend bool operator==(const PictureSize&, const PictureSize&) = default;
};

// A part of a picture, in its pixels.
struct Region {
  int left = 0, top = 0, width = 0, height = 0;
  friend bool operator==(const Region&, const Region&) = default;
};

// What is wanted of a picture, in its pixels.
struct Wanted {
  Region region;
  // From one sample to the next there are at least so many pixels along any direction: a coarser picture has pixels
  // enough. At most 1: no other than the picture's own will do.
  double spacing = 1;
};

// Where a coordinate of the picture lies among the pixels that were decoded: at x * factor + shift.
struct Rescaled {
  double factor = 1, shift = 0;
};

// What decode_region() has made: u8 [region.height, region.width, size.channels], rows packed.
struct DecodedRegion {
  PictureSize size;  // of the whole picture as it was decoded
  Region region;     // the part of it that the rows hold
  Rescaled x, y;     // from what decoded_size() says of the picture to that
};
// The decoded pixels that those of `region`, in the picture's own, have a share in.
Region covering(const DecodedRegion& decoded, const Region& region);

// By how much a picture of these sides is shrunk: a whole number.
constexpr int shrink_factor(int height, int width, const DecodeLimits& limits) {
  const int shorter = height < width ? height : width, longer = height < width ? width : height;
  const int factor = (longer + limits.max_side - 1) / limits.max_side;
  if (limits.min_side == 0 || factor * limits.min_side <= shorter) return factor;
  return shorter < limits.min_side ? 1 : shorter / limits.min_side;
}

// What decode() will make of the picture: upright, shrunk, 3 channels. Throws DataError above max_pixels.
PictureSize decoded_size(const PictureHeader& header, const DecodeLimits& limits);
// Of raw pixels: their own channels.
PictureSize decoded_size(int height, int width, int channels, const DecodeLimits& limits);
// Of a file in memory or of raw pixels. Throws DataError for pixels that are neither grey nor RGB too.
PictureSize decoded_size(const RawSample& sample, const DecodeLimits& limits);

// Whether the sample is raw pixels that are not shrunk. Throws DataError, which begins with `name`, where decode()
// would refuse raw pixels.
bool is_shown_as_is(const RawSample& sample, const DecodeLimits& limits, const std::string& name);

// 1, 2, 4 or 8: the picture, of which decoded_size() says `size`, may be decoded at 1 / that of the file's size where
// samples lie at least `spacing` apart. 1 for all but JPEGs.
int scale_of(const PictureHeader& header, const PictureSize& size, double spacing, const DecodeLimits& limits);

// Decodes a sample, encoded or raw, into the first bytes of `target`. Grey, alpha, palette, CMYK and 16-bit files
// become 8-bit RGB (alpha as the limits say; of GIF and WebP the first picture); raw pixels keep their channels. A file
// that ends before its picture does is an error, not half a picture. Thread-safe. Throws DataError that begins with
// `name`.
PictureSize decode(const RawSample& sample, const DecodeLimits& limits, std::span<uint8_t> target,
                   const std::string& name);

// The same for what `choose` wants of the picture, told the size of the whole, which `target` must have room for all
// the same. The result holds that part, or more: only JPEGs and pixels that are not shrunk save work by it, all others
// are decoded whole. A JPEG is decoded at the largest of 1/2, 1/4 and 1/8 that is not above 1 / spacing. Neither the
// pixels nor whether a file is refused depend on the part: it is read to its end, unless it is known to be sound.
DecodedRegion decode_region(const RawSample& sample, const DecodeLimits& limits,
                            const std::function<Wanted(const PictureSize&)>& choose, std::span<uint8_t> target,
                            const std::string& name);

// What the error says, without the name of the sample in front.
std::string reason_of(const std::exception& error, const std::string& name);

// Processor time of the calling thread: unlike the time of day it does not depend on what else the machine does.
double thread_seconds();

// Makes OpenCV sequential and silent in this process; decode() needs it done once, before threads start.
void prepare_decoder();

}  // namespace convolt
