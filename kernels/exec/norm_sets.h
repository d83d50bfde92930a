// The sets that norm.h normalises: sums over each, and what is found element by element.
#pragma once

#include <numeric>
#include <vector>

#include "exec/reduce.h"
#include "norm.h"

namespace convolt {

// Where the sets of a tensor lie.
struct NormLayout {
  int channels, width;  // width: channels of a group
  int groups;
  int64_t pixels;
  Divisor by_pixels, by_width;
  NormLayout(const Tensor& x, const NormSets& sets)
      : channels(static_cast<int>(x.shape[-1])),
        width(static_cast<int>(x.shape[-1] / sets.groups)),
        groups(static_cast<int>(sets.groups)),
        pixels(sets.pixels),
        by_pixels(sets.pixels),
        by_width(width) {}
  // Of a row: its first element, and in a [sets, 2] table the first set of its picture.
  struct Place {
    int64_t first, sets;
  };
  HD Place at(int64_t row) const { return {row * channels, 2 * by_pixels.quotient(row) * groups}; }
};

// The two numbers that a [sets, 2] table holds for the sets of a packet of channels.
template <int W>
struct OfSets {
  Floats<W> first, second;
  HD OfSets(const NormLayout& l, const float* table, int64_t sets, int c) {
    int group = static_cast<int>(l.by_width.quotient(c)), channel = c - group * l.width;
    const float* of_group = table + sets + 2 * group;
    if (l.width % W == 0) {  // all of one set
      const float a = of_group[0], b = of_group[1];
      for_lanes<W>([&](int j) {
        first[j] = a;
        second[j] = b;
      });
      return;
    }
    if constexpr (W == 8)
      if (l.width == 2) {  // 64 channels in the usual 32 groups
        const Floats<8> four = load<8>(of_group);
        for_lanes<W>([&](int j) {
          first[j] = four[j / 2 * 2];
          second[j] = four[j / 2 * 2 + 1];
        });
        return;
      }
    for (int j = 0; j < W; ++j) {
      first[j] = of_group[0];
      second[j] = of_group[1];
      const bool last = ++channel == l.width;
      of_group += last ? 2 : 0;
      channel = last ? 0 : channel;
    }
  }
};

// Packets that a thread has on the way at once, as registers allow; on the CPU they are read where they are used.
template <class F, int W>
constexpr int packets_ahead() {
#if defined(__CUDA_ARCH__)
  using Operands = decltype(std::declval<const F&>().template operands<W>(int64_t{0}, true));
  return std::clamp(128 / static_cast<int>(sizeof(Operands)), 1, 4);
#else
  return 1;
#endif
}

// Two sums over each set, by blocks of 256 threads: L of them, of which each takes every L-th packet, for R sets, one
// after the other. The sums of the threads are joined in order and in double. F: kept(set, first) is read once,
// operands<W>(element, exists) before its turn, and add<W>(operands, kept, channel, sums) adds what a packet has;
// finish(set, first, sums) takes the result. first: the set's first element.
//
// The CPU has L = 1 and no blocks: to join lanes takes longer there than to sum.
template <int W, int L, int R, class F>
struct SumSets {
  static constexpr int kSets = 256 / L * R;
  struct Shared {
    float sums[2][kSets * (L + 1)];
  };
  F f;
  NormLayout l;
  int64_t sets;
  Divisor by_groups, by_packets;
  int packets;  // of one pixel

  SumSets(const NormLayout& layout, int64_t count, const F& functor)
      : f(functor),
        l(layout),
        sets(count),
        by_groups(layout.groups),
        by_packets(layout.width / W),
        packets(layout.width / W) {}
  int64_t blocks() const { return (sets + kSets - 1) / kSets; }

  // A set by one thread.
  HD void sum_whole(int64_t set) const {
    static_assert(L == 1);
    Floats<W> sums[2] = {zeros<W>(), zeros<W>()};
    sum_set(set, 0, sums);
    const double of_set[2] = {static_cast<double>(joined(sums[0])), static_cast<double>(joined(sums[1]))};
    f.finish(set, first_element(set), of_set);
  }

  HD void operator()(Block<256> block, Shared& shared) const {
    block.phase([&](int t) {
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
      for (int i = 0; i < R; ++i) {
        const int of_block = t / L * R + i;
        const int64_t set = block.index * kSets + of_block;
        Floats<W> sums[2] = {zeros<W>(), zeros<W>()};
        if (set < sets) sum_set(set, t % L, sums);
        unrolled<2>([&](int k) { shared.sums[k][of_block * (L + 1) + t % L] = joined(sums[k]); });
      }
    });
    block.phase([&](int t) {
      const int64_t set = block.index * kSets + t;
      if (t >= kSets || set >= sets) return;
      double sums[2] = {};
      for (int k = 0; k < 2; ++k)
        for (int lane = 0; lane < L; ++lane) sums[k] += static_cast<double>(shared.sums[k][t * (L + 1) + lane]);
      f.finish(set, first_element(set), sums);
    });
  }

private:
  HD static float joined(const Floats<W>& sums) {
    float sum = 0;
    unrolled<W>([&](int j) { sum += sums[j]; });
    return sum;
  }
  HD int64_t picture_of(int64_t set) const { return l.groups == 1 ? set : by_groups.quotient(set); }
  HD int first_channel(int64_t set) const { return static_cast<int>(set - picture_of(set) * l.groups) * l.width; }
  HD int64_t first_element(int64_t set) const { return picture_of(set) * l.pixels * l.channels + first_channel(set); }

  HD void sum_set(int64_t set, int lane, Floats<W> (&sums)[2]) const {
    const int first = first_channel(set);
    const int64_t begin = first_element(set), count = l.pixels * packets;
    const auto kept = f.kept(set, begin);
    constexpr int kAtOnce = packets_ahead<F, W>();
    // As read_ahead(), which would take a channel beside the operands, and in f32 up to 14 registers more.
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
    for (int64_t next = lane; next < count; next += kAtOnce * L) {
      decltype(f.template operands<W>(begin, true)) operands[kAtOnce];
      int channel[kAtOnce];
      unrolled<kAtOnce>([&](int i) {
        const int64_t k = next + i * L, pixel = l.pixels == 1 ? 0 : by_packets.quotient(k);
        const int c = static_cast<int>(k - pixel * packets) * W;
        operands[i] = f.template operands<W>(begin + pixel * l.channels + c, k < count);
        channel[i] = first + c;
      });
      unrolled<kAtOnce>([&](int i) {
        if (next + i * L < count) f.template add<W>(operands[i], kept, channel[i], sums);
      });
    }
  }
};

// On a GPU, the sums of large sets whose channels are few: a block reads whole lines of some groups of one picture,
// each thread one packet of channels, of every slices-th pixel. F: centres<W>(layout, picture, c) is read once,
// add_centred(operands, centres, sums) adds what a packet has, and weigh(set, c, sums) makes what a channel adds to its
// set.
template <class F>
struct SumPictures {
  static constexpr int kThreads = 256, kOwnBlocks = blocks_per_processor<F>();
  static constexpr int kBlocksPerProcessor = kOwnBlocks > 0 ? kOwnBlocks : 3;
  struct Shared {
    float sums[2][8][kThreads];
    double of_channel[2][kThreads];
  };
  F f;
  NormLayout l;
  int lanes, tiles;  // of packets; a tile has whole groups

  HD void operator()(Block<kThreads> block, Shared& shared) const {
    const int slices = kThreads / lanes, picture = static_cast<int>(block.index) / tiles;
    const int first = static_cast<int>(block.index) % tiles * lanes * 8;
    const int count = first + lanes * 8 < l.channels ? lanes * 8 : l.channels - first;  // channels
    block.phase([&](int t) {
      const int c = first + t % lanes * 8;
      Floats<8> sums[2] = {};
      if (t / lanes < slices && c < l.channels) sum_slice(picture, c, t / lanes, slices, sums);
      for (int k = 0; k < 2; ++k)
        for (int j = 0; j < 8; ++j) shared.sums[k][j][t] = sums[k][j];
    });
    block.phase([&](int t) {
      const int channel = t % lanes * 8 + t / lanes;  // t / lanes: of a packet
      if (t >= lanes * 8 || channel >= count) return;
      double sums[2] = {};
      for (int k = 0; k < 2; ++k)
        for (int slice = 0; slice < slices; ++slice)
          sums[k] += static_cast<double>(shared.sums[k][t / lanes][slice * lanes + t % lanes]);
      const int64_t set = int64_t{picture} * l.groups + l.by_width.quotient(first + channel);
      f.weigh(set, first + channel, sums);
      for (int k = 0; k < 2; ++k) shared.of_channel[k][channel] = sums[k];
    });
    block.phase([&](int t) {
      if (t * l.width >= count) return;
      double sums[2] = {};
      for (int k = 0; k < 2; ++k)
        for (int i = 0; i < l.width; ++i) sums[k] += shared.of_channel[k][t * l.width + i];
      const int channel = first + t * l.width;
      const int64_t set = int64_t{picture} * l.groups + l.by_width.quotient(channel);
      f.finish(set, picture * l.pixels * l.channels + channel, sums);
    });
  }

private:
  HD void sum_slice(int picture, int c, int slice, int step, Floats<8> (&sums)[2]) const {
    const int64_t begin = picture * l.pixels * l.channels + c;
    const Floats<8> centres = f.template centres<8>(l, picture, c);
    read_ahead<packets_ahead<F, 8>()>(
        slice, l.pixels, step,
        [&](int64_t pixel, bool exists) { return f.template operands<8>(begin + pixel * l.channels, exists); },
        [&](int64_t, const auto& operands) { f.template add_centred<8>(operands, centres, sums); });
  }
};

#if defined(__CUDACC__)
template <class K>
__global__ void __launch_bounds__(256, K::kBlocksPerProcessor) picture_kernel(K k) {
  __shared__ typename K::Shared shared;
  k(Block<256>{static_cast<int64_t>(blockIdx.x)}, shared);
}

// Whether it can: whole groups in at most 32 packets. Narrower tiles make more blocks of few pictures.
template <class F>
bool sum_pictures(Stream s, const NormLayout& l, int64_t sets, F f) {
  const int unit = l.width / std::gcd(l.width, 8), packets = l.channels / 8;
  const int64_t pictures = sets / l.groups;
  if (l.channels % 8 != 0 || unit > 32) return false;
  int lanes = std::min(32 / unit * unit, packets);
  const auto tiles = [&] { return (packets + lanes - 1) / lanes; };
  while (pictures * tiles() < 2 * kMultiprocessors && lanes / 2 >= std::max(4, unit)) lanes = lanes / 2 / unit * unit;
  if (pictures * tiles() > INT32_MAX) return false;
  picture_kernel<<<static_cast<unsigned>(pictures * tiles()), 256, 0, static_cast<cudaStream_t>(s.handle)>>>(
      SumPictures<F>{f, l, lanes, tiles()});
  check_launch("norm sums launch");
  return true;
}
#endif

// On the CPU, the sums of sets that lie in several pixels: pixel after pixel of a picture, by channels, so that memory
// is read in long runs; then the channels of a set are joined, in order and in double. F as for SumPictures.
template <class F>
struct PictureRows {
  F f;
  NormLayout l;
  const float* centres;  // [pictures, channels]
  template <int W>
  HD void run(int64_t row, int c, Floats<W> (&sums)[2]) const {
    const Floats<W> centre = load<W>(centres + l.by_pixels.quotient(row) * l.channels + c);
    f.template add_centred<W>(f.template operands<W>(row * l.channels + c, true), centre, sums);
  }
};

template <class F>
void sum_pictures_here(const NormLayout& l, int64_t sets, const F& f) {
  const int64_t pictures = sets / l.groups, numbers = pictures * l.channels;
  int parts = 8;  // of a picture, whatever the number of threads
  while (parts > 1 && (l.pixels % parts != 0 || l.pixels / parts < 64)) --parts;
  const int64_t rows_of_part = l.pixels / parts;
  std::vector<float> centres(static_cast<size_t>(numbers)), sums(static_cast<size_t>(2 * parts * numbers));
  for_each_on_cpu(
      pictures,
      [f, l, out = centres.data()](int64_t picture) {
        for (int c = 0; c < l.channels; ++c) out[picture * l.channels + c] = f.template centres<1>(l, picture, c)[0];
      },
      l.channels);
  const PictureRows<F> rows{f, l, centres.data()};
  if (l.channels % 8 == 0)
    reduce_chunks_here<2, 8>(pictures * l.pixels, l.channels, rows_of_part, sums.data(), rows);
  else
    reduce_chunks_here<2, 1>(pictures * l.pixels, l.channels, rows_of_part, sums.data(), rows);
  for_each_on_cpu(
      sets,
      [f, l, parts, sums = sums.data()](int64_t set) {
        const int64_t picture = set / l.groups, first = (set - picture * l.groups) * l.width;
        double total[2] = {};
        for (int64_t c = first; c < first + l.width; ++c) {
          double of_channel[2] = {};
          for (int64_t part = picture * parts; part < (picture + 1) * parts; ++part)
            for (int k = 0; k < 2; ++k) of_channel[k] += static_cast<double>(sums[(2 * part + k) * l.channels + c]);
          f.weigh(set, static_cast<int>(c), of_channel);
          for (int k = 0; k < 2; ++k) total[k] += of_channel[k];
        }
        f.finish(set, picture * l.pixels * l.channels + first, total);
      },
      l.width);
}

template <int W, class F>
void sum_rows_here(const NormLayout& l, int64_t sets, const F& f) {
  for_each_on_cpu(
      sets, [sums = SumSets<W, 1, 1, F>(l, sets, f)](int64_t set) { sums.sum_whole(set); }, l.width);
}

template <class F>
void sum_sets_here(const NormLayout& l, int64_t sets, const F& f) {
  if (l.pixels > 1) return sum_pictures_here(l, sets, f);
  if (l.width % 8 == 0) return sum_rows_here<8>(l, sets, f);
  if (l.width % 2 == 0) return sum_rows_here<2>(l, sets, f);
  sum_rows_here<1>(l, sets, f);
}

#if defined(__CUDACC__)
template <int W, int L, int R, class F>
void sum_sets_on_cuda(Stream s, const NormLayout& l, int64_t sets, const F& f) {
  const SumSets<W, L, R, F> sums(l, sets, f);
  for_each_block_on_cuda<256>(s, sums.blocks(), sums);
}

// Few threads for each small set, so that few of them idle (a row of 96 channels is 12 packets); a block for each large
// one.
template <class F>
void sum_sets_on_cuda(Stream s, const NormLayout& l, int64_t sets, const F& f) {
  const int64_t elements = l.pixels * l.width;
  const bool large = elements > 4096;
  if (large && sets > 0 && sum_pictures(s, l, sets, f)) return;
  if (l.width % 8 == 0) {
    if (elements <= 16 * 8) return sum_sets_on_cuda<8, 4, 4>(s, l, sets, f);
    if (elements <= 48 * 8) return sum_sets_on_cuda<8, 8, 8>(s, l, sets, f);
    return large ? sum_sets_on_cuda<8, 256, 1>(s, l, sets, f) : sum_sets_on_cuda<8, 32, 8>(s, l, sets, f);
  }
  if (l.width % 2 == 0)  // 64 channels in the usual 32 groups
    return large ? sum_sets_on_cuda<2, 256, 1>(s, l, sets, f) : sum_sets_on_cuda<2, 8, 1>(s, l, sets, f);
  large ? sum_sets_on_cuda<1, 256, 1>(s, l, sets, f) : sum_sets_on_cuda<1, 8, 1>(s, l, sets, f);
}
#endif

template <class F>
void sum_sets([[maybe_unused]] Stream s, const NormLayout& l, int64_t sets, const F& f) {
#if defined(__CUDACC__)
  if (s.cuda) return sum_sets_on_cuda(s, l, sets, f);
#endif
  sum_sets_here(l, sets, f);
}

// On a GPU, what is found element by element: a thread has one packet of channels of one picture, whose numbers it
// keeps, and walks along part of the pixels.
template <class F>
struct WalkPictures {
  static constexpr int kThreads = 256, kPixels = 16;  // of a thread, about
  struct Shared {};
  F f;
  NormLayout l;
  int lanes, tiles, parts;

  HD void operator()(Block<kThreads> block, Shared&) const {
    const int slices = kThreads / lanes, index = static_cast<int>(block.index);
    const int tile = index % tiles, part = index / tiles % parts, picture = index / tiles / parts;
    block.phase([&](int t) {
      const int slice = part * slices + t / lanes, c = (tile * lanes + t % lanes) * 8;
      if (t / lanes < slices && c < l.channels) walk(picture, c, slice, slices * parts);
    });
  }

private:
  HD void walk(int64_t picture, int c, int slice, int step) const {
    const int64_t begin = picture * l.pixels * l.channels + c;
    const auto kept = f.template kept<8>(2 * picture * l.groups, c);
    read_ahead<packets_ahead<F, 8>()>(
        slice, l.pixels, step,
        [&](int64_t pixel, bool exists) { return f.template operands<8>(begin + pixel * l.channels, exists); },
        [&](int64_t pixel, const auto& operands) { f.template put<8>(begin + pixel * l.channels, operands, kept); });
  }
};

template <class T, class F>
void for_each_norm_packet(Stream s, int64_t rows, const NormLayout& l, F f) {
#if defined(__CUDACC__)
  // Enough pixels that what is kept is worth reading.
  if (s.cuda && l.pixels >= 32 && l.channels % 8 == 0 && rows > 0) {
    using Walk = WalkPictures<F>;
    const int packets = l.channels / 8, tiles = (packets + 31) / 32, lanes = (packets + tiles - 1) / tiles;
    const int64_t pixels = int64_t{Walk::kPixels} * (Walk::kThreads / lanes), pictures = rows / l.pixels;
    const int64_t parts = (l.pixels + pixels - 1) / pixels;
    if (pictures * parts * tiles <= INT32_MAX)
      return for_each_block_on_cuda<256>(s, pictures * parts * tiles,
                                         Walk{f, l, lanes, tiles, static_cast<int>(parts)});
  }
#endif
  for_each_channel_packet<T>(s, rows, l.channels, f);
}

}  // namespace convolt
