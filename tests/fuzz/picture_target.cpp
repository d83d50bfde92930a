#include "fuzz/picture_target.h"

#include <cstdlib>
#include <opencv2/imgcodecs.hpp>

#include "convolt/error.h"
#include "data/decode.h"
#include "data/exif.h"
#include "data/gif_writer.h"
#include "data/jpeg_writer.h"

namespace convolt::test {

std::vector<Bytes> picture_seeds() {
  const Bytes jpeg = write_jpeg({.name = ""}, 20, 12);
  std::vector<Bytes> seeds{jpeg,
                           with_exif(jpeg, 6, false),
                           with_exif(jpeg, 3, true),
                           write_jpeg({.name = "", .progressive = true}, 17, 9),
                           ppm(2, 1, Bytes(6, 7)),
                           bytes_of("P5 2 1 1000\n1234"),
                           gif(5, 4, {{1, 1, 3, 2, {0, 1, 2, 3, 3, 2}, true, 2}, {0, 0, 1, 1, {1}}})};
  for (const char* extension : {".png", ".webp", ".bmp", ".tiff"}) {
    seeds.emplace_back();
    cv::imencode(extension, cv::Mat(5, 6, CV_8UC4, cv::Scalar(1, 20, 200, 100)), seeds.back());
  }
  return seeds;
}

// The header of any format, and the pixels of those that no library but its own stands behind: OpenCV is not fuzzed
// here.
void read_picture(std::span<const uint8_t> bytes) {
  prepare_decoder();
  RawSample sample;
  sample.bytes.assign(bytes.begin(), bytes.end());
  try {
    const PictureHeader header = read_picture_header(bytes);
    if (header.width < 1 || header.height < 1 || header.white < 1) std::abort();
    if (header.format == PictureFormat::bmp || header.format == PictureFormat::tiff ||
        header.format == PictureFormat::pnm)
      return;
    DecodeLimits limits{.max_pixels = 1 << 16, .max_side = 100};
    if (bytes.size() % 2 == 0) limits.background = Background{1, 2, 3};
    const PictureSize size = decoded_size(sample, limits);
    Bytes target(static_cast<size_t>(size.bytes()));
    const double spacing = 1 << bytes.size() % 4;
    const auto choose = [&](const PictureSize& s) {
      return Wanted{{s.width / 3, s.height / 3, (s.width + 1) / 2, (s.height + 1) / 2}, spacing};
    };
    const DecodedRegion decoded = decode_region(sample, limits, choose, target, "picture");
    if (decoded.region.width < 1 || decoded.region.height < 1) std::abort();
  } catch (const DataError&) {
  }
}

}  // namespace convolt::test
