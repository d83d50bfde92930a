#include "data/picture_header.h"

#include <array>

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>

#include "convolt/error.h"

namespace convolt {

std::string_view name_of(PictureFormat format) {
  switch (format) {
    case PictureFormat::jpeg:
      return "JPEG";
    case PictureFormat::png:
      return "PNG";
    case PictureFormat::bmp:
      return "BMP";
    case PictureFormat::webp:
      return "WebP";
    case PictureFormat::tiff:
      return "TIFF";
    case PictureFormat::pnm:
      return "PNM";
    case PictureFormat::gif:
      return "GIF";
  }
  return "";
}

bool PictureBytes::have(int64_t at, size_t count) {
  const auto inside = [&] {
    return at >= window_at_ && at - window_at_ <= static_cast<int64_t>(window_.size()) &&
           window_.size() - static_cast<size_t>(at - window_at_) >= count;
  };
  if (inside()) return true;
  if (!read_ || at < 0) return false;
  constexpr size_t kWindow = 4096;
  storage_.resize(kWindow);
  window_ = std::span(storage_).first(read_(at, storage_));
  window_at_ = at;
  return inside();
}

const uint8_t* PictureBytes::bytes(int64_t at, size_t count) {
  if (!have(at, count)) throw DataError("the file ends within its header");
  return window_.data() + (at - window_at_);
}

uint32_t PictureBytes::big16(int64_t at) {
  const uint8_t* b = bytes(at, 2);
  return static_cast<uint32_t>(b[0] << 8 | b[1]);
}
uint32_t PictureBytes::big32(int64_t at) { return big16(at) << 16 | big16(at + 2); }
uint32_t PictureBytes::little16(int64_t at) {
  const uint8_t* b = bytes(at, 2);
  return static_cast<uint32_t>(b[1] << 8 | b[0]);
}
uint32_t PictureBytes::little32(int64_t at) { return little16(at + 2) << 16 | little16(at); }

bool PictureBytes::starts_with(std::string_view magic, int64_t at) {
  return have(at, magic.size()) && std::memcmp(bytes(at, magic.size()), magic.data(), magic.size()) == 0;
}

namespace {

using namespace std::string_view_literals;

// Integers of a TIFF structure, in either byte order, at offsets from its start.
struct TiffReader {
  PictureBytes& bytes;
  int64_t base;
  bool big;

  uint32_t u16(int64_t at) const { return big ? bytes.big16(base + at) : bytes.little16(base + at); }
  uint32_t u32(int64_t at) const { return big ? bytes.big32(base + at) : bytes.little32(base + at); }
  // The first value of an IFD entry of type BYTE, SHORT or LONG; 0 for other types.
  uint32_t value(int64_t entry) const {
    const uint32_t type = u16(entry + 2), count = u32(entry + 4);
    if (type == 1) return bytes.u8(base + entry + 8);
    if (type == 3) return u16(count > 2 ? int64_t{u32(entry + 8)} : entry + 8);
    return type == 4 && count == 1 ? u32(entry + 8) : 0;
  }
};

bool is_tiff(PictureBytes& bytes, int64_t at) {
  return bytes.starts_with("II*\0"sv, at) || bytes.starts_with("MM\0*"sv, at);
}

void read_tiff(PictureBytes& bytes, PictureHeader& header) {
  const TiffReader tiff{bytes, 0, bytes.starts_with("MM")};
  const int64_t directory = tiff.u32(4);
  int64_t width = 0, height = 0, samples = 1, bits = 1;
  const uint32_t entries = tiff.u16(directory);
  for (uint32_t i = 0; i < entries; ++i) {
    const int64_t entry = directory + 2 + int64_t{i} * 12;
    switch (tiff.u16(entry)) {
      case 256:
        width = tiff.value(entry);
        break;
      case 257:
        height = tiff.value(entry);
        break;
      case 258:
        bits = tiff.value(entry);
        break;
      case 274:
        header.orientation = static_cast<int>(tiff.value(entry));
        break;
      case 277:
        samples = tiff.value(entry);
        break;
      default:
        break;
    }
  }
  if (header.orientation < 1 || header.orientation > 8) header.orientation = 1;
  if (samples < 1 || samples > 4 || bits < 1 || bits > 32)
    throw DataError("the TIFF has " + std::to_string(samples) + " samples of " + std::to_string(bits) +
                    " bits a pixel: expected 1 to 4 of at most 32");
  if (width > kMaxPictureSide || height > kMaxPictureSide) width = height = 0;
  header.width = static_cast<int>(width);
  header.height = static_cast<int>(height);
  header.channels = static_cast<int>(samples);
  header.bits = samples * bits;
}

// Start of frame: precision, height, width, components.
void read_jpeg_frame(PictureBytes& bytes, int64_t at, uint32_t marker, PictureHeader& header) {
  if (marker != 0xC0 && marker != 0xC1 && marker != 0xC2 && marker != 0xC9 && marker != 0xCA)
    throw DataError("the JPEG is of a kind that is not supported (lossless or hierarchical)");
  if (bytes.u8(at + 2) != 8)
    throw DataError("the JPEG has " + std::to_string(bytes.u8(at + 2)) + " bits a sample: expected 8");
  header.height = static_cast<int>(bytes.big16(at + 3));
  header.width = static_cast<int>(bytes.big16(at + 5));
  header.channels = static_cast<int>(bytes.u8(at + 7));
  header.bits = header.channels * 8;
  if (header.channels != 1 && header.channels != 3 && header.channels != 4)
    throw DataError("the JPEG has " + std::to_string(header.channels) + " components: expected 1, 3 or 4");
}

void read_jpeg(PictureBytes& bytes, PictureHeader& header) {
  bool exif_seen = false;
  int64_t garbage = 0;  // bytes between segments, which decoders skip
  for (int64_t at = 2;;) {
    if (bytes.u8(at) != 0xFF || bytes.u8(at + 1) == 0xFF || bytes.u8(at + 1) == 0) {
      if (++garbage > 65536) break;
      ++at;
      continue;
    }
    const uint32_t marker = bytes.u8(at + 1);
    at += 2;
    if (marker == 0x01 || (marker >= 0xD0 && marker <= 0xD8)) continue;  // no length follows
    if (marker == 0xD9 || marker == 0xDA) break;                         // end of image, start of scan
    const uint32_t length = bytes.big16(at);
    if (length < 2) throw DataError("the JPEG has a segment of length " + std::to_string(length));
    if (marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC)
      return read_jpeg_frame(bytes, at, marker, header);
    if (marker == 0xE1 && !exif_seen && length > 16 && bytes.starts_with("Exif\0"sv, at + 2)) {
      exif_seen = true;
      header.orientation = exif_orientation(bytes, at + 8, at + length);
    }
    at += length;
  }
  throw DataError("the JPEG has no frame header");
}

void read_png(PictureBytes& bytes, PictureHeader& header) {
  if (!bytes.starts_with("IHDR", 12) || bytes.big32(8) != 13) throw DataError("the PNG does not begin with IHDR");
  const uint32_t width = bytes.big32(16), height = bytes.big32(20), depth = bytes.u8(24), colour = bytes.u8(25);
  const int channels = colour == 0 || colour == 3 ? 1 : colour == 2 ? 3 : colour == 4 ? 2 : colour == 6 ? 4 : 0;
  const bool small_depth = depth == 1 || depth == 2 || depth == 4;
  const bool fits = depth == 8 || (small_depth && (colour == 0 || colour == 3)) || (depth == 16 && colour != 3);
  if (channels == 0 || !fits)
    throw DataError("the PNG has colour type " + std::to_string(colour) + " with " + std::to_string(depth) +
                    " bits, which the standard does not know");
  header.width = width > kMaxPictureSide ? 0 : static_cast<int>(width);
  header.height = height > kMaxPictureSide ? 0 : static_cast<int>(height);
  header.channels = channels;
  header.bits = int64_t{channels} * depth;
}

// Masks of red, green and blue follow the first 40 bytes of the header. OpenCV knows one order, whatever they say.
void check_bmp_fields(PictureBytes& bytes) {
  if (bytes.little32(54) != 0xFF0000 || bytes.little32(58) != 0xFF00 || bytes.little32(62) != 0xFF)
    throw DataError("the BMP has 32 bits a pixel in another order than blue, green, red; save it as PNG");
}

void read_bmp(PictureBytes& bytes, PictureHeader& header) {
  const uint32_t size = bytes.little32(14);
  int64_t width = 0, height = 0;
  uint32_t bits = 0;
  if (size == 12) {
    width = bytes.little16(18);
    height = bytes.little16(20);
    bits = bytes.little16(24);
  } else if (size >= 36) {
    width = static_cast<int32_t>(bytes.little32(18));
    height = static_cast<int32_t>(bytes.little32(22));
    height = height < 0 ? -height : height;  // negative: rows from the top
    bits = bytes.little16(28);
  } else {
    throw DataError("the BMP has a header of " + std::to_string(size) + " bytes: expected 12 or at least 36");
  }
  if (bits != 1 && bits != 2 && bits != 4 && bits != 8 && bits != 16 && bits != 24 && bits != 32)
    throw DataError("the BMP has " + std::to_string(bits) + " bits a pixel");
  if (width > kMaxPictureSide || height > kMaxPictureSide || width < 0) width = height = 0;
  header.width = static_cast<int>(width);
  header.height = static_cast<int>(height);
  header.channels = bits <= 8 ? 1 : bits == 32 ? 4 : 3;
  header.bits = bits;
  const uint32_t compression = size >= 40 ? bytes.little32(30) : 0;
  const int64_t row = width * bits;  // in bits; in the file each row is padded to 32
  const int64_t needed = bytes.little32(10) + (row + 31) / 32 * 4 * (height - 1) + (row + 7) / 8;
  const bool plain = compression == 0 || compression == 3;
  if (plain && width > 0 && height > 0 && !bytes.reaches(needed - 1))
    throw DataError("the BMP ends before its picture does");
  if (bits == 32 && (compression == 3 || compression == 6)) check_bmp_fields(bytes);
}

void read_webp(PictureBytes& bytes, PictureHeader& header) {
  header.channels = 3;
  if (bytes.starts_with("VP8 ", 12)) {
    if (!bytes.starts_with("\x9D\x01\x2A", 23)) throw DataError("the WebP does not begin with a key frame");
    header.width = static_cast<int>(bytes.little16(26) & 0x3FFF);
    header.height = static_cast<int>(bytes.little16(28) & 0x3FFF);
  } else if (bytes.starts_with("VP8L", 12)) {
    if (bytes.u8(20) != 0x2F) throw DataError("the WebP has no lossless signature");
    const uint32_t packed = bytes.little32(21);
    header.width = static_cast<int>(packed & 0x3FFF) + 1;
    header.height = static_cast<int>(packed >> 14 & 0x3FFF) + 1;
    header.channels = (packed >> 28 & 1) != 0 ? 4 : 3;
  } else if (bytes.starts_with("VP8X", 12)) {
    const uint32_t flags = bytes.u8(20);
    const int64_t width = (bytes.little32(23) >> 8) + 1, height = (bytes.little32(26) >> 8) + 1;
    if (width > kMaxPictureSide || height > kMaxPictureSide) return;
    header.width = static_cast<int>(width);
    header.height = static_cast<int>(height);
    header.channels = (flags & 16) != 0 ? 4 : 3;
  } else {
    throw DataError("the WebP has no picture chunk");
  }
  header.bits = header.channels * 8;
}

// A number of an ASCII header after white space and # comments; moves `at` behind it.
int64_t read_pnm_number(PictureBytes& bytes, int64_t& at) {
  constexpr int64_t kLongest = 4096;
  const int64_t start = at;
  const auto c = [&] {
    if (at - start > kLongest) throw DataError("the PNM header is longer than 4096 bytes");
    return bytes.u8(at);
  };
  while (c() == '#' || c() == ' ' || (c() >= '\t' && c() <= '\r')) {
    if (c() == '#')
      while (c() != '\n' && c() != '\r') ++at;
    ++at;
  }
  if (c() < '0' || c() > '9') throw DataError("the PNM header has something that is not a number");
  int64_t number = 0;
  for (; c() >= '0' && c() <= '9'; ++at)
    if ((number = number * 10 + (c() - '0')) > std::numeric_limits<int32_t>::max())
      throw DataError("the PNM header has a number that is too large");
  return number;
}

void read_pnm(PictureBytes& bytes, PictureHeader& header) {
  const uint32_t kind = bytes.u8(1) - '0';
  int64_t at = 2;
  const int64_t width = read_pnm_number(bytes, at), height = read_pnm_number(bytes, at);
  const int64_t most = kind == 1 || kind == 4 ? 1 : read_pnm_number(bytes, at);
  if (most < 1 || most > 65535)
    throw DataError("the PNM has the largest value " + std::to_string(most) + ": expected 1 to 65535");
  header.channels = kind == 3 || kind == 6 ? 3 : 1;
  header.white = static_cast<int>(most);
  header.bits = kind == 4 ? 1 : header.channels * (most > 255 ? 16 : 8);
  if (width > kMaxPictureSide || height > kMaxPictureSide) return;
  header.width = static_cast<int>(width);
  header.height = static_cast<int>(height);
  const bool raw = kind >= 4;
  const int64_t needed = raw ? (width * header.bits + 7) / 8 * height : 0;
  // One white space, then the rows.
  if (!bytes.reaches(at + needed)) throw DataError("the PNM ends before its picture does");
}

// The length of the sub-blocks at `at` with the empty one that ends them.
int64_t gif_blocks(PictureBytes& bytes, int64_t at) {
  const int64_t start = at;
  while (const uint32_t length = bytes.u8(at)) at += 1 + length;
  return at + 1 - start;
}
int64_t gif_colours(uint32_t flags) { return (flags & 0x80) != 0 ? int64_t{3} << ((flags & 7) + 1) : 0; }

// The screen, made larger where the first picture needs it, as viewers do.
void read_gif(PictureBytes& bytes, PictureHeader& header) {
  header.channels = 4;
  header.width = static_cast<int>(bytes.little16(6));
  header.height = static_cast<int>(bytes.little16(8));
  for (int64_t at = 13 + gif_colours(bytes.u8(10));;) {
    const uint32_t block = bytes.u8(at);
    if (block == 0x21) {
      at += 2 + gif_blocks(bytes, at + 2);
    } else if (block == 0x2C) {
      header.width = std::max(header.width, static_cast<int>(bytes.little16(at + 1) + bytes.little16(at + 5)));
      header.height = std::max(header.height, static_cast<int>(bytes.little16(at + 3) + bytes.little16(at + 7)));
      return;
    } else {
      throw DataError(block == 0x3B ? "the GIF has no picture" : "the GIF has a block of an unknown kind");
    }
  }
}

struct Kind {
  PictureFormat format;
  bool (*is)(PictureBytes&);
  void (*read)(PictureBytes&, PictureHeader&);
};
constexpr std::array<Kind, 7> kKinds{
    {{PictureFormat::jpeg, [](PictureBytes& b) { return b.starts_with("\xFF\xD8\xFF"); }, read_jpeg},
     {PictureFormat::png, [](PictureBytes& b) { return b.starts_with("\x89PNG\r\n\x1A\n"); }, read_png},
     {PictureFormat::webp, [](PictureBytes& b) { return b.starts_with("RIFF") && b.starts_with("WEBP", 8); },
      read_webp},
     {PictureFormat::tiff, [](PictureBytes& b) { return is_tiff(b, 0); }, read_tiff},
     {PictureFormat::bmp, [](PictureBytes& b) { return b.starts_with("BM"); }, read_bmp},
     {PictureFormat::pnm,
      [](PictureBytes& b) { return b.starts_with("P") && b.reaches(1) && b.u8(1) >= '1' && b.u8(1) <= '6'; }, read_pnm},
     {PictureFormat::gif, [](PictureBytes& b) { return b.starts_with("GIF87a") || b.starts_with("GIF89a"); },
      read_gif}}};

const Kind* kind_of(PictureBytes& bytes) {
  const auto found = std::ranges::find_if(kKinds, [&](const Kind& kind) { return kind.is(bytes); });
  return found != kKinds.end() ? &*found : nullptr;
}

}  // namespace

int exif_orientation(PictureBytes& bytes, int64_t at, int64_t end) {
  try {
    if (!is_tiff(bytes, at)) return 1;
    const TiffReader tiff{bytes, at, bytes.starts_with("MM", at)};
    const int64_t directory = tiff.u32(4);
    if (at + directory + 2 > end) return 1;
    const uint32_t entries = tiff.u16(directory);
    for (uint32_t i = 0; i < entries; ++i) {
      const int64_t entry = directory + 2 + int64_t{i} * 12;
      if (at + entry + 12 > end) return 1;
      if (tiff.u16(entry) != 274) continue;
      const uint32_t value = tiff.value(entry);
      return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
    }
  } catch (const DataError&) {  // a broken Exif block turns nothing
  }
  return 1;
}

std::optional<PictureFormat> picture_format(PictureBytes& bytes) {
  const Kind* kind = kind_of(bytes);
  return kind == nullptr ? std::nullopt : std::optional(kind->format);
}

PictureHeader read_picture_header(PictureBytes& bytes) {
  const Kind* kind = kind_of(bytes);
  if (kind == nullptr) throw DataError("not a picture: expected JPEG, PNG, BMP, WebP, TIFF, PNM or GIF");
  PictureHeader header;
  header.format = kind->format;
  kind->read(bytes, header);
  if (header.width < 1 || header.height < 1)
    throw DataError("the " + std::string(name_of(header.format)) + " declares an empty or impossible size");
  if (header.transposed()) std::swap(header.width, header.height);
  return header;
}

PictureHeader read_picture_header(std::span<const uint8_t> bytes) {
  PictureBytes source(bytes);
  return read_picture_header(source);
}

}  // namespace convolt
