// A product of matrices on the tensor cores, tile by tile, whose results go through an epilogue with sums for each
// channel and never to memory as they are.
#pragma once

#include "exec/lanes.h"
#include "exec/reduce.h"
#include "exec/warp.h"

namespace convolt {

// The tiles of a product [rows, depth] x [depth, channels], and how they are dealt out. A chunk of tiles below each
// other belongs to one block, which adds up their sums; how many there are depends on the shape alone, so that sums
// have the same bits on every device.
struct ProductTiles {
  static constexpr int kRows = 128, kDepth = 32;
  // What fills twice the GPUs of today, with two blocks on each of their processors.
  static constexpr int64_t kBlocks = 528;
  int64_t rows_of_tiles, columns_of_tiles, chunks, per_chunk;
  ProductTiles(int64_t rows, int64_t channels, int width)
      : rows_of_tiles((rows + kRows - 1) / kRows), columns_of_tiles((channels + width - 1) / width) {
    per_chunk = std::max<int64_t>(1, (rows_of_tiles * columns_of_tiles + kBlocks - 1) / kBlocks);
    chunks = (rows_of_tiles + per_chunk - 1) / per_chunk;
  }
  int64_t blocks() const { return columns_of_tiles * chunks; }
};

// a [rows, depth] times b, [depth, channels] where kAlong, else [channels, depth]. E has kSums and, for each eight
// results, operands<8>(row, c, exists) and then add(row, c, operands, common, values, sums), the values rounded to T;
// for each eight channels of a tile, common<8>(c) before and finish(c, sums) behind. N: the width of a tile.
template <class T, class E, int N, bool kAlong>
struct Product {
  static constexpr int kThreads = 256, kBlocksPerProcessor = 2;
  static constexpr int kM = ProductTiles::kRows, kK = ProductTiles::kDepth, kStages = 3, kSums = E::kSums;
  // A warp makes kWarpM x 32 results, in pieces of 16 x 8.
  static constexpr int kAcross = N / 32, kWarpM = kM * kAcross / 8, kPiecesM = kWarpM / 16, kPiecesN = 4;
  // A result row in shared memory: four banks on from the one before, so that a warp's stores do not collide.
  static constexpr int kStride = N + 8;
  static constexpr int kLanes = N / 8, kSlices = kThreads / kLanes;
  // Rows of a tile for each thread of the epilogue; for how many the operands are on the way at once, which covers the
  // latency of memory; and for how many while the thread still holds its results. As registers allow.
  static constexpr int kRowsEach = kM / kSlices, kAhead = std::min(kRowsEach, kSums > 2 ? 3 : 5), kEarly = kAhead - 2;
  static constexpr int kCopies = kM * kK / 8 / kThreads + N * kK / 8 / kThreads;

  union Shared {
    struct {
      alignas(16) uint16_t a[kStages][kM * kK];
      uint16_t b[kStages][N * kK];
    } operands;
    T results[kM * kStride];
    float sums[kSums * 8][kThreads + 4];  // by lane of a packet; padded against collisions
#if defined(__CUDACC__)
    Joined<kSums, 4> joined;
#endif
  };
  struct Fragments {
    Pairs<4> a[kPiecesM], b[kPiecesN / 2];
  };
  struct Results {
    float v[kPiecesM][kPiecesN][4];
  };
  struct Packets {
    Floats<8> v[kSums];
  };
  struct Operands {
    typename E::template Operands<8> v[kAhead];
  };
  // Of a chunk's sums, those that a thread makes: i is sum t / N + i * kSumsAtOnce of channel t % N.
  static constexpr int kSumsAtOnce = kThreads / N, kTotals = (kSums + kSumsAtOnce - 1) / kSumsAtOnce;
  struct Totals {
    float v[kTotals];
  };
  using State = Lane<Results, kThreads>;
  using Moving = Lane<Copies<kStages - 1, kCopies>, kThreads>;
  using Waiting = Lane<Operands, kThreads>;

  const T *a, *b;
  E epilogue;
  float* partials;  // [chunks, kSums, channels]
  int rows, rows_of_tiles, columns_of_tiles, per_chunk, depth, channels;

  // Eight elements of a row lie where no two of eight rows share banks.
  HD static int at_a(int row, int packet) { return row * kK + (packet ^ (row / 2 % 4)) * 8; }
  HD static int at_b(int row, int packet) {
    return kAlong ? row * N + (packet ^ (row % 8)) * 8 : row * kK + (packet ^ (row / 2 % 4)) * 8;
  }

  template <class C>
  HD void copy_a(int t, C& copies, uint16_t* to, int first_row, int k) const {
    unrolled<kM * kK / 8 / kThreads>([&](int i) {
      const int row = t / 4 + i * 64, packet = t % 4;
      const bool exists = first_row + row < rows && k + packet * 8 < depth;
      copies.copy(to + at_a(row, packet), exists ? a + int64_t{first_row + row} * depth + k + packet * 8 : a, exists);
    });
  }
  template <class C>
  HD void copy_b(int t, C& copies, uint16_t* to, int first_channel, int k) const {
    constexpr int kPackets = kAlong ? N / 8 : kK / 8;
    unrolled<N * kK / 8 / kThreads>([&](int i) {
      const int row = (t + i * kThreads) / kPackets, packet = (t + i * kThreads) % kPackets;
      const int channel = first_channel + (kAlong ? packet * 8 : row), d = k + (kAlong ? row : packet * 8);
      const bool exists = channel < channels && d < depth;
      const int64_t from = kAlong ? int64_t{d} * channels + channel : int64_t{channel} * depth + d;
      copies.copy(to + at_b(row, packet), exists ? b + from : b, exists);
    });
  }
  // The operands of the i-th step along the depth; an empty group behind the last.
  HD void begin_copies(int t, Moving& moving, Shared& s, int first_row, int first_channel, int i) const {
    auto& copies = moving[t];
    if (i * kK < depth) {
      copy_a(t, copies, s.operands.a[i % kStages], first_row, i * kK);
      copy_b(t, copies, s.operands.b[i % kStages], first_channel, i * kK);
    }
    copies.commit();
  }

  // 16 columns of a warp's part of b, or 16 rows of its part of a, 16 deep from packet `deep` on.
  HD void load_b(int warp, Lane<Fragments, kThreads>& f, const Shared& s, int stage, int deep, int piece) const {
    const int first = warp % kAcross * 32 + piece * 16;
    load_matrices<kAlong>(
        warp, [&](int t) -> Pairs<4>& { return f[t].b[piece]; },
        [&](int t) {
          const int low = t % 8, matrix = t % 32 / 8;
          if constexpr (kAlong)
            return s.operands.b[stage] + at_b(deep * 8 + matrix % 2 * 8 + low, first / 8 + matrix / 2);
          return s.operands.b[stage] + at_b(first + matrix / 2 * 8 + low, deep + matrix % 2);
        });
  }
  HD void load_a(int warp, Lane<Fragments, kThreads>& f, const Shared& s, int stage, int deep, int piece) const {
    const int row = warp / kAcross * kWarpM + piece * 16;
    load_matrices<false>(
        warp, [&](int t) -> Pairs<4>& { return f[t].a[piece]; },
        [&](int t) { return s.operands.a[stage] + at_a(row + t % 16, deep + t % 32 / 16); });
  }
  HD void multiply_stage(int warp, Lane<Fragments, kThreads>& f, State& state, const Shared& s, int stage) const {
    unrolled<kK / 16>([&](int step) {
      unrolled<kPiecesN / 2>([&](int p) { load_b(warp, f, s, stage, step * 2, p); });
      unrolled<kPiecesM>([&](int p) { load_a(warp, f, s, stage, step * 2, p); });
      unrolled<kPiecesM>([&](int m) {
        unrolled<kPiecesN>([&](int n) {
          multiply<T>(
              warp, [&](int t) { return state[t].v[m][n]; }, [&](int t) -> const Pairs<4>& { return f[t].a[m]; },
              [&](int t) { return f[t].b[n / 2].v + n % 2 * 2; });
        });
      });
    });
  }

  // The block's share of a tile of a, which the blocks of all columns read: asked for while the tile before is in the
  // epilogue, which leaves no room for copies.
  HD void fetch_share(const Block<kThreads>& block, int first_row) const {
    const int column = static_cast<int>(block.index % columns_of_tiles);
    const int from = first_row + kM * column / columns_of_tiles;
    const int end = std::min(rows, first_row + kM * (column + 1) / columns_of_tiles);
    const int64_t bytes = int64_t{end - from} * depth * static_cast<int64_t>(sizeof(T));
    if (bytes > 0) fetch_ahead(a + int64_t{from} * depth, static_cast<int>(std::min<int64_t>(bytes, 64 << 10)));
  }
  // What the epilogue needs of a thread's i-th row; it has the place of the row kAhead before it.
  HD void begin_row(int thread, Waiting& waiting, int first_row, int first_channel, int i) const {
    const int t = unknown(thread);
    const int row = first_row + t / kLanes + i * kSlices, c = first_channel + t % kLanes * 8;
    waiting[thread].v[i % kAhead] = epilogue.template operands<8>(row, c, row < rows && c < channels);
  }

  // The results of a tile; `more` says that another one of the chunk follows.
  HD void multiply_tile(const Block<kThreads>& block, Shared& s, State& state, Waiting& waiting, int first_row,
                        int first_channel, bool more) const {
    Moving moving;
    Lane<Fragments, kThreads> fragments;
    block.warps([&](int warp) {
      each_of(warp, [&](int t) {
        state[t] = {};
        moving[t].begin(block.backwards);
        for (int i = 0; i < kStages - 1; ++i) begin_copies(unknown(t), moving, s, first_row, first_channel, i);
      });
    });
    const int steps = (depth + kK - 1) / kK;
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
    for (int i = 0; i < steps; ++i) {
      block.phase([&](int t) { moving[t].template wait<kStages - 2>(); });
      block.warps([&](int warp) {
        // Into the stage that all have left behind, as the barrier before says.
        each_of(warp, [&](int t) { begin_copies(unknown(t), moving, s, first_row, first_channel, i + kStages - 1); });
        multiply_stage(warp, fragments, state, s, i % kStages);
      });
    }
    block.phase([&](int thread) {
      if (thread == 0 && more) fetch_share(block, first_row + kM);
      moving[thread].template wait<0>();
      unrolled<kEarly>([&](int i) { begin_row(thread, waiting, first_row, first_channel, i); });
    });
  }

  // The tile in plain order, rounded as if it were stored.
  HD void lay_out(const Block<kThreads>& block, Shared& s, State& state) const {
    block.phase([&](int thread) {
      const int t = unknown(thread), warp = t / kWarp, row = warp / kAcross * kWarpM + t % kWarp / 4;
      T* const to = s.results + row * kStride + warp % kAcross * 32 + t % 4 * 2;
      unrolled<kPiecesM>([&](int m) {
        unrolled<kPiecesN>([&](int n) {
          const float* const v = state[t].v[m][n];
          unrolled<2>([&](int i) {
            store(to + (m * 16 + i * 8) * kStride + n * 8, Floats<2>{v[i * 2], v[i * 2 + 1]});
          });
        });
      });
    });
  }

  // The epilogue of a tile, and a thread's part of its sums.
  HD void finish_tile(const Block<kThreads>& block, const Shared& s, Waiting& waiting, Lane<Packets, kThreads>& sums,
                      int first_row, int first_channel) const {
    block.phase([&](int thread) {
      const int t = unknown(thread), from = t / kLanes, c = t % kLanes * 8;
      unrolled<kAhead - kEarly>([&](int i) { begin_row(thread, waiting, first_row, first_channel, kEarly + i); });
      sums[t] = {};
      if (first_channel + c >= channels) return;
      const auto common = epilogue.template common<8>(first_channel + c);
      unrolled<kRowsEach>([&](int i) {
        const int row = first_row + from + i * kSlices;
        if (row < rows) {
          const Floats<8> values = load<8>(s.results + (from + i * kSlices) * kStride + c);
          epilogue.add(row, first_channel + c, waiting[t].v[i % kAhead], common, values, sums[t].v);
        }
        if (i + kAhead < kRowsEach) begin_row(thread, waiting, first_row, first_channel, i + kAhead);
      });
      epilogue.finish(first_channel + c, sums[t].v);
    });
  }

  // f(i, k, c) for each of a thread's totals, sum k of channel c of the tile.
  template <class F>
  HD void each_total(int t, int first_channel, F f) const {
    const int c = t % N;
    if (first_channel + c >= channels) return;
    unrolled<kTotals>([&](int i) {
      const int k = t / N + i * kSumsAtOnce;
      if (k < kSums) f(i, k, c);
    });
  }
  // The sums of a tile's rows, added to those of the tiles before it in the chunk.
  HD void add_sums(const Block<kThreads>& block, Shared& s, Lane<Packets, kThreads>& sums,
                   Lane<Totals, kThreads>& totals, int first_channel) const {
    block.phase([&](int thread) {
      const int t = unknown(thread);
      for (int k = 0; k < kSums; ++k)
        for (int j = 0; j < 8; ++j) s.sums[k * 8 + j][t] = sums[t].v[k][j];
    });
    block.phase([&](int thread) {
      each_total(unknown(thread), first_channel, [&](int i, int k, int c) {
        const float* const parts = s.sums[k * 8 + c % 8] + c / 8;
        float sum = 0;
        for (int slice = 0; slice < kSlices; ++slice) sum += parts[slice * kLanes];
        totals[thread].v[i] += sum;
      });
    });
  }

  HD void operator()(Block<kThreads> block, Shared& s) const {
    const int first_channel = static_cast<int>(block.index % columns_of_tiles) * N;
    const int64_t chunk = block.index / columns_of_tiles;
    const int first = static_cast<int>(chunk) * per_chunk;
    State state;
    Waiting waiting;
    Lane<Packets, kThreads> sums;
    Lane<Totals, kThreads> totals;
    block.warps([&](int warp) { each_of(warp, [&](int t) { totals[t] = {}; }); });
    const int end = std::min(first + per_chunk, rows_of_tiles);
    for (int tile = first; tile < end; ++tile) {
      multiply_tile(block, s, state, waiting, tile * kM, first_channel, tile + 1 < end);
      lay_out(block, s, state);
      finish_tile(block, s, waiting, sums, tile * kM, first_channel);
      add_sums(block, s, sums, totals, first_channel);
    }
    block.phase([&](int t) {
      each_total(t, first_channel, [&](int i, int k, int c) {
        partials[(chunk * kSums + k) * channels + first_channel + c] = totals[t].v[i];
      });
    });
  }
};

#if defined(__CUDACC__)
template <class P, class G>
__global__ void __launch_bounds__(P::kThreads, P::kBlocksPerProcessor)
    product_kernel(P product, G finish, int64_t chunks, int width, int32_t* counters) {
  __shared__ typename P::Shared shared;
  product(Block<P::kThreads>{static_cast<int64_t>(blockIdx.x), false}, shared);
  const auto column = static_cast<int>(blockIdx.x % product.columns_of_tiles);
  if (!is_last_block(counters + column, static_cast<unsigned>(chunks))) return;
  join_partials(product.partials, chunks, product.channels, column * width, width, shared.joined, finish);
}
#endif

// The product, then finish(c, sums) for each channel; on the GPU in one launch.
template <class T, bool kAlong, int N, class E, class G>
void run_product(Stream s, const Tensor& a, const Tensor& b, int64_t channels, const E& epilogue, float* scratch,
                 const G& finish) {
  using P = Product<T, E, N, kAlong>;
  const int64_t depth = a.shape[-1], rows = a.elements() / depth;
  const ProductTiles tiles(rows, channels, N);
  const P product{a.as<const T>(),
                  b.as<const T>(),
                  epilogue,
                  scratch,
                  static_cast<int>(rows),
                  static_cast<int>(tiles.rows_of_tiles),
                  static_cast<int>(tiles.columns_of_tiles),
                  static_cast<int>(tiles.per_chunk),
                  static_cast<int>(depth),
                  static_cast<int>(channels)};
#if defined(__CUDACC__)
  if (s.cuda) {
    if (tiles.columns_of_tiles > kStreamCounters)
      throw ShapeError("a product of too many channels: " + std::to_string(channels));
    product_kernel<<<static_cast<unsigned>(tiles.blocks()), P::kThreads, 0, static_cast<cudaStream_t>(s.handle)>>>(
        product, finish, tiles.chunks, N, s.counters);
    return check_launch("pointwise convolution launch");
  }
#endif
  for_each_block_on_cpu<P::kThreads>(tiles.blocks(), product);
  join_chunks<E::kSums>(s, tiles.chunks, static_cast<int>(channels), scratch, finish);
}

}  // namespace convolt
