// How a product (product.h) is cut into tiles, which the memory it needs follows from.
#pragma once

#include "exec/launch.h"

namespace convolt {

// How a product [rows, depth] x [depth, channels] is cut into tiles and dealt out. A chunk of tiles below each other
// belongs to one team of threads, which adds up their sums; how many there are depends on the shape alone, so that sums
// have the same bits on every device. Two teams share a block of the GPU, and with it the weights of their channels:
// one multiplies while the other is in its epilogue. There are no more blocks than run at once.
struct ProductTiles {
  static constexpr int kDepth = 64;               // of a step
  static constexpr int kMostWeights = 128 << 10;  // bytes that a block keeps
  int width, height;                              // of a tile
  int64_t rows_of_tiles, columns_of_tiles, per_chunk, chunks;

  // The wider the tiles, the fewer blocks read the same rows; the widest only where the weights stay and no more lies
  // beyond the last channel than with half the width.
  static int width_of(int64_t depth, int64_t channels) {
    if (channels <= 64) return 64;
    return (channels + 127) / 128 % 2 == 0 && kept(depth, 256) ? 256 : 128;
  }
  // 64 x 32 results for each of eight warps.
  static constexpr int height_of(int width) { return 64 * 256 / width; }
  static constexpr int64_t steps_of(int64_t depth) { return (depth + kDepth - 1) / kDepth; }
  // Whether all weights of a tile's channels are kept, read once for each chunk.
  static bool kept(int64_t depth, int width) { return steps_of(depth) * kDepth * width * 2 <= kMostWeights; }

  ProductTiles(int64_t rows, int64_t depth, int64_t channels)
      : width(width_of(depth, channels)),
        height(height_of(width)),
        rows_of_tiles((rows + height - 1) / height),
        columns_of_tiles((channels + width - 1) / width) {
    const int64_t most = 2 * std::max<int64_t>(1, kMultiprocessors / columns_of_tiles);
    per_chunk = std::max<int64_t>(1, (rows_of_tiles + most - 1) / most);
    chunks = (rows_of_tiles + per_chunk - 1) / per_chunk;
  }
};

}  // namespace convolt
