#include <algorithm>
#include <csetjmp>
#include <cstdio>  // jpeglib.h needs it first
#include <cstring>
#include <string>

#include <jpeglib.h>

#include "convolt/error.h"
#include "data/codecs.h"

namespace convolt {
namespace {

constexpr int kMaxScans = 500;  // progressive files of normal encoders have about ten

// Everything that libjpeg's callbacks need. Plain data: longjmp runs no destructors.
struct Jpeg {
  jpeg_decompress_struct info;  // its client_data points back here
  jpeg_error_mgr errors;
  jpeg_source_mgr source;
  jpeg_progress_mgr progress;
  jmp_buf failed;
  char reason[JMSG_LENGTH_MAX];
  double deadline;
  int calls;  // of on_progress
  bool have_all_rows;
};

Jpeg& owner(j_common_ptr info) { return *static_cast<Jpeg*>(info->client_data); }

[[noreturn]] void fail(Jpeg& jpeg, const char* reason) {
  std::snprintf(jpeg.reason, sizeof jpeg.reason, "%s", reason);
  std::longjmp(jpeg.failed, 1);
}

[[noreturn]] void on_error(j_common_ptr info) {
  Jpeg& jpeg = owner(info);
  char text[JMSG_LENGTH_MAX];
  info->err->format_message(info, text);
  fail(jpeg, text);
}

void on_message(j_common_ptr, int) {}
void on_output(j_common_ptr) {}

// libjpeg asks for more bytes than the file has. Most decoders put an end marker here and go on in grey; we do so only
// when nothing but the end marker is missing.
boolean on_end_of_file(j_decompress_ptr info) {
  static constexpr JOCTET kEndOfImage[] = {0xFF, JPEG_EOI};
  Jpeg& jpeg = owner(reinterpret_cast<j_common_ptr>(info));
  if (!jpeg.have_all_rows) fail(jpeg, "the JPEG ends before its picture does");
  jpeg.source.next_input_byte = kEndOfImage;
  jpeg.source.bytes_in_buffer = sizeof kEndOfImage;
  return TRUE;
}

void on_skip(j_decompress_ptr info, long count) {
  jpeg_source_mgr& source = *info->src;
  if (count <= 0) return;
  if (static_cast<size_t>(count) > source.bytes_in_buffer) {
    on_end_of_file(info);
    return;
  }
  source.next_input_byte += count;
  source.bytes_in_buffer -= static_cast<size_t>(count);
}

void on_progress(j_common_ptr info) {
  Jpeg& jpeg = owner(info);
  if (jpeg.info.input_scan_number > kMaxScans) fail(jpeg, "the JPEG has more than 500 scans");
  constexpr int kCallsPerLook = 32;  // a call comes with each row of blocks or pixels; the clock is a system call
  if (jpeg.calls++ % kCallsPerLook == 0 && thread_seconds() > jpeg.deadline)
    fail(jpeg, "the JPEG takes too long to decode");
}

void start_source(j_decompress_ptr) {}

void create(Jpeg& jpeg, std::span<const uint8_t> file) {
  std::memset(&jpeg.info, 0, sizeof jpeg.info);
  jpeg.info.err = jpeg_std_error(&jpeg.errors);
  jpeg.errors.error_exit = on_error;
  jpeg.errors.emit_message = on_message;
  jpeg.errors.output_message = on_output;
  jpeg.info.client_data = &jpeg;
  jpeg_create_decompress(&jpeg.info);
  std::memset(&jpeg.progress, 0, sizeof jpeg.progress);
  jpeg.progress.progress_monitor = on_progress;
  jpeg.info.progress = &jpeg.progress;
  jpeg.source.init_source = start_source;
  jpeg.source.fill_input_buffer = on_end_of_file;
  jpeg.source.skip_input_data = on_skip;
  jpeg.source.resync_to_restart = jpeg_resync_to_restart;
  jpeg.source.term_source = start_source;
  jpeg.source.next_input_byte = file.data();
  jpeg.source.bytes_in_buffer = file.size();
  jpeg.info.src = &jpeg.source;
}

// Adobe's files store CMYK inverted: then a sample is how much light is left.
void cmyk_to_rgb(const uint8_t* cmyk, bool inverted, uint32_t pixels, uint8_t* rgb) {
  for (uint32_t i = 0; i < pixels; ++i) {
    const int black = inverted ? cmyk[4 * i + 3] : 255 - cmyk[4 * i + 3];
    for (int c = 0; c < 3; ++c) {
      const int ink = cmyk[4 * i + static_cast<uint32_t>(c)];
      rgb[3 * i + static_cast<uint32_t>(c)] = static_cast<uint8_t>(((inverted ? ink : 255 - ink) * black + 127) / 255);
    }
  }
}

bool is_cmyk(const jpeg_decompress_struct& info) {
  return info.jpeg_color_space == JCS_CMYK || info.jpeg_color_space == JCS_YCCK;
}

void start(Jpeg& jpeg, const PictureHeader& header, int scale) {
  jpeg_decompress_struct& info = jpeg.info;
  jpeg_read_header(&info, TRUE);
  if (static_cast<int>(info.image_width) != header.stored_width() ||
      static_cast<int>(info.image_height) != header.stored_height())
    fail(jpeg, "the JPEG declares two different sizes");
  info.out_color_space = is_cmyk(info) ? JCS_CMYK : JCS_RGB;
  info.scale_num = 1;
  info.scale_denom = static_cast<unsigned>(scale);
  jpeg_start_decompress(&info);
}

// The next rows of those columns that are decoded.
void read_rows(jpeg_decompress_struct& info, int rows, uint8_t* rgb) {
  JSAMPARRAY four = nullptr;  // one row of CMYK, freed with the decompressor
  if (is_cmyk(info))
    four = (*info.mem->alloc_sarray)(reinterpret_cast<j_common_ptr>(&info), JPOOL_IMAGE, info.output_width * 4, 1);
  for (int i = 0; i < rows; ++i) {
    uint8_t* row = rgb + static_cast<size_t>(i) * info.output_width * 3;
    jpeg_read_scanlines(&info, four ? four : &row, 1);
    if (four) cmyk_to_rgb(four[0], info.saw_Adobe_marker != 0, info.output_width, row);
  }
}

// Whether a part has the pixels of the whole. Not where libjpeg smooths a progressive file that lacks coefficients: it
// looks two blocks far, and takes the edge of the part for the edge of the picture. Nor where a component of 4:1:0 is
// made larger by its DCT and then by upsampling: jpeg_crop_scanline counts its columns as if by upsampling alone.
bool can_decode_part(const jpeg_decompress_struct& info) {
  for (int i = 0; i < info.num_components; ++i) {
    const jpeg_component_info& component = info.comp_info[i];
    const bool by_dct = component.DCT_scaled_size != info.min_DCT_scaled_size;
    if (by_dct &&
        component.h_samp_factor * component.DCT_scaled_size != info.max_h_samp_factor * info.min_DCT_scaled_size)
      return false;
  }
  if (info.coef_bits == nullptr) return true;
  for (int component = 0; component < info.num_components; ++component)
    for (int k = 0; k < DCTSIZE2; ++k)
      if (info.coef_bits[component][k] != 0) return false;
  return true;
}

// Narrows the rows to the region's columns and those that lie in blocks with them, and the region to what that gives.
void crop_columns(jpeg_decompress_struct& info, Region& region) {
  // libjpeg's upsampling blends each coarse sample with its neighbours and knows none beside the columns it decodes. So
  // it is also never left with a single sample, for which it would change to plain copies.
  const int beside = info.max_h_samp_factor;
  const int left = std::max(region.left - beside, 0);
  const int right = std::min(region.left + region.width + beside, static_cast<int>(info.output_width));
  auto first = static_cast<JDIMENSION>(left), columns = static_cast<JDIMENSION>(right - left);
  jpeg_crop_scanline(&info, &first, &columns);
  region.left = static_cast<int>(first);
  region.width = static_cast<int>(columns);
}

void skip_to(jpeg_decompress_struct& info, int row) {
  const auto to = static_cast<JDIMENSION>(row);
  if (to > info.output_scanline) jpeg_skip_scanlines(&info, to - info.output_scanline);
}

void decode_part(Jpeg& jpeg, Region& region, uint8_t* rgb) {
  jpeg_decompress_struct& info = jpeg.info;
  crop_columns(info, region);
  skip_to(info, region.top);
  read_rows(info, region.height, rgb);
}

// Skipping to the end would leave the rest of the file unread, and a broken one would pass for a good one.
void read_the_rest(Jpeg& jpeg) {
  jpeg_decompress_struct& info = jpeg.info;
  const auto last = static_cast<int>(info.output_height) - 1;
  if (static_cast<int>(info.output_scanline) > last) return;
  skip_to(info, last);
  JSAMPARRAY spare =
      (*info.mem->alloc_sarray)(reinterpret_cast<j_common_ptr>(&info), JPOOL_IMAGE, info.output_width * 3, 1);
  read_rows(info, 1, spare[0]);
}

void decode_rows(Jpeg& jpeg, const PictureHeader& header, int scale, bool known_sound, Region& region, uint8_t* rgb) {
  start(jpeg, header, scale);
  jpeg_decompress_struct& info = jpeg.info;
  const Region whole{0, 0, static_cast<int>(info.output_width), static_cast<int>(info.output_height)};
  if (region != whole && can_decode_part(info)) {
    decode_part(jpeg, region, rgb);
    if (known_sound) return;
    read_the_rest(jpeg);
  } else {
    region = whole;
    read_rows(info, whole.height, rgb);
  }
  jpeg.have_all_rows = true;
  jpeg_finish_decompress(&info);  // Pillow refuses a file whose rest is broken; so do we
}

// Apart, so that what changes before the longjmp is no local variable of the function that called setjmp.
void run(Jpeg& jpeg, const PictureHeader& header, int scale, bool known_sound, Region& region, uint8_t* rgb) {
  if (setjmp(jpeg.failed) == 0) decode_rows(jpeg, header, scale, known_sound, region, rgb);
}

}  // namespace

Region decode_jpeg(std::span<const uint8_t> file, const PictureHeader& header, int scale, const DecodeLimits& limits,
                   const Region& wanted, uint8_t* rgb) {
  if (too_short_for(file.size(), header.width, header.height))
    throw DataError("the JPEG is too short for the size that it declares");
  Jpeg jpeg;
  jpeg.reason[0] = '\0';
  jpeg.deadline = thread_seconds() + limits.max_seconds;
  jpeg.calls = 0;
  jpeg.have_all_rows = false;
  create(jpeg, file);
  Region region = wanted;
  run(jpeg, header, scale, limits.known_sound, region, rgb);
  jpeg_destroy_decompress(&jpeg.info);
  if (jpeg.reason[0] != '\0') throw DataError(jpeg.reason);
  return region;
}

}  // namespace convolt
