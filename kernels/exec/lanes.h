// Channels of pixels as sums and factors that stay in registers for long, as a convolution's do.
#pragma once

#include "exec/types.h"

namespace convolt {

// f(i) for i in [0, N), unrolled, so that arrays indexed by i are registers. nvcc hands the pragma on to g++, though it
// does not know it.
#if defined(__CUDACC__)
#pragma nv_diagnostic push
#pragma nv_diag_suppress 1675
#endif
template <int N, class F>
HD void unrolled(F f) {
#if defined(__CUDA_ARCH__)
#pragma unroll
#else
#pragma GCC unroll 64
#endif
  for (int i = 0; i < N; ++i) f(i);
}
#if defined(__CUDACC__)
#pragma nv_diagnostic pop
#endif

// W floats, at most 8. On the CPU they are one vector register: g++ leaves arrays that live for long in memory.
#if defined(__CUDA_ARCH__)
template <int W>
struct Lanes {
  Floats<W> v;
};
template <int W, class T>
HD Lanes<W> load_lanes(const T* p) {
  return {load<W>(p)};
}
template <int W>
HD Floats<W> floats(const Lanes<W>& x) {
  return x.v;
}
template <int W>
HD Lanes<W> all_lanes(float f) {
  Lanes<W> r;
  for_lanes<W>([&](int j) { r.v[j] = f; });
  return r;
}
// sum += a * b, rounded once.
template <int W>
HD void add_product(Lanes<W>& sum, const Lanes<W>& a, const Lanes<W>& b) {
  for_lanes<W>([&](int j) { sum.v[j] = fmaf(a.v[j], b.v[j], sum.v[j]); });
}
#else
template <int W>
struct Lanes {
  __m128 v;
};
template <>
struct Lanes<8> {
  __m256 v;
};
template <int W, class T>
HD Lanes<W> load_lanes(const T* p) {
  if constexpr (W == 8) {
    return {load8(p)};
  } else {
    float v[4] = {};
    for (int j = 0; j < W; ++j) v[j] = static_cast<float>(p[j]);
    return {_mm_loadu_ps(v)};
  }
}
template <int W>
HD Floats<W> floats(const Lanes<W>& x) {
  Floats<W> r;
  std::memcpy(r.v, &x.v, sizeof r.v);
  return r;
}
template <int W>
HD Lanes<W> all_lanes(float f) {
  if constexpr (W == 8)
    return {_mm256_set1_ps(f)};
  else
    return {_mm_set1_ps(f)};
}
template <int W>
HD void add_product(Lanes<W>& sum, const Lanes<W>& a, const Lanes<W>& b) {
  if constexpr (W == 8)
    sum.v = _mm256_fmadd_ps(a.v, b.v, sum.v);
  else
    sum.v = _mm_fmadd_ps(a.v, b.v, sum.v);
}
#endif

// Asks the CPU's caches for what lies 4 KB on: left to themselves they look ahead too little for all of the memory's
// speed.
HD void ask_ahead([[maybe_unused]] const void* p) {
#if !defined(__CUDA_ARCH__)
  _mm_prefetch(reinterpret_cast<const char*>(reinterpret_cast<uintptr_t>(p) + 4096), _MM_HINT_T0);
#endif
}
// Of memory that is read from its beginning to its end.
template <int W, class T>
HD Floats<W> load_ahead(const T* p) {
  if constexpr (W == 8) ask_ahead(p);
  return load<W>(p);
}

// W channels of a pixel that are used later, zeros where the pixel does not exist. A GPU reads them at once, as stored,
// so that many reads are under way while sums are made; the CPU, which has few registers, where
// they are used, and asks ahead.
#if defined(__CUDA_ARCH__)
template <int kBytes>
struct Words {
  struct Type {
    uint4 quads[kBytes / 16];
  };
};
template <>
struct Words<8> {
  using Type = uint2;
};
template <>
struct Words<4> {
  using Type = uint32_t;
};
template <>
struct Words<2> {
  using Type = uint16_t;
};
template <class T, int W>
struct Ahead {
  typename Words<sizeof(T) * W>::Type words;
  HD static Ahead of(const T* p, bool exists) {
    Ahead a{};
    if (exists) a = *reinterpret_cast<const Ahead*>(p);
    return a;
  }
  HD Lanes<W> lanes() const {
    Packet<T, W> packet;
    std::memcpy(&packet, &words, sizeof packet);
    Lanes<W> r;
    for_lanes<W>([&](int j) { r.v[j] = static_cast<float>(packet.v[j]); });
    return r;
  }
  HD Floats<W> of_existing() const { return lanes().v; }
};
#else
template <class T, int W>
struct Ahead {
  const T* p;
  HD static Ahead of(const T* p, bool exists) {
    if constexpr (W == 8)
      if (exists) ask_ahead(p);
    return {exists ? p : nullptr};
  }
  HD Lanes<W> lanes() const { return p ? load_lanes<W>(p) : Lanes<W>{}; }
  HD Floats<W> of_existing() const { return load<W>(p); }
};
#endif

// use(i, read(i, exists)) for every step-th i of [first, last), in order; N reads are on the way before the first of
// them is used, and beyond the last nothing exists.
template <int N, class Step, class Read, class Use>
HD void read_ahead(int64_t first, int64_t last, Step step, Read read, Use use) {
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
  for (int64_t i = first; i < last; i += N * step) {
    decltype(read(i, true)) operands[N];
    unrolled<N>([&](int k) { operands[k] = read(i + k * step, i + k * step < last); });
    unrolled<N>([&](int k) {
      if (i + k * step < last) use(i + k * step, operands[k]);
    });
  }
}

}  // namespace convolt
