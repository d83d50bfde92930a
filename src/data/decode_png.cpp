#include <png.h>

#include <array>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <vector>

#include "convolt/error.h"
#include "data/codecs.h"

namespace convolt {
namespace {

// What libpng's callbacks need. Plain data: longjmp runs no destructors.
struct Png {
  const uint8_t* next;
  size_t left;
  char reason[160];
};

[[noreturn]] void on_error(png_structp png, png_const_charp text) {
  auto& state = *static_cast<Png*>(png_get_error_ptr(png));
  std::snprintf(state.reason, sizeof state.reason, "the PNG is broken: %s", text);
  png_longjmp(png, 1);
}

void on_warning(png_structp, png_const_charp) {}

void on_read(png_structp png, png_bytep into, size_t count) {
  auto& state = *static_cast<Png*>(png_get_io_ptr(png));
  if (count > state.left) png_error(png, "it ends before its picture does");
  std::memcpy(into, state.next, count);
  state.next += count;
  state.left -= count;
}

// Profiles, texts and the like are never unpacked: they cannot change the pixels, and some are made to be large.
constexpr std::array<png_byte, 50> kIgnored{
    'i', 'C', 'C', 'P', 0, 'z', 'T', 'X', 't', 0, 'i', 'T', 'X', 't', 0, 't', 'E', 'X', 't', 0, 's', 'P', 'L', 'T', 0,
    'e', 'X', 'I', 'f', 0, 'p', 'C', 'A', 'L', 0, 's', 'C', 'A', 'L', 0, 'h', 'I', 'S', 'T', 0, 'g', 'A', 'M', 'A', 0};

void decode_rows(png_structp png, png_infop info, const PictureHeader& header, int channels, png_bytep* rows) {
  png_set_user_limits(png, kMaxPictureSide, kMaxPictureSide);
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, kIgnored.data(), static_cast<int>(kIgnored.size() / 5));
  png_read_info(png, info);
  png_set_expand(png);
  png_set_strip_16(png);
  if (channels == 4)
    png_set_add_alpha(png, 255, PNG_FILLER_AFTER);
  else
    png_set_strip_alpha(png);
  png_set_gray_to_rgb(png);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
  if (png_get_rowbytes(png, info) != static_cast<size_t>(header.width) * static_cast<size_t>(channels) ||
      png_get_image_height(png, info) != static_cast<png_uint_32>(header.height))
    png_error(png, "its size changes");
  png_read_image(png, rows);
}

// Apart, so that what changes before the longjmp is no local variable of the function that called setjmp.
void run(png_structp png, png_infop info, const PictureHeader& header, int channels, png_bytep* rows) {
  if (setjmp(png_jmpbuf(png)) == 0) decode_rows(png, info, header, channels, rows);
}

}  // namespace

void decode_png(std::span<const uint8_t> file, const PictureHeader& header, int channels, uint8_t* pixels) {
  constexpr int64_t kBestDeflate = 1032;  // bytes out for one byte in
  if ((header.width * header.bits / 8 + 1) * header.height / kBestDeflate > static_cast<int64_t>(file.size()))
    throw DataError("the PNG is too short for the size that it declares");
  std::vector<png_bytep> rows(static_cast<size_t>(header.height));
  for (size_t y = 0; y < rows.size(); ++y)
    rows[y] = pixels + y * static_cast<size_t>(header.width) * static_cast<size_t>(channels);
  Png state{file.data(), file.size(), {}};
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &state, on_error, on_warning);
  if (png == nullptr) throw DataError("libpng " PNG_LIBPNG_VER_STRING " cannot be used: it is not the library found");
  png_infop info = png_create_info_struct(png);
  if (info == nullptr) {
    png_destroy_read_struct(&png, nullptr, nullptr);
    throw OutOfMemoryError("there is no memory to decode a PNG");
  }
  png_set_read_fn(png, &state, on_read);
  run(png, info, header, channels, rows.data());
  png_destroy_read_struct(&png, &info, nullptr);
  if (state.reason[0] != '\0') throw DataError(state.reason);
}

}  // namespace convolt
