// What a picture file says about itself, read by our own code before any decoder sees it. Formats are told by magic
// number from a fixed list; nothing is allocated by a declared size; any bytes at all give a header or a DataError.
// Sources: ITU-T T.81 (JPEG), Exif 2.3, PNG third edition, the Windows DIB headers, RFC 9649 (WebP), TIFF 6.0, Netpbm,
// GIF 89a.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace convolt {

enum class PictureFormat : uint8_t { jpeg, png, bmp, webp, tiff, pnm, gif };

// "JPEG", "PNG", "BMP", "WebP", "TIFF", "PNM", "GIF".
std::string_view name_of(PictureFormat format);

struct PictureHeader {
  PictureFormat format = PictureFormat::jpeg;
  int width = 0, height = 0;  // upright, each from 1 to kMaxPictureSide
  int channels = 0;           // as stored: 1 grey or palette index, 2 grey and alpha, 3, 4 with alpha or CMYK
  int orientation = 1;        // how the stored rows are turned: Exif 1..8 (JPEG and TIFF; 1 elsewhere)
  int64_t bits = 8;           // of one stored pixel, all channels
  int white = 255;            // the largest level of a PNM

  bool transposed() const { return orientation >= 5; }
  int stored_width() const { return transposed() ? height : width; }
  int stored_height() const { return transposed() ? width : height; }
};

constexpr int kMaxPictureSide = 1 << 20;

// The bytes of one file: all of them in memory, or a window that is refilled by `read`.
class PictureBytes {
public:
  // Fills `into` from `offset` as far as the file goes and returns how many bytes it got.
  using Read = std::function<size_t(int64_t offset, std::span<uint8_t> into)>;

  explicit PictureBytes(std::span<const uint8_t> all) : window_(all) {}
  explicit PictureBytes(Read read) : read_(std::move(read)) {}

  // Each throws DataError when the file ends before.
  uint32_t u8(int64_t at) { return *bytes(at, 1); }
  uint32_t big16(int64_t at);
  uint32_t big32(int64_t at);
  uint32_t little16(int64_t at);
  uint32_t little32(int64_t at);
  bool starts_with(std::string_view magic, int64_t at = 0);  // false when the file is too short
  bool reaches(int64_t at) { return have(at, 1); }

private:
  const uint8_t* bytes(int64_t at, size_t count);
  bool have(int64_t at, size_t count);

  Read read_;
  std::vector<uint8_t> storage_;
  std::span<const uint8_t> window_;
  int64_t window_at_ = 0;
};

// By the first bytes; nothing for what is no picture.
std::optional<PictureFormat> picture_format(PictureBytes& bytes);
// Throws DataError with the reason alone; the caller names the picture.
PictureHeader read_picture_header(PictureBytes& bytes);
PictureHeader read_picture_header(std::span<const uint8_t> bytes);

// The Exif orientation, 1..8, of a TIFF structure that starts at `at`; 1 when there is none or it makes no sense.
int exif_orientation(PictureBytes& bytes, int64_t at, int64_t end);

}  // namespace convolt
