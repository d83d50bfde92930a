// JPEGs of every kind that decoders treat differently, made by libjpeg, since OpenCV's encoder has few choices.
#pragma once

#include <cstdint>
#include <cstdio>  // jpeglib.h needs it first
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include <jpeglib.h>

#include "test_files.h"

namespace convolt::test {

// Each component in a scan of its own.
inline const jpeg_scan_info kLuma{1, {0}, 0, 63, 0, 0}, kBlue{1, {1}, 0, 63, 0, 0}, kRed{1, {2}, 0, 63, 0, 0};

struct JpegKind {
  std::string name;
  int horizontal = 2, vertical = 2;  // samples of the first component to one of the others
  J_COLOR_SPACE colours = JCS_YCbCr;
  std::vector<jpeg_scan_info> scans = {};  // none: one
  bool progressive = false;                // with libjpeg's scans
  unsigned restart = 0;                    // blocks between restart markers
  bool arithmetic = false;
};

// Waves and noise, so that no two places look alike. `components` bytes a pixel.
inline Bytes textured(int width, int height, int components) {
  Bytes pixels;
  uint32_t noise = 1;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < components; ++c) {
        noise = noise * 1664525 + 1013904223;
        const int wave = ((x * (3 + c) + y * (5 - c)) % 97) + ((x / 3 * 7 + y * y) % 61);
        pixels.push_back(static_cast<uint8_t>(20 + wave + static_cast<int>(noise >> 26)));
      }
  return pixels;
}

// Of `pixels`, or of textured() ones where there are none.
inline Bytes write_jpeg(const JpegKind& kind, int width, int height, Bytes pixels = {}) {
  jpeg_compress_struct info;
  jpeg_error_mgr errors;
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* memory = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &memory, &size);
  info.image_width = static_cast<JDIMENSION>(width);
  info.image_height = static_cast<JDIMENSION>(height);
  info.input_components = kind.colours == JCS_GRAYSCALE ? 1 : kind.colours == JCS_YCbCr ? 3 : 4;
  info.in_color_space = kind.colours == JCS_YCbCr ? JCS_RGB : kind.colours == JCS_YCCK ? JCS_CMYK : kind.colours;
  jpeg_set_defaults(&info);
  jpeg_set_colorspace(&info, kind.colours);
  if (info.num_components > 1) {
    info.comp_info[0].h_samp_factor = kind.horizontal;
    info.comp_info[0].v_samp_factor = kind.vertical;
  }
  jpeg_set_quality(&info, 85, TRUE);
  if (kind.progressive) jpeg_simple_progression(&info);
  if (!kind.scans.empty()) {
    info.scan_info = kind.scans.data();
    info.num_scans = static_cast<int>(kind.scans.size());
  }
  info.restart_interval = kind.restart;
  info.arith_code = kind.arithmetic ? TRUE : FALSE;
  jpeg_start_compress(&info, TRUE);
  if (pixels.empty()) pixels = textured(width, height, info.input_components);
  for (int y = 0; y < height; ++y) {
    uint8_t* row = pixels.data() + static_cast<size_t>(y) * static_cast<size_t>(width * info.input_components);
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  Bytes file(memory, memory + size);
  std::free(memory);
  return file;
}

}  // namespace convolt::test
