#include "data/decode.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <functional>
#include <mutex>
#include <opencv2/core.hpp>
#include <opencv2/core/utils/logger.hpp>
#include <opencv2/imgcodecs.hpp>  // the names of flags
#include <opencv2/imgproc.hpp>
#include <optional>
#include <vector>

#include "convolt/error.h"
#include "data/codecs.h"
#include "data/opencv_codecs.h"

namespace convolt {
namespace {

int shrunk(int side, int factor) { return (side + factor - 1) / factor; }

Region whole_of(const PictureSize& size) { return {0, 0, size.width, size.height}; }
Wanted all_of(const PictureSize& size) { return {whole_of(size)}; }

// How the stored picture becomes upright: mirrored, then rows and columns changed. Exif 2.3, tag 0x0112.
struct Turning {
  bool columns_mirrored, rows_mirrored, transposed;
  explicit Turning(int orientation)
      : columns_mirrored(orientation == 2 || orientation == 3 || orientation >= 7),
        rows_mirrored(orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7),
        transposed(orientation >= 5) {}
};

Region mirrored(const Region& r, const Turning& turning, int height, int width) {
  return {turning.columns_mirrored ? width - r.left - r.width : r.left,
          turning.rows_mirrored ? height - r.top - r.height : r.top, r.width, r.height};
}
Region transposed(const Region& r, const Turning& turning) {
  return turning.transposed ? Region{r.top, r.left, r.height, r.width} : r;
}
// A region of the upright picture in the stored one of that size, and back.
Region stored_region(const Region& upright, int orientation, const cv::Size& stored) {
  const Turning turning(orientation);
  return mirrored(transposed(upright, turning), turning, stored.height, stored.width);
}
Region upright_region(const Region& region, int orientation, const cv::Size& stored) {
  const Turning turning(orientation);
  return transposed(mirrored(region, turning, stored.height, stored.width), turning);
}

cv::Size stored_size(const PictureHeader& header, int scale) {
  return {shrunk(header.stored_width(), scale), shrunk(header.stored_height(), scale)};
}

// Without a background the colours of transparent pixels are taken as they are, as Pillow's convert("RGB") does.
void flatten(std::span<const uint8_t> rgba, const std::optional<Background>& background, uint8_t* rgb) {
  for (size_t i = 0; i < rgba.size() / 4; ++i)
    for (size_t c = 0; c < 3; ++c) {
      const int colour = rgba[4 * i + c], alpha = rgba[4 * i + 3];
      rgb[3 * i + c] =
          static_cast<uint8_t>(background ? (colour * alpha + (*background)[c] * (255 - alpha) + 127) / 255 : colour);
    }
}
std::vector<uint8_t> rgba_of(const PictureHeader& header) {
  return std::vector<uint8_t>(static_cast<size_t>(header.stored_width()) * static_cast<size_t>(header.stored_height()) *
                              4);
}

void decode_png_onto(std::span<const uint8_t> file, const PictureHeader& header, const DecodeLimits& limits,
                     uint8_t* rgb) {
  if (!limits.background) return decode_png(file, header, 3, rgb);
  std::vector<uint8_t> rgba = rgba_of(header);
  decode_png(file, header, 4, rgba.data());
  flatten(rgba, limits.background, rgb);
}

// JPEG and PNG as stored. The rows lie in `target` when nothing remains to be done to them, else in memory of their
// own.
struct Stored {
  cv::Mat memory, rgb;
  Region region;  // of the stored picture
};

// `part`: of the stored picture at that scale.
Stored decode_direct(std::span<const uint8_t> file, const PictureHeader& header, int scale, const Region& part,
                     bool finished, const DecodeLimits& limits, std::span<uint8_t> target) {
  const cv::Size size = stored_size(header, scale);
  Stored stored{finished ? cv::Mat(size, CV_8UC3, target.data()) : cv::Mat(size, CV_8UC3), {}, {}};
  if (header.format == PictureFormat::png) {
    decode_png_onto(file, header, limits, stored.memory.data);
    stored.region = {0, 0, size.width, size.height};
  } else {
    stored.region = decode_jpeg(file, header, scale, limits, part, stored.memory.data);
  }
  stored.rgb = cv::Mat(stored.region.height, stored.region.width, CV_8UC3, stored.memory.data);
  return stored;
}

// The largest scale of a JPEG's DCT that is not above `limit`.
int dct_scale(const PictureHeader& header, double limit) {
  int scale = header.format == PictureFormat::jpeg ? 8 : 1;
  while (scale > 1 && scale > limit) scale /= 2;
  return scale;
}

// From the picture of `side` pixels, which stand for `header_side` of the file, to one at 1 / scale, whose last pixel
// may reach beyond the file's. Of a mirrored one that is the first.
Rescaled rescaled(int side, int header_side, int scale, bool mirrored) {
  const double factor = static_cast<double>(header_side) / side / scale;
  return {factor, mirrored ? shrunk(header_side, scale) - static_cast<double>(header_side) / scale : 0};
}

// The other formats, upright: OpenCV's TIFF decoder turns the rows itself, and the rest have no orientation.
cv::Mat decode_opencv(std::span<const uint8_t> file, const PictureHeader& header) {
  const cv::Mat bytes(1, static_cast<int>(file.size()), CV_8U, const_cast<uint8_t*>(file.data()));
  // Of 16 bits OpenCV keeps the upper 8, which are the level only where white is 65535.
  const bool wide = header.white > 255;
  cv::Mat picture =
      opencv_imdecode(bytes, cv::IMREAD_COLOR | cv::IMREAD_IGNORE_ORIENTATION | (wide ? cv::IMREAD_ANYDEPTH : 0));
  if (picture.depth() == CV_16U) picture.convertTo(picture, CV_8U, 255.0 / header.white);
  if (picture.empty() || picture.type() != CV_8UC3)
    throw DataError("the " + std::string(name_of(header.format)) + " is broken or of a kind that OpenCV cannot decode");
  if (picture.cols != header.width || picture.rows != header.height)
    throw DataError("the " + std::string(name_of(header.format)) + " is " + std::to_string(picture.cols) + " x " +
                    std::to_string(picture.rows) + " but its header says " + std::to_string(header.width) + " x " +
                    std::to_string(header.height));
  cv::cvtColor(picture, picture, cv::COLOR_BGR2RGB);
  return picture;
}

// Undoes the Exif orientation: Exif 2.3, tag 0x0112.
void turn_upright(const cv::Mat& stored, int orientation, cv::Mat& upright) {
  switch (orientation) {
    case 2:
      return cv::flip(stored, upright, 1);
    case 3:
      return cv::rotate(stored, upright, cv::ROTATE_180);
    case 4:
      return cv::flip(stored, upright, 0);
    case 5:
      return cv::transpose(stored, upright);
    case 6:
      return cv::rotate(stored, upright, cv::ROTATE_90_CLOCKWISE);
    case 7: {
      cv::Mat half_turn;
      cv::rotate(stored, half_turn, cv::ROTATE_180);
      return cv::transpose(half_turn, upright);
    }
    case 8:
      return cv::rotate(stored, upright, cv::ROTATE_90_COUNTERCLOCKWISE);
    default:
      return stored.copyTo(upright);
  }
}

// Shrinks and turns `stored` into `target`, which has room for `size`.
void finish(cv::Mat stored, int orientation, const PictureSize& size, uint8_t* target) {
  if (stored.data == target) return;
  const cv::Size stored_size = orientation >= 5 ? cv::Size(size.height, size.width) : cv::Size(size.width, size.height);
  if (stored.size() != stored_size) {
    cv::Mat small;
    cv::resize(stored, small, stored_size, 0, 0, cv::INTER_AREA);
    stored = small;
  }
  cv::Mat upright(size.height, size.width, stored.type(), target);
  turn_upright(stored, orientation, upright);
  if (upright.data != target) throw DataError("the picture has another size than its header says");
}

// All formats but JPEG and PNG, upright.
void decode_whole(std::span<const uint8_t> file, const PictureHeader& header, const DecodeLimits& limits,
                  const PictureSize& size, uint8_t* target) {
  if (header.format != PictureFormat::gif && header.format != PictureFormat::webp)
    return finish(decode_opencv(file, header), 1, size, target);
  std::vector<uint8_t> rgba = rgba_of(header);
  (header.format == PictureFormat::gif ? decode_gif : decode_webp)(file, header, rgba.data());
  const bool finished = size.width == header.width && size.height == header.height;
  cv::Mat rgb =
      finished ? cv::Mat(size.height, size.width, CV_8UC3, target) : cv::Mat(header.height, header.width, CV_8UC3);
  flatten(rgba, limits.background, rgb.data);
  finish(rgb, 1, size, target);
}

void check_room(const PictureSize& size, std::span<uint8_t> target) {
  if (size.bytes() > static_cast<int64_t>(target.size()))
    throw DataError("the picture needs " + std::to_string(size.bytes()) + " bytes and there is room for " +
                    std::to_string(target.size()) + ": did the file change after the loader was made?");
}

using Choose = std::function<Wanted(const PictureSize&)>;

Wanted chosen(const Choose& choose, const PictureSize& size) {
  const Wanted wanted = choose(size);
  const Region& r = wanted.region;
  if (r.left < 0 || r.top < 0 || r.width < 1 || r.height < 1 || r.width > size.width - r.left ||
      r.height > size.height - r.top)
    throw UsageError("a region to decode must lie inside the picture");
  return wanted;
}

// What decoded_size() says of raw pixels, which are all there.
PictureSize size_of_raw(const RawSample& sample, const DecodeLimits& limits) {
  const PictureSize size = decoded_size(sample, limits);
  if (int64_t{sample.height} * sample.width * sample.channels != static_cast<int64_t>(sample.content().size()))
    throw DataError("the sample has " + std::to_string(sample.content().size()) + " bytes of pixels: expected " +
                    std::to_string(sample.height) + " x " + std::to_string(sample.width) + " x " +
                    std::to_string(sample.channels));
  return size;
}

DecodedRegion decode_raw(const RawSample& sample, const DecodeLimits& limits, const Choose& choose,
                         std::span<uint8_t> target) {
  const PictureSize size = size_of_raw(sample, limits);
  check_room(size, target);
  const Region wanted = chosen(choose, size).region;
  const cv::Mat pixels(sample.height, sample.width, CV_8UC(sample.channels),
                       const_cast<uint8_t*>(sample.content().data()));
  if (size.height == sample.height && size.width == sample.width) {
    finish(pixels({wanted.left, wanted.top, wanted.width, wanted.height}), 1,
           {wanted.height, wanted.width, size.channels}, target.data());
    return {size, wanted, {}, {}};
  }
  finish(pixels, 1, size, target.data());
  return {size, whole_of(size), {}, {}};
}

// A part of a JPEG or PNG of which no pixels are blended, at 1 / scale of the file's size.
DecodedRegion decode_pixels(std::span<const uint8_t> file, const PictureHeader& header, const PictureSize& size,
                            int scale, const Region& wanted, const DecodeLimits& limits, std::span<uint8_t> target) {
  const Turning turning(header.orientation);
  const bool mirrored_x = turning.transposed ? turning.rows_mirrored : turning.columns_mirrored;
  const bool mirrored_y = turning.transposed ? turning.columns_mirrored : turning.rows_mirrored;
  DecodedRegion decoded{{shrunk(header.height, scale), shrunk(header.width, scale), 3},
                        {},
                        rescaled(size.width, header.width, scale, mirrored_x),
                        rescaled(size.height, header.height, scale, mirrored_y)};
  const cv::Size stored_at_scale = stored_size(header, scale);
  const Region part = stored_region(covering(decoded, wanted), header.orientation, stored_at_scale);
  const Stored stored = decode_direct(file, header, scale, part, header.orientation == 1, limits, target);
  decoded.region = upright_region(stored.region, header.orientation, stored_at_scale);
  finish(stored.rgb, header.orientation, {decoded.region.height, decoded.region.width, 3}, target.data());
  return decoded;
}

DecodedRegion decode_file(std::span<const uint8_t> file, const DecodeLimits& limits, const Choose& choose,
                          std::span<uint8_t> target) {
  const PictureHeader header = read_picture_header(file);
  const PictureSize size = decoded_size(header, limits);
  check_room(size, target);
  const Wanted wanted = chosen(choose, size);
  if (header.format != PictureFormat::jpeg && header.format != PictureFormat::png) {
    decode_whole(file, header, limits, size, target.data());
    return {size, whole_of(size), {}, {}};
  }
  const int factor = shrink_factor(header.height, header.width, limits);
  const int enough = scale_of(header, size, wanted.spacing, limits);
  if (enough >= factor) return decode_pixels(file, header, size, enough, wanted.region, limits, target);
  // What a pixel of a picture that is shrunk otherwise is made of is the business of cv::resize, so all is decoded.
  int scale = dct_scale(header, factor);
  while (factor % scale != 0) scale /= 2;
  const cv::Size all = stored_size(header, scale);
  const bool finished = scale == factor && header.orientation == 1;
  const Stored stored = decode_direct(file, header, scale, {0, 0, all.width, all.height}, finished, limits, target);
  finish(stored.rgb, header.orientation, size, target.data());
  return {size, whole_of(size), {}, {}};
}

}  // namespace

PictureSize decoded_size(int height, int width, int channels, const DecodeLimits& limits) {
  if (int64_t{height} * width > limits.max_pixels)
    throw DataError("the picture declares " + std::to_string(width) + " x " + std::to_string(height) +
                    " pixels: expected at most " + std::to_string(limits.max_pixels));
  const int factor = shrink_factor(height, width, limits);
  return {shrunk(height, factor), shrunk(width, factor), channels};
}

PictureSize decoded_size(const PictureHeader& header, const DecodeLimits& limits) {
  return decoded_size(header.height, header.width, 3, limits);
}

PictureSize decoded_size(const RawSample& sample, const DecodeLimits& limits) {
  if (sample.height == 0) return decoded_size(read_picture_header(sample.content()), limits);
  if (sample.height < 0 || sample.width < 1 || (sample.channels != 1 && sample.channels != 3))
    throw DataError("the sample's pixels are " + std::to_string(sample.height) + " x " + std::to_string(sample.width) +
                    " x " + std::to_string(sample.channels) + ": expected a height, a width and 1 or 3 channels");
  return decoded_size(sample.height, sample.width, sample.channels, limits);
}

bool is_shown_as_is(const RawSample& sample, const DecodeLimits& limits, const std::string& name) {
  if (sample.height == 0) return false;
  try {
    const PictureSize size = size_of_raw(sample, limits);
    return size.height == sample.height && size.width == sample.width;
  } catch (const DataError& error) {
    throw DataError(name + ": " + error.what());
  }
}

int scale_of(const PictureHeader& header, const PictureSize& size, double spacing, const DecodeLimits& limits) {
  const double per_pixel =
      std::min(static_cast<double>(header.width) / size.width, static_cast<double>(header.height) / size.height);
  return dct_scale(header, (limits.full_decode ? 1 : spacing) * per_pixel);
}

PictureSize decode(const RawSample& sample, const DecodeLimits& limits, std::span<uint8_t> target,
                   const std::string& name) {
  return decode_region(sample, limits, all_of, target, name).size;
}

Region covering(const DecodedRegion& decoded, const Region& region) {
  const auto along = [](const Rescaled& axis, int first, int count, int side) {
    // A coordinate on the edge of a pixel must not become the next one by a rounding.
    constexpr double kRounding = 1e-6;
    const int begin = static_cast<int>(std::floor(first * axis.factor + axis.shift + kRounding));
    const int end = static_cast<int>(std::ceil((first + count) * axis.factor + axis.shift - kRounding));
    return std::pair(std::clamp(begin, 0, side - 1), std::clamp(end, 1, side));
  };
  const auto [left, right] = along(decoded.x, region.left, region.width, decoded.size.width);
  const auto [top, bottom] = along(decoded.y, region.top, region.height, decoded.size.height);
  return {left, top, right - left, bottom - top};
}

DecodedRegion decode_region(const RawSample& sample, const DecodeLimits& limits, const Choose& choose,
                            std::span<uint8_t> target, const std::string& name) {
  try {
    return sample.height != 0 ? decode_raw(sample, limits, choose, target)
                              : decode_file(sample.content(), limits, choose, target);
  } catch (const DataError& error) {
    throw DataError(name + ": " + error.what());
  } catch (const cv::Exception& error) {
    throw DataError(name + ": OpenCV refuses it (" + error.err + ")");
  }
}

std::string reason_of(const std::exception& error, const std::string& name) {
  std::string reason = error.what();
  if (reason.starts_with(name + ": ")) reason.erase(0, name.size() + 2);
  return reason;
}

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

void prepare_decoder() {
  static std::once_flag once;
  std::call_once(once, [] {
    cv::setNumThreads(0);
    cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT);
  });
}

}  // namespace convolt
