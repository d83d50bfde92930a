// A product of matrices on the tensor cores, tile by tile, whose results go through an epilogue with sums for each
// channel and never to memory as they are.
#pragma once

#include "exec/copies.h"
#include "exec/lanes.h"
#include "exec/product_tiles.h"
#include "exec/reduce.h"
#include "exec/warp_group.h"

namespace convolt {

// The rows of a, as they lie in memory. Element k of a row is at place(row), which is found once for a tile, +
// along(k), and so are the seven that follow. kChanges: whether change(packet, k) does something to eight elements from
// k on before they are multiplied. kOverlap: whether neighbouring rows have elements in common.
struct PlainRows {
  static constexpr bool kChanges = false, kOverlap = false;
  int64_t depth;
  HD int64_t place(int64_t row) const { return row * depth; }
  HD int along(int k) const { return k; }
};

// a [rows, depth], whose rows L finds, times b, [depth, channels] where kAlong, else [channels, depth]. E has kSums;
// kAhead, of how many rows a thread reads its operands at once, as registers allow; for each eight results
// operands<8>(row, c, exists) and then add(row, c, operands, common, values, sums), the values rounded to T; and for
// each eight channels of a tile common<8>(c) before and finish(c, sums) behind. N: the width of a tile.
//
// kGroups: by warp groups (warp_group.h), where the GPU has them; else by warps. Both find the matrices at the same
// places, and the CPU goes both ways in turn.
template <class T, class L, class E, int N, bool kAlong>
struct Product {
  static constexpr int kThreads = 256;
  using Team = Block<kThreads, Barrier::row>;
  static constexpr int kM = ProductTiles::height_of(N), kK = ProductTiles::kDepth, kSums = E::kSums;
  static constexpr int kLine = 64;  // elements of a line of shared memory
  static_assert(kK == kLine, "a row of a step is a line");
  // Steps that shared memory has room for, of a and, where they are not kept, of the weights; and how many are copied
  // ahead.
  static constexpr int kStages = N == 256 ? 4 : N == 128 ? 3 : 2, kStagesOfB = 2, kSteps = kStages - 1;
  // A warp makes 64 x 32 results or, in a group, 16 rows of each 64: 16 pieces of 16 x 8.
  static constexpr int kAcross = N / 32, kPiecesM = 4, kPiecesN = 4, kPieces = 16;
  static constexpr int kGroupWidth = std::min(N, 128), kGroupPieces = kGroupWidth / 8;
  // A result row in shared memory: four banks on from the one before, so that a warp's stores do not collide.
  static constexpr int kStride = N + 8;
  static constexpr int kLanes = N / 8, kSlices = kThreads / kLanes;
  // Rows of a tile for each thread of the epilogue; for how many the operands are on the way at once, which covers the
  // latency of memory (one fewer of threads that hold fragments too); and for how many while the thread still holds its
  // results.
  static constexpr int kRowsEach = kM / kSlices, kAhead = E::kAhead - (kWarpGroups ? 0 : 1), kEarly = kAhead - 2;
  // Of a step, by a thread.
  static constexpr int kPackets = kK / 8, kRowsOfCopies = kThreads / kPackets;
  static constexpr int kCopiesOfA = kM / kRowsOfCopies, kCopiesOfB = N * kK / 8 / kThreads;
  static constexpr int kStepOfB = N * kK;  // elements
  static constexpr int kKept = ProductTiles::kMostWeights / 2;

  // A team's own.
  union Own {
    alignas(1024) uint16_t a[kStages][kM * kK];  // by a pattern that repeats itself as often
    T results[kM * kStride];
    float sums[kSums * 8][kThreads + 4];  // by lane of a packet; padded against collisions
#if defined(__CUDACC__)
    Joined<kSums, 4> joined;
#endif
  };
  // On the CPU, where every team has weights of its own.
  struct Shared {
    Own own;
    alignas(16) uint16_t weights[std::max(kKept, kStagesOfB* kStepOfB)];
  };
  struct Fragments {
    Pairs<4> a[kPiecesM], b[kPiecesN / 2];
  };
  struct Results {
    float v[kPieces][4];
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
  // Of a thread: its copies, where the rows of a begin that it copies, and how far below the first of them a ends.
  struct Source {
    Copies<kSteps, kCopiesOfA + kCopiesOfB> copies;
    int64_t rows[kCopiesOfA];
    int left;
  };
  using Moving = Lane<Source, kThreads>;
  using Waiting = Lane<Operands, kThreads>;

  const T *a, *b;
  L rows_of_a;
  E epilogue;
  float* partials;  // [chunks, kSums, channels]
  int rows, rows_of_tiles, columns_of_tiles, chunks, per_chunk, depth, channels;
  bool kept;  // whether all steps of the weights stay in shared memory, else kStagesOfB of them

  HD int steps() const { return (depth + kK - 1) / kK; }
  // Eight elements of a row lie where no two of eight lines share banks. Where b lies along its channels, 64 of them
  // are a block of lines.
  HD static int at_a(int row, int packet) { return row * kLine + (packet ^ row % 8) * 8; }
  HD static int at_b(int row, int packet) { return packet / 8 * kK * kLine + at_a(row, packet % 8); }
  // The first row and column of a warp's piece.
  template <bool kGroups>
  HD static int row_of(int warp, int piece) {
    if (!kGroups) return warp / kAcross * 64 + piece / kPiecesN * 16;
    const int of_group = warp % kGroup;
    if (N == 256) return of_group * 16;
    if (N == 128) return warp * 16;
    return (warp / kGroup * 8 + piece / kGroupPieces * 4 + of_group) * 16;
  }
  template <bool kGroups>
  HD static int column_of(int warp, int piece) {
    if (!kGroups) return warp % kAcross * 32 + piece % kPiecesN * 8;
    return (N == 256 ? warp / kGroup * 128 : 0) + piece % kGroupPieces * 8;
  }

  // The rows of a thread's copies are as far apart as whole lines, so that they lie alike.
  HD void begin_rows(int t, Source& source, int first_row) const {
    const int row = first_row + t / kPackets;
    source.left = rows - row;
    unrolled<kCopiesOfA>([&](int i) { source.rows[i] = rows_of_a.place(row + i * kRowsOfCopies); });
  }
  HD void copy_a(int t, Source& source, uint16_t* stage, int step) const {
    const int packet = t % kPackets, k = step * kK + packet * 8;
    const T* const along = a + rows_of_a.along(k);
    uint16_t* const to = stage + at_a(t / kPackets, packet);
    unrolled<kCopiesOfA>([&](int i) {
      const bool exists = k < depth && i * kRowsOfCopies < source.left;
      source.copies.template copy<L::kOverlap>(to + i * kRowsOfCopies * kLine, exists ? along + source.rows[i] : a,
                                               exists);
    });
  }
  template <class C>
  HD void copy_b(int t, C& copies, uint16_t* to, int first_channel, int k) const {
    constexpr int kPacketsOfB = kAlong ? N / 8 : kPackets;
#if defined(__CUDA_ARCH__)
#pragma unroll 1  // for its registers
#endif
    for (int i = t; i < kCopiesOfB * kThreads; i += kThreads) {
      const int row = i / kPacketsOfB, packet = i % kPacketsOfB;
      const int channel = first_channel + (kAlong ? packet * 8 : row), d = k + (kAlong ? row : packet * 8);
      const bool exists = channel < channels && d < depth;
      const int64_t from = kAlong ? int64_t{d} * channels + channel : int64_t{channel} * depth + d;
      copies.template copy<false>(to + at_b(row, packet), exists ? b + from : b, exists);
    }
  }
  // What a thread has copied of a, once it is there.
  HD void change_a(int t, uint16_t* stage, int step) const {
    const int packet = t % kPackets, k = step * kK + packet * 8;
    if (k >= depth) return;
    uint16_t* const of = stage + at_a(t / kPackets, packet);
    unrolled<kCopiesOfA>([&](int i) { rows_of_a.change(reinterpret_cast<T*>(of + i * kRowsOfCopies * kLine), k); });
  }
  HD uint16_t* step_of_b(uint16_t* weights, int i) const { return weights + (kept ? i : i % kStagesOfB) * kStepOfB; }
  // Of a the i-th step along the depth; an empty group behind the last.
  HD void begin_copies(int t, Moving& moving, Own& s, int i) const {
    Source& source = moving[t];
    if (i < steps()) copy_a(t, source, s.a[i % kStages], i);
    source.copies.commit();
  }
  // The same of weights that are not kept, one step ahead.
  HD void begin_weights(int t, Moving& moving, uint16_t* weights, int first_channel, int i) const {
    if (!kept && i < steps()) copy_b(t, moving[t].copies, step_of_b(weights, i), first_channel, i * kK);
  }
  // All weights of the team's channels, of which each of the block's `teams` copies its part: every so many steps, from
  // `first` on.
  HD_ONCE void copy_weights(const Team& team, uint16_t* weights, int first_channel, int first, int teams) const {
    Lane<Copies<1, kKept / 8 / kThreads>, kThreads> moving;
    team.phase([&](int t) {
      auto& copies = moving[t];
      copies.begin(team.backwards);
      for (int i = first; i < steps(); i += teams) copy_b(t, copies, step_of_b(weights, i), first_channel, i * kK);
      copies.commit();
      copies.template wait<0>();
      show_to_groups();
    });
  }

  // 16 columns of a warp's part of b, or 16 rows of its part of a, 16 deep from packet `deep` on.
  HD void load_b(int warp, Lane<Fragments, kThreads>& f, const uint16_t* b_step, int deep, int piece) const {
    const int first = column_of<false>(warp, piece * 2);
    load_matrices<kAlong>(
        warp, [&](int t) -> Pairs<4>& { return f[t].b[piece]; },
        [&](int t) {
          const int low = t % 8, matrix = t % 32 / 8;
          if constexpr (kAlong) return b_step + at_b(deep * 8 + matrix % 2 * 8 + low, first / 8 + matrix / 2);
          return b_step + at_b(first + matrix / 2 * 8 + low, deep + matrix % 2);
        });
  }
  HD void load_a(int warp, Lane<Fragments, kThreads>& f, const uint16_t* a_step, int deep, int piece) const {
    const int row = row_of<false>(warp, piece * kPiecesN);
    load_matrices<false>(
        warp, [&](int t) -> Pairs<4>& { return f[t].a[piece]; },
        [&](int t) { return a_step + at_a(row + t % 16, deep + t % 32 / 16); });
  }
  HD_ONCE void multiply_step(int warp, Lane<Fragments, kThreads>& f, State& state, const uint16_t* a_step,
                             const uint16_t* b_step) const {
#if defined(__CUDA_ARCH__)
#pragma unroll 1  // for its registers
#endif
    for (int step = 0; step < kK / 16; ++step) {
      unrolled<kPiecesN / 2>([&](int p) { load_b(warp, f, b_step, step * 2, p); });
      load_a(warp, f, a_step, step * 2, 0);
      unrolled<kPiecesM>([&](int m) {
        if (m + 1 < kPiecesM) load_a(warp, f, a_step, step * 2, m + 1);
        unrolled<kPiecesN>([&](int n) {
          multiply<T>(
              warp, [&](int t) { return state[t].v[m * kPiecesN + n]; },
              [&](int t) -> const Pairs<4>& { return f[t].a[m]; }, [&](int t) { return f[t].b[n / 2].v + n % 2 * 2; });
        });
      });
    }
  }

  // The same by the warp's group; on a GPU the products are on their way behind it.
  HD_ONCE void multiply_step_of_group([[maybe_unused]] int warp, State& state, const uint16_t* a_step,
                                      const uint16_t* b_step) const {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    auto& v = state[0].v;
    begin_products();
    const int column = column_of<true>(warp, 0);
    const uint16_t* const of_b = b_step + (kAlong ? at_b(0, column / 8) : at_b(column, 0));
    const uint16_t* const of_a = a_step + at_a(row_of<true>(warp / kGroup * kGroup, 0), 0);
    constexpr int kLineBytes = kLine * 2;
    const uint64_t left = matrix_of(of_a, 0), right = matrix_of(of_b, kAlong ? kK * kLineBytes : 0);
    unrolled<kK / 16>([&](int step) {
      unrolled<kPieces / kGroupPieces>([&](int i) {
        multiply_group<T, kAlong, kGroupWidth>(v + i * kGroupPieces,
                                               left + (row_of<true>(0, i * kGroupPieces) * kLineBytes + step * 32) / 16,
                                               right + step * (kAlong ? 16 * kLineBytes : 32) / 16);
      });
    });
    end_products();
#elif !defined(__CUDA_ARCH__)
    each_of(warp, [&](int t) {
      for (int piece = 0; piece < kPieces; ++piece)
        for (int i = 0; i < 4; ++i) {
          const int row = row_of<true>(warp, piece) + t % kWarp / 4 + i / 2 * 8;
          const int column = column_of<true>(warp, piece) + t % 4 * 2 + i % 2;
          float& sum = state[t].v[piece][i];
          for (int k = 0; k < kK; ++k) {
            const int right = kAlong ? at_b(k, column / 8) + column % 8 : at_b(column, k / 8) + k % 8;
            sum += half_of<T>(a_step[at_a(row, k / 8) + k % 8], 0) * half_of<T>(b_step[right], 0);
          }
        }
    });
#endif
  }

  // Of plain rows the team's share of a tile of a, which the teams of all columns read: asked for while the tile before
  // is in the epilogue, which leaves no room for copies.
  HD void fetch_share(int t, int first_row, int first_channel) const {
    const int64_t end = rows_of_a.place(std::min(rows, first_row + kM));
    const int step = columns_of_tiles * kSector;
    for (int64_t i = rows_of_a.place(first_row) + t * step + first_channel / N * kSector; i < end; i += kThreads * step)
      fetch_ahead(a + i);
  }
  // What the epilogue needs of a thread's i-th row; it has the place of the row kAhead before it.
  HD void begin_row(int thread, Waiting& waiting, int first_row, int first_channel, int i) const {
    const int t = unknown(thread);
    const int row = first_row + t / kLanes + i * kSlices, c = first_channel + t % kLanes * 8;
    waiting[thread].v[i % kAhead] = epilogue.template operands<8>(row, c, row < rows && c < channels);
  }

  // The results of a tile; `more` says that another one of the chunk follows.
  template <bool kGroups>
  HD_ONCE void multiply_tile(const Team& team, Own& s, uint16_t* weights, State& state, Waiting& waiting, int first_row,
                             int first_channel, bool more) const {
    Moving moving;
    Lane<Fragments, kThreads> fragments;
    team.warps([&](int warp) {
      each_of(warp, [&](int t) {
        state[t] = {};
        moving[t].copies.begin(team.backwards);
        begin_rows(t, moving[t], first_row);
        begin_weights(t, moving, weights, first_channel, 0);
        for (int i = 0; i < kSteps; ++i) begin_copies(t, moving, s, i);
      });
    });
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
    for (int i = 0; i < steps(); ++i) {
      team.phase([&](int t) {
        auto& copies = moving[t].copies;
        if (kept)
          copies.template wait<kSteps - 1>();
        else
          copies.template wait<0>();
        if constexpr (L::kChanges) change_a(unknown(t), s.a[i % kStages], i);
        if constexpr (kGroups) show_to_groups();
      });
      team.warps([&](int warp) {
        // Into the stages that all have left behind, as the barrier before says.
        each_of(warp, [&](int t) {
          begin_weights(unknown(t), moving, weights, first_channel, i + 1);
          begin_copies(kGroups ? t : unknown(t), moving, s, i + kSteps);
        });
        if constexpr (kGroups) {
          multiply_step_of_group(warp, state, s.a[i % kStages], step_of_b(weights, i));
          wait_for_products();
        } else {
          multiply_step(warp, fragments, state, s.a[i % kStages], step_of_b(weights, i));
        }
      });
    }
    team.phase([&](int thread) {
      if constexpr (kGroups) hold(state[thread].v);
      if (!L::kOverlap && more) fetch_share(unknown(thread), first_row + kM, first_channel);
      moving[thread].copies.template wait<0>();
      unrolled<kEarly>([&](int i) { begin_row(thread, waiting, first_row, first_channel, i); });
    });
  }

  // The tile in plain order, rounded as if it were stored.
  template <bool kGroups>
  HD_ONCE void lay_out(const Team& team, Own& s, State& state) const {
    team.phase([&](int thread) {
      const int t = unknown(thread), warp = t / kWarp;
      T* const to =
          s.results + (row_of<kGroups>(warp, 0) + t % kWarp / 4) * kStride + column_of<kGroups>(warp, 0) + t % 4 * 2;
      unrolled<kPieces>([&](int p) {
        const int row = row_of<kGroups>(0, p), column = column_of<kGroups>(0, p);
        const float* const v = state[t].v[p];
        unrolled<2>([&](int i) { store(to + (row + i * 8) * kStride + column, Floats<2>{v[i * 2], v[i * 2 + 1]}); });
      });
    });
  }

  // The epilogue of a tile, and a thread's part of its sums.
  HD_ONCE void finish_tile(const Team& team, const Own& s, Waiting& waiting, Lane<Packets, kThreads>& sums,
                           int first_row, int first_channel) const {
    team.phase([&](int thread) {
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
  HD_ONCE void add_sums(const Team& team, Own& s, Lane<Packets, kThreads>& sums, Lane<Totals, kThreads>& totals,
                        int first_channel) const {
    team.phase([&](int thread) {
      const int t = unknown(thread);
      for (int k = 0; k < kSums; ++k)
        for (int j = 0; j < 8; ++j) s.sums[k * 8 + j][t] = sums[t].v[k][j];
    });
    team.phase([&](int thread) {
      each_total(unknown(thread), first_channel, [&](int i, int k, int c) {
        const float* const parts = s.sums[k * 8 + c % 8] + c / 8;
        float sum = 0;
        for (int slice = 0; slice < kSlices; ++slice) sum += parts[slice * kLanes];
        totals[thread].v[i] += sum;
      });
    });
  }

  // The chunk of a team; none where there are fewer. The weights are there where they are kept.
  template <bool kGroups>
  HD void run(const Team& team, Own& s, uint16_t* weights) const {
    const int first_channel = static_cast<int>(team.index % columns_of_tiles) * N;
    const int64_t chunk = team.index / columns_of_tiles;
    if (chunk >= chunks) return;
    const int first = static_cast<int>(chunk) * per_chunk;
    State state;
    Waiting waiting;
    Lane<Packets, kThreads> sums;
    Lane<Totals, kThreads> totals;
    team.warps([&](int warp) { each_of(warp, [&](int t) { totals[t] = {}; }); });
    const int end = std::min(first + per_chunk, rows_of_tiles);
    for (int tile = first; tile < end; ++tile) {
      multiply_tile<kGroups>(team, s, weights, state, waiting, tile * kM, first_channel, tile + 1 < end);
      lay_out<kGroups>(team, s, state);
      finish_tile(team, s, waiting, sums, tile * kM, first_channel);
      add_sums(team, s, sums, totals, first_channel);
    }
    team.phase([&](int t) {
      each_total(t, first_channel, [&](int i, int k, int c) {
        partials[(chunk * kSums + k) * channels + first_channel + c] = totals[t].v[i];
      });
    });
  }
  void operator()(Block<kThreads> block, Shared& s) const {
    const Team team{block.index, block.backwards};
    if (kept) copy_weights(team, s.weights, static_cast<int>(team.index % columns_of_tiles) * N, 0, 1);
    if (team.index % 2 == 0)
      run<true>(team, s.own, s.weights);
    else
      run<false>(team, s.own, s.weights);
  }
};

}  // namespace convolt
