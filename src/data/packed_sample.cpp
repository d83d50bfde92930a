#include "data/packed_sample.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <opencv2/imgcodecs.hpp>  // the names of parameters
#include <opencv2/imgproc.hpp>
#include <optional>

#include "convolt/error.h"
#include "data/decode.h"
#include "data/opencv_codecs.h"

namespace convolt {
namespace {

constexpr int kJpegQuality = 95;

// Height, width and channels as decode() would make them, and whether it is a JPEG.
struct SampleKind {
  PictureSize size;
  bool jpeg = false;
};

// Nothing for a file that is no picture.
std::optional<SampleKind> kind_of(const RawSample& sample) {
  if (sample.height != 0) return SampleKind{decoded_size(sample, {})};
  try {
    const PictureHeader header = read_picture_header(sample.content());
    return SampleKind{{header.height, header.width}, header.format == PictureFormat::jpeg};
  } catch (const DataError&) {
    return std::nullopt;
  }
}

PictureSize shrunk_to(const PictureSize& size, int max_side) {
  const double scale = static_cast<double>(max_side) / std::max(size.height, size.width);
  const auto side = [&](int full) { return std::max(1, static_cast<int>(std::lround(full * scale))); };
  return {side(size.height), side(size.width), size.channels};
}

RawSample pixels_of(const RawSample& sample, const PictureSize& size, const std::string& name) {
  DecodeLimits limits;
  limits.max_seconds = std::numeric_limits<double>::infinity();
  RawSample pixels;
  pixels.bytes.resize(static_cast<size_t>(size.bytes()));
  decode(sample, limits, pixels.bytes, name);
  pixels.height = size.height;
  pixels.width = size.width;
  pixels.channels = size.channels;
  return pixels;
}

cv::Mat matrix_of(RawSample& pixels) {
  return {pixels.height, pixels.width, CV_8UC(pixels.channels), pixels.bytes.data()};
}

RawSample resized(RawSample pixels, const PictureSize& size) {
  RawSample small;
  small.bytes.resize(static_cast<size_t>(size.bytes()));
  small.height = size.height;
  small.width = size.width;
  small.channels = size.channels;
  cv::resize(matrix_of(pixels), matrix_of(small), {size.width, size.height}, 0, 0, cv::INTER_AREA);
  return small;
}

RawSample jpeg_of(RawSample pixels) {
  cv::Mat picture = matrix_of(pixels);
  if (pixels.channels == 3) cv::cvtColor(picture, picture, cv::COLOR_RGB2BGR);
  RawSample file;
  constexpr int kMaxJpegSide = 65500;  // libjpeg's
  if (std::max(picture.rows, picture.cols) > kMaxJpegSide)
    throw DataError("is " + std::to_string(picture.cols) + " x " + std::to_string(picture.rows) +
                    ", too large for a JPEG; --max-side shrinks it");
  file.bytes = opencv_imencode(".jpg", picture, {cv::IMWRITE_JPEG_QUALITY, kJpegQuality});
  return file;
}

// What is stored of a sample, and how large that is; 0 x 0 for a file that is no picture.
std::pair<RawSample, PictureSize> stored(RawSample sample, const PackOptions& options, const std::string& name) {
  const std::optional<SampleKind> kind = kind_of(sample);
  const bool as_it_is = options.as == PackAs::files && options.max_side == 0;
  if (!kind) {
    if (!as_it_is) read_picture_header(sample.content());  // throws the reason
    return {std::move(sample), PictureSize{}};
  }
  PictureSize size = kind->size;
  const bool larger = options.max_side > 0 && std::max(size.height, size.width) > options.max_side;
  const bool pixels = options.as == PackAs::pixels && sample.height == 0;
  const bool jpeg = options.as != PackAs::pixels && (larger || (options.as == PackAs::jpeg && !kind->jpeg));
  if (!larger && !pixels && !jpeg) return {std::move(sample), size};
  RawSample picture = pixels_of(sample, decoded_size(sample, {}), name);
  if (larger) {
    size = shrunk_to(size, options.max_side);
    picture = resized(std::move(picture), size);
  }
  return {jpeg ? jpeg_of(std::move(picture)) : std::move(picture), size};
}

}  // namespace

PackedSample packed_sample(const Dataset& data, int64_t i, const PackOptions& options) {
  PackedSample packed;
  const std::string name = data.name(i);
  try {
    RawSample raw = data.read(i);
    packed.entry.label = static_cast<uint32_t>(raw.label ? *raw.label : data.label(i));
    packed.entry.weight = data.weight(i);
    auto [sample, size] = stored(std::move(raw), options, name);
    packed.entry.height = static_cast<uint32_t>(size.height);
    packed.entry.width = static_cast<uint32_t>(size.width);
    packed.entry.kind = sample.height > 0 ? PackedKind::pixels : PackedKind::file;
    packed.entry.channels = static_cast<uint8_t>(sample.height > 0 ? sample.channels : 0);
    packed.content = std::move(sample);
  } catch (const DataError& error) {
    packed.left_out = reason_of(error, name);
  }
  return packed;
}

}  // namespace convolt
