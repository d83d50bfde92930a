// What JPEG compression leaves of 16 x 16 pixels: ITU-T T.81 with the example tables of its annex K, JFIF's colours,
// and chroma of half the size.
#pragma once

#include "exec/block.h"
#include "exec/normals.h"
#include "exec/warp_picture.h"

namespace convolt {

constexpr int kMcu = 16;  // pixels along a side

struct JpegShared {
  float cosines[8][8];   // [u][x]
  float quantum[2][64];  // of luma, of chroma; [v][u]
  float bytes[3][kMcu * kMcu];
  float blocks[6][64], half[6][64];  // four of luma, two of chroma
};

// Annex K.1, rows of increasing vertical frequency.
HD int base_quantum(bool chroma, int i) {
  static constexpr uint8_t kLuma[64] = {16, 11, 10, 16, 24,  40,  51,  61,  12, 12, 14, 19, 26,  58,  60,  55,
                                        14, 13, 16, 24, 40,  57,  69,  56,  14, 17, 22, 29, 51,  87,  80,  62,
                                        18, 22, 37, 56, 68,  109, 103, 77,  24, 35, 55, 64, 81,  104, 113, 92,
                                        49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99};
  static constexpr uint8_t kChroma[16] = {17, 18, 24, 47, 18, 21, 26, 66, 24, 26, 56, 99, 47, 66, 99, 99};
  if (!chroma) return kLuma[i];
  return i / 8 < 4 && i % 8 < 4 ? kChroma[i / 8 * 4 + i % 8] : 99;
}

// libjpeg's jpeg_set_quality.
HD void begin_jpeg(const Block<kMcu * kMcu>& block, JpegShared& s, int quality) {
  block.phase_of(64, [&](int t) {
    const int u = t / 8, x = t % 8;
    const float scale = u == 0 ? 0.353553390593F : 0.5F;
    s.cosines[u][x] = scale * cosine_of_turns(static_cast<float>((2 * x + 1) * u) * (1.F / 32));
    const int percent = quality < 50 ? 5000 / quality : 200 - 2 * quality;
    for (int k = 0; k < 2; ++k) {
      const int entry = (base_quantum(k == 1, t) * percent + 50) / 100;
      s.quantum[k][t] = static_cast<float>(entry < 1 ? 1 : entry > 255 ? 255 : entry);
    }
  });
}

// to[b][.., j] = the sum over i of from[b][.., i] m(i, j), for all blocks: i and j are columns along rows, else rows.
template <class M>
HD void transform_blocks(const Block<kMcu * kMcu>& block, int blocks, const float (*from)[64], float (*to)[64],
                         bool along_rows, M m) {
  block.phase([&](int t) {
    for (int e = t; e < blocks * 64; e += kMcu * kMcu) {
      const int b = e / 64, row = e % 64 / 8, column = e % 8;
      float sum = 0;
      for (int i = 0; i < 8; ++i)
        sum += along_rows ? from[b][row * 8 + i] * m(i, column) : from[b][i * 8 + column] * m(i, row);
      to[b][e % 64] = sum;
    }
  });
}

// The pixels from (left, top) on, in place; pixels beyond the picture's edges are those of the edge.
template <int C>
HD void compress_mcu(const Block<kMcu * kMcu>& block, JpegShared& s, uint8_t* picture, int height, int width, int left,
                     int top) {
  block.phase([&](int t) {
    const int x = smaller(left + t % kMcu, width - 1), y = smaller(top + t / kMcu, height - 1);
    const uint8_t* const p = picture + (y * width + x) * C;
    const int red = p[0], green = p[C / 2], blue = p[C - 1];
    if (C == 1) {
      s.bytes[0][t] = static_cast<float>(red);
      return;
    }
    constexpr int kMiddle = 128 << 16, kHalf = 1 << 15;  // in units of 2^-16
    s.bytes[0][t] = static_cast<float>((19595 * red + 38470 * green + 7471 * blue + kHalf) >> 16);
    s.bytes[1][t] = static_cast<float>((kMiddle - 11059 * red - 21709 * green + 32768 * blue + kHalf - 1) >> 16);
    s.bytes[2][t] = static_cast<float>((kMiddle + 32768 * red - 27439 * green - 5329 * blue + kHalf - 1) >> 16);
  });
  const int last_mean = (height - top + 1) / 2 - 1;  // below an even number of rows the last means are repeated
  constexpr int kBlocks = C == 1 ? 4 : 6;
  block.phase([&](int t) {
    for (int e = t; e < kBlocks * 64; e += kMcu * kMcu) {
      const int b = e / 64, row = e % 64 / 8, column = e % 8;
      if (b < 4) {
        s.blocks[b][e % 64] = s.bytes[0][(b / 2 * 8 + row) * kMcu + b % 2 * 8 + column] - 128.F;
        continue;
      }
      const float* const p = s.bytes[b - 3] + 2 * smaller(row, last_mean) * kMcu + 2 * column;
      const float half = column % 2 == 0 ? 1.F : 2.F;  // halves go down and up in turn
      s.blocks[b][e % 64] = floorf((p[0] + p[1] + p[kMcu] + p[kMcu + 1] + half) * 0.25F) - 128.F;
    }
  });
  const auto forwards = [&](int x, int u) { return s.cosines[u][x]; };
  const auto backwards = [&](int u, int x) { return s.cosines[u][x]; };
  transform_blocks(block, kBlocks, s.blocks, s.half, true, forwards);
  transform_blocks(block, kBlocks, s.half, s.blocks, false, forwards);
  block.phase([&](int t) {
    for (int e = t; e < kBlocks * 64; e += kMcu * kMcu) {
      const float quantum = s.quantum[e / 64 < 4 ? 0 : 1][e % 64];
      float& v = s.blocks[e / 64][e % 64];
      v = rintf(v * reciprocal(quantum)) * quantum;
    }
  });
  transform_blocks(block, kBlocks, s.blocks, s.half, false, backwards);
  transform_blocks(block, kBlocks, s.half, s.blocks, true, backwards);
  block.phase([&](int t) {
    const int column = t % kMcu, row = t / kMcu, x = left + column, y = top + row;
    if (x >= width || y >= height) return;
    uint8_t* const p = picture + (y * width + x) * C;
    const auto level = [&](int b, int i) { return static_cast<float>(level_nearest(s.blocks[b][i] + 128.F)); };
    const float light = level(row / 8 * 2 + column / 8, row % 8 * 8 + column % 8);
    if (C == 1) {
      p[0] = static_cast<uint8_t>(light);
      return;
    }
    const int of_chroma = row / 2 * 8 + column / 2;
    const float blue = level(4, of_chroma) - 128.F, red = level(kBlocks - 1, of_chroma) - 128.F;
    p[0] = level_nearest(light + 1.402F * red);
    p[C / 2] = level_nearest(light - 0.344136286F * blue - 0.714136286F * red);
    p[C - 1] = level_nearest(light + 1.772F * blue);
  });
}

}  // namespace convolt
