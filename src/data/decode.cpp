#include "data/decode.h"

#include <algorithm>
#include <ctime>
#include <functional>
#include <mutex>
#include <opencv2/core.hpp>
#include <opencv2/core/utils/logger.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "convolt/error.h"
#include "data/codecs.h"

namespace convolt {
namespace {

int shrunk(int side, int factor) { return (side + factor - 1) / factor; }

Region whole_of(const PictureSize& size) { return {0, 0, size.width, size.height}; }

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
// A region of the upright picture in the stored one, and back.
Region stored_region(const Region& upright, const PictureHeader& header) {
  const Turning turning(header.orientation);
  return mirrored(transposed(upright, turning), turning, header.stored_height(), header.stored_width());
}
Region upright_region(const Region& stored, const PictureHeader& header) {
  const Turning turning(header.orientation);
  return transposed(mirrored(stored, turning, header.stored_height(), header.stored_width()), turning);
}

// JPEG and PNG as stored. The rows lie in `target` when nothing remains to be done to them, else in memory of their
// own.
struct Stored {
  cv::Mat memory, rgb;
  Region region;  // of the stored picture
};

Stored decode_direct(std::span<const uint8_t> file, const PictureHeader& header, int factor, const Region& wanted,
                     const DecodeLimits& limits, std::span<uint8_t> target) {
  int scale = 1;
  if (header.format == PictureFormat::jpeg)
    for (scale = 8; factor % scale != 0;) scale /= 2;
  const int height = shrunk(header.stored_height(), scale), width = shrunk(header.stored_width(), scale);
  const bool finished = scale == factor && header.orientation == 1;
  Stored stored{finished ? cv::Mat(height, width, CV_8UC3, target.data()) : cv::Mat(height, width, CV_8UC3),
                {},
                {0, 0, width, height}};
  if (header.format == PictureFormat::png)
    decode_png(file, header, stored.memory.data);
  else  // what a pixel of a shrunk picture is made of is the business of cv::resize, so of those all is decoded
    stored.region =
        decode_jpeg(file, header, scale, limits.max_seconds, factor == 1 ? wanted : stored.region, stored.memory.data);
  stored.rgb = cv::Mat(stored.region.height, stored.region.width, CV_8UC3, stored.memory.data);
  return stored;
}

// The other formats, upright: OpenCV's TIFF decoder turns the rows itself, and the rest have no orientation.
cv::Mat decode_opencv(std::span<const uint8_t> file, const PictureHeader& header) {
  const cv::Mat bytes(1, static_cast<int>(file.size()), CV_8U, const_cast<uint8_t*>(file.data()));
  cv::Mat picture = cv::imdecode(bytes, cv::IMREAD_COLOR | cv::IMREAD_IGNORE_ORIENTATION);
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

void check_room(const PictureSize& size, std::span<uint8_t> target) {
  if (size.bytes() > static_cast<int64_t>(target.size()))
    throw DataError("the picture needs " + std::to_string(size.bytes()) + " bytes and there is room for " +
                    std::to_string(target.size()) + ": did the file change after the loader was made?");
}

using Choose = std::function<Region(const PictureSize&)>;

Region chosen(const Choose& choose, const PictureSize& size) {
  const Region r = choose(size);
  if (r.left < 0 || r.top < 0 || r.width < 1 || r.height < 1 || r.width > size.width - r.left ||
      r.height > size.height - r.top)
    throw UsageError("a region to decode must lie inside the picture");
  return r;
}

DecodedRegion decode_raw(const RawSample& sample, const DecodeLimits& limits, const Choose& choose,
                         std::span<uint8_t> target) {
  const PictureSize size = decoded_size(sample, limits);
  check_room(size, target);
  if (int64_t{sample.height} * sample.width * sample.channels != static_cast<int64_t>(sample.content().size()))
    throw DataError("the sample has " + std::to_string(sample.content().size()) + " bytes of pixels: expected " +
                    std::to_string(sample.height) + " x " + std::to_string(sample.width) + " x " +
                    std::to_string(sample.channels));
  const Region wanted = chosen(choose, size);
  const cv::Mat pixels(sample.height, sample.width, CV_8UC(sample.channels),
                       const_cast<uint8_t*>(sample.content().data()));
  if (size.height == sample.height && size.width == sample.width) {
    finish(pixels({wanted.left, wanted.top, wanted.width, wanted.height}), 1,
           {wanted.height, wanted.width, size.channels}, target.data());
    return {size, wanted};
  }
  finish(pixels, 1, size, target.data());
  return {size, whole_of(size)};
}

DecodedRegion decode_file(std::span<const uint8_t> file, const DecodeLimits& limits, const Choose& choose,
                          std::span<uint8_t> target) {
  const PictureHeader header = read_picture_header(file);
  const PictureSize size = decoded_size(header, limits);
  check_room(size, target);
  const Region wanted = chosen(choose, size);
  const int factor = shrink_factor(std::max(header.width, header.height), limits.max_side);
  if (header.format != PictureFormat::jpeg && header.format != PictureFormat::png) {
    finish(decode_opencv(file, header), 1, size, target.data());
    return {size, whole_of(size)};
  }
  const Stored stored = decode_direct(file, header, factor, stored_region(wanted, header), limits, target);
  const Region region = factor == 1 ? upright_region(stored.region, header) : whole_of(size);
  finish(stored.rgb, header.orientation, {region.height, region.width, 3}, target.data());
  return {size, region};
}

}  // namespace

PictureSize decoded_size(int height, int width, int channels, const DecodeLimits& limits) {
  if (int64_t{height} * width > limits.max_pixels)
    throw DataError("the picture declares " + std::to_string(width) + " x " + std::to_string(height) +
                    " pixels: expected at most " + std::to_string(limits.max_pixels));
  const int factor = shrink_factor(std::max(width, height), limits.max_side);
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

PictureSize decode(const RawSample& sample, const DecodeLimits& limits, std::span<uint8_t> target,
                   const std::string& name) {
  return decode_region(sample, limits, whole_of, target, name).size;
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
