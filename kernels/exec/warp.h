// Products of small matrices by whole warps, on the tensor cores of a GPU (PTX ISA 9, 9.7.15: ldmatrix and mma
// m16n8k16). On the CPU the 32 threads of a warp take turns with fragments laid out as there, so that tests see every
// index that the GPU sees.
#pragma once

#include "exec/block.h"

namespace convolt {

constexpr int kWarp = 32;

// A thread's part of a matrix of 16-bit elements: N pairs of them. It holds them as bits.
template <int N>
struct Pairs {
  uint32_t v[N];
};

// Four 8x8 matrices of 16-bit elements from shared memory: from(t) is row t % 8 of matrix t % 32 / 8, eight elements
// on 16 bytes. Pair i of to(t) becomes elements 2q and 2q + 1 of row g of matrix i, with g = t % 32 / 4 and q = t % 4;
// transposed: of column g.
template <bool kTransposed, class To, class From>
HD void load_matrices([[maybe_unused]] int warp, To to, From from) {
#if defined(__CUDA_ARCH__)
  const int t = static_cast<int>(threadIdx.x);
  uint32_t* const v = to(t).v;
  const auto row = static_cast<uint32_t>(__cvta_generic_to_shared(from(t)));
  if constexpr (kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                 : "r"(row)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                 : "r"(row)
                 : "memory");
#else
  const int first = warp * kWarp;
  for (int lane = 0; lane < kWarp; ++lane)
    for (int i = 0; i < 4; ++i) {
      const auto element = [&](int e) -> uint32_t {
        const int row = kTransposed ? lane % 4 * 2 + e : lane / 4, column = kTransposed ? lane / 4 : lane % 4 * 2 + e;
        return from(first + i * 8 + row)[column];
      };
      to(first + lane).v[i] = element(0) | element(1) << 16;
    }
#endif
}

#if !defined(__CUDA_ARCH__)
// Element e of a pair; T is f16 or bf16.
template <class T>
float half_of(uint32_t pair, int e) {
  T element;
  element.bits = static_cast<uint16_t>(pair >> (16 * e));
  return static_cast<float>(element);
}
// multiply() below, of the fragments of all lanes.
template <class T>
__attribute__((noinline)) void multiply_lanes(float* const (&sums)[kWarp], const uint32_t* const (&a)[kWarp],
                                              const uint32_t* const (&b)[kWarp]) {
  float left[16][16], right[16][8];
  for (int lane = 0; lane < kWarp; ++lane) {
    const int g = lane / 4, q = lane % 4 * 2;
    for (int e = 0; e < 2; ++e) {
      for (int i = 0; i < 4; ++i) left[g + i % 2 * 8][q + i / 2 * 8 + e] = half_of<T>(a[lane][i], e);
      for (int i = 0; i < 2; ++i) right[q + i * 8 + e][g] = half_of<T>(b[lane][i], e);
    }
  }
  float products[16][8] = {};
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < 16; ++k)
      for (int column = 0; column < 8; ++column) products[row][column] += left[row][k] * right[k][column];
  for (int lane = 0; lane < kWarp; ++lane)
    for (int i = 0; i < 4; ++i) sums[lane][i] += products[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
}
#endif

// sums += a * b, of 16x16 and 16x8 elements of type T, summed in f32. With g and q as above a thread has of a the
// elements (g, 2q), (g + 8, 2q), (g, 2q + 8), (g + 8, 2q + 8) and what follows each in its row; of b (2q, g), (2q + 8,
// g) and what follows in the column; of the sums (g, 2q), (g, 2q + 1), (g + 8, 2q), (g + 8, 2q + 1).
template <class T, class Sums, class A, class B>
HD void multiply([[maybe_unused]] int warp, Sums sums, A a, B b) {
#if defined(__CUDA_ARCH__)
  const int t = static_cast<int>(threadIdx.x);
  float* const c = sums(t);
  const Pairs<4>& x = a(t);
  const uint32_t* const y = b(t);
  if constexpr (std::is_same_v<T, f16>)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(x.v[0]), "r"(x.v[1]), "r"(x.v[2]), "r"(x.v[3]), "r"(y[0]), "r"(y[1]));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(x.v[0]), "r"(x.v[1]), "r"(x.v[2]), "r"(x.v[3]), "r"(y[0]), "r"(y[1]));
#else
  float* c[kWarp];
  const uint32_t *x[kWarp], *y[kWarp];
  for (int lane = 0; lane < kWarp; ++lane) {
    const int t = warp * kWarp + lane;
    c[lane] = sums(t);
    x[lane] = a(t).v;
    y[lane] = b(t);
  }
  multiply_lanes<T>(c, x, y);
#endif
}

// Asks the second cache of a GPU for the kSector elements of 16 bits around `of`, which are read soon. (By thread:
// cp.async.bulk.prefetch takes a warp's threads one by one.)
constexpr int kSector = 16;
HD void fetch_ahead([[maybe_unused]] const void* of) {
#if defined(__CUDA_ARCH__)
  asm volatile("prefetch.global.L2 [%0];" ::"l"(of));
#endif
}

}  // namespace convolt
