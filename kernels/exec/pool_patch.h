// Pools of stride 2 whose windows are 2x2 pixels side by side, or 3x3 pixels around every second pixel. Threads
// walk down strips with sixteen bytes of channels each, and what is there once for each channel stays in registers.
// Going back, a patch of 2x2 pixels lies in at most 2x2 windows: each is read once for its four pixels.
#pragma once

#include "exec/lanes.h"
#include "exec/pooling.h"
#include "exec/walk.h"

namespace convolt {

// Set by tests only: these kernels run on the CPU too, which else does better with its own.
extern bool pool_patches_on_cpu;

// Sixteen bytes of channels as they lie in memory, so that few registers hold many pixels.
struct alignas(16) Stored {
  uint32_t word[4];
};
template <class T>
constexpr int kStored = 16 / sizeof(T);  // channels

// The windows' positions of as many channels, a byte each.
template <int W>
struct alignas(W) StoredPositions {
  uint32_t word[W / 4];
};

// P from its place in memory, zeros where it does not exist.
template <class P, class T>
HD P fetch(const T* from, bool exists) {
  P p{};
#if defined(__CUDA_ARCH__)
  if (exists) p = *reinterpret_cast<const P*>(from);
#else
  if (exists) std::memcpy(&p, from, sizeof p);
#endif
  return p;
}
template <class P, class T>
HD void put(T* to, const P& p) {
#if defined(__CUDA_ARCH__)
  *reinterpret_cast<P*>(to) = p;
#else
  std::memcpy(to, &p, sizeof p);
#endif
}

template <class T>
HD Floats<kStored<T>> floats_of(const Stored& s) {
  Packet<T, kStored<T>> packet;
  std::memcpy(&packet, &s, sizeof packet);
  return load<kStored<T>>(packet.v);
}
template <class T>
HD Stored stored_of(const Floats<kStored<T>>& v) {
  Packet<T, kStored<T>> packet;
  store(packet.v, v);
  Stored s;
  std::memcpy(&s, &packet, sizeof s);
  return s;
}

// The positions spread over the words of Stored: each in a lane as wide as its channel. In lanes of 16 bits they are
// the last places of halves between 1 and 2, which a GPU compares two at a time.
template <int W>
struct Positions {
  static_assert(W == 8 || W == 4);
  uint32_t word[4];
  HD explicit Positions(const StoredPositions<W>& from) {
    if constexpr (W == 8) {
      for (int k = 0; k < 2; ++k) {
#if defined(__CUDA_ARCH__)
        word[2 * k] = __byte_perm(from.word[k], 0x3c3c3c3cU, 0x4140U);
        word[2 * k + 1] = __byte_perm(from.word[k], 0x3c3c3c3cU, 0x4342U);
#else
        const uint32_t low = from.word[k] & 0xffffU, high = from.word[k] >> 16;
        word[2 * k] = (low & 0xffU) | (low & 0xff00U) << 8 | 0x3c003c00U;
        word[2 * k + 1] = (high & 0xffU) | (high & 0xff00U) << 8 | 0x3c003c00U;
#endif
      }
    } else {
      for (int k = 0; k < 4; ++k) word[k] = (from.word[0] >> (8 * k)) & 0xffU;
    }
  }
  // Ones in the lanes of word k that are at `position`.
  HD uint32_t at(int k, int position) const {
    if constexpr (W == 8) {
      const uint32_t both = 0x3c003c00U + static_cast<uint32_t>(position) * 0x00010001U;
#if defined(__CUDA_ARCH__)
      __half2 a, b;
      std::memcpy(&a, &word[k], 4);
      std::memcpy(&b, &both, 4);
      return __heq2_mask(a, b);
#else
      const uint32_t other = word[k] ^ both;
      return ((other & 0xffffU) == 0 ? 0xffffU : 0U) | (other >> 16 == 0 ? 0xffff0000U : 0U);
#endif
    } else {
      return word[k] == static_cast<uint32_t>(position) ? ~0U : 0U;
    }
  }
};

// A window's gradient as it arrives, of which `second` is a part still to be added where there are two.
template <class T>
struct WindowGradient {
  Stored g, second;
  StoredPositions<kStored<T>> positions;
};
template <class T, bool kTwo>
struct WindowGradients {
  static constexpr int W = kStored<T>;
  using Window = WindowGradient<T>;
  const T *dy, *dy2;
  const uint8_t* index;
  HD WindowGradient<T> at(int64_t o, bool exists) const {
    WindowGradient<T> w{fetch<Stored>(dy + o, exists), {}, fetch<StoredPositions<kStored<T>>>(index + o, exists)};
    if constexpr (kTwo) w.second = fetch<Stored>(dy2 + o, exists);
    return w;
  }
  // By itself, so that all reads are under way before the first is waited for.
  HD void join(WindowGradient<T>& w) const {
    if constexpr (kTwo) {
      Floats<W> sum = floats_of<T>(w.g);
      const Floats<W> other = floats_of<T>(w.second);
      for_lanes<W>([&](int j) { sum[j] += other[j]; });
      w.g = stored_of<T>(sum);  // as if the sum had been stored
    }
  }
  // What the pixel at `position` gets.
  HD Floats<W> of(const WindowGradient<T>& w, int position) const {
    const Positions<W> positions(w.positions);
    Stored masked;
    for (int k = 0; k < 4; ++k) masked.word[k] = w.g.word[k] & positions.at(k, position);
    return floats_of<T>(masked);
  }
};
// The same for means of as many pixels each.
template <class T>
struct MeanGradients {
  static constexpr int W = kStored<T>;
  using Window = Stored;
  const T* dy;
  float scale;
  HD Stored at(int64_t o, bool exists) const { return fetch<Stored>(dy + o, exists); }
  HD void join(Stored&) const {}
  HD Floats<W> of(const Stored& w, int /*position*/) const {
    Floats<W> g = floats_of<T>(w);
    for_lanes<W>([&](int j) { g[j] *= scale; });
    return g;
  }
};

// Strips of the rows of [N, rows, columns] windows or patches.
struct StripPlace {
  int64_t n;
  int column, first, end;
};
struct Strips {
  static constexpr int kRows = 8;
  int rows, columns, per_column;
  Divisor by_columns, by_per_column;
  Strips(int r, int c)
      : rows(r), columns(c), per_column((r + kRows - 1) / kRows), by_columns(c), by_per_column(per_column) {}
  int64_t count(int64_t pictures) const { return pictures * per_column * columns; }
  // Neighbours lie side by side.
  HD StripPlace place(int64_t i) const {
    const int64_t line = by_columns.quotient(i), n = by_per_column.quotient(line);
    const int first = static_cast<int>(line - n * per_column) * kRows;
    return {n, static_cast<int>(i - line * columns), first, first + kRows < rows ? first + kRows : rows};
  }
};

// As far as the walks need it; the window is K x K, and K - 2 rows and columns of padding come before the picture.
struct PoolExtents {
  int h, w, out_h, out_w, channels;
  explicit PoolExtents(const Pooling& p) : h(p.in.h), w(p.in.w), out_h(p.out.h), out_w(p.out.w), channels(p.channels) {}
  HD int64_t line() const { return int64_t{w} * channels; }
  HD int64_t out_line() const { return int64_t{out_w} * channels; }
  // Channel c of a pixel, which may lie outside.
  HD int64_t in(int64_t n, int row, int column, int c) const { return ((n * h + row) * w + column) * channels + c; }
  HD int64_t out(int64_t n, int row, int column, int c) const {
    return ((n * out_h + row) * out_w + column) * channels + c;
  }
};

// Whether the kernels of this header take such a pool, on such a stream; then calls f(Known<K, K>{}).
template <class T, class F>
bool by_patches(Stream s, const Pooling& p, F f) {
  const PoolWindow& k = p.window;
  if (!(s.cuda || pool_patches_on_cpu) || k.stride_h != 2 || k.stride_w != 2 || p.channels % 8 != 0 ||
      k.kernel_h != k.kernel_w || k.pad.top != k.kernel_h - 2 || k.pad.left != k.kernel_h - 2)
    return false;
  if (k.kernel_h == 3)
    f(Known<3, 3>{});
  else if (k.kernel_h == 2)
    f(Known<2, 2>{});
  else
    return false;
  return true;
}

// f(strip, c) for each strip and each sixteen bytes of channels.
template <class T, class F>
struct WalkStrips {
  F f;
  int packets;
  Divisor by_packets;
  HD void operator()(int64_t i) const {
    const int64_t strip = by_packets.quotient(i);
    f(strip, static_cast<int>(i - strip * packets) * kStored<T>);
  }
};
template <class T, class F>
void walk_strips(Stream s, int64_t strips, int channels, const F& f) {
  if (strips == 0) return;
  const int packets = channels / kStored<T>;
  const WalkStrips<T, F> walk{f, packets, Divisor(packets)};
  if (s.cuda)
    walk_on_cuda(s, strips * packets, walk);
  else
    walk_on_cpu(strips * packets, strips * channels * Strips::kRows * 4, walk);
}

// The gradients of patches, each passed on to the end: end.coefficients(c) once for a thread, end.fetch(i, exists) what
// it reads of the pixel at element i, and end.put(coefficients, read, g, i).
template <class T, int K, class From, class End>
struct GradientPatches {
  static constexpr int W = kStored<T>;
  using Window = typename From::Window;
  From from;
  End end;
  PoolExtents e;
  Strips strips;  // of patches

  // Of pixel (R, S) of the patch. Window (i, j) of 3x3 begins a pixel before pixel (2 i, 2 j) of the patch. In the
  // order of MaxPoolGather.
  template <int R, int S>
  HD Floats<W> gather(const Window (&top)[2], const Window (&below)[2]) const {
    if constexpr (K == 2) return from.of(top[0], R * 2 + S);
    Floats<W> sum = from.of(top[0], (R + 1) * 3 + S + 1);
    const auto add = [&](const Window& w, int position) {
      const Floats<W> g = from.of(w, position);
      for_lanes<W>([&](int j) { sum[j] += g[j]; });
    };
    if constexpr (S == 1) add(top[1], (R + 1) * 3);
    if constexpr (R == 1) add(below[0], S + 1);
    if constexpr (R == 1 && S == 1) add(below[1], 0);
    return sum;
  }

  HD void operator()(int64_t strip, int c) const {
    const StripPlace at = strips.place(strip);
    const auto coefficients = end.coefficients(c);
    const bool here = at.column < e.out_w, beside = at.column + 1 < e.out_w, second = 2 * at.column + 1 < e.w;
    int64_t in = e.in(at.n, 2 * at.first, 2 * at.column, c), out = e.out(at.n, at.first, at.column, c);
    Window top[2] = {}, below[2] = {};
    if constexpr (K == 3) {
      const bool exists = at.first < e.out_h;
      top[0] = from.at(out, exists & here);
      top[1] = from.at(out + e.channels, exists & beside);
      from.join(top[0]);
      from.join(top[1]);
    }
#if defined(__CUDA_ARCH__)
#pragma unroll 1  // all reads of a patch are under way at once as it is
#endif
    for (int a = at.first; a < at.end; ++a, in += 2 * e.line(), out += e.out_line()) {
      const bool lower = 2 * a + 1 < e.h;
      if constexpr (K == 3) {
        const int64_t next = out + e.out_line();
        const bool exists = a + 1 < e.out_h;
        below[0] = from.at(next, exists & here);
        below[1] = from.at(next + e.channels, exists & beside);
      } else {
        top[0] = from.at(out, (a < e.out_h) & here);
      }
      const int64_t i[4] = {in, in + e.channels, in + e.line(), in + e.line() + e.channels};
      const auto read0 = end.fetch(i[0], true), read1 = end.fetch(i[1], second);
      const auto read2 = end.fetch(i[2], lower), read3 = end.fetch(i[3], lower & second);
      if constexpr (K == 3) {
        from.join(below[0]);
        from.join(below[1]);
      } else {
        from.join(top[0]);
      }
      end.put(coefficients, read0, gather<0, 0>(top, below), i[0]);
      if (second) end.put(coefficients, read1, gather<0, 1>(top, below), i[1]);
      if (lower) end.put(coefficients, read2, gather<1, 0>(top, below), i[2]);
      if (lower & second) end.put(coefficients, read3, gather<1, 1>(top, below), i[3]);
      if constexpr (K == 3) {
        top[0] = below[0];
        top[1] = below[1];
      }
    }
  }
};

// Runs them over all patches of the pictures.
template <class T, int K, class From, class End>
void walk_patches(Stream s, int64_t pictures, const Pooling& p, const From& from, const End& end) {
  const Strips strips((p.in.h + 1) / 2, (p.in.w + 1) / 2);
  walk_strips<T>(s, strips.count(pictures), p.channels,
                 GradientPatches<T, K, From, End>{from, end, PoolExtents(p), strips});
}

}  // namespace convolt
