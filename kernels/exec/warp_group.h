// Products of matrices by warp groups: four warps of a Hopper GPU, whose tensor cores read both matrices from shared
// memory while the threads go on (PTX ISA 9, 9.7.15: wgmma). These instructions are of sm_90a alone.
#pragma once

#include "exec/warp.h"

namespace convolt {

constexpr int kGroup = 4;  // warps

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
constexpr bool kWarpGroups = true;
#else
constexpr bool kWarpGroups = false;
#endif

// Lets the tensor cores see what this thread has written to shared memory, behind the barrier that follows.
HD void show_to_groups() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// Before products whose sums this thread has written, behind those that are waited for together, and that wait.
HD void begin_products() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
HD void end_products() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
HD void wait_for_products() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#endif
}

// What follows may touch v, and nothing before it.
template <int N>
HD void hold([[maybe_unused]] float (&v)[N][4]) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  unrolled<N>([&](int i) { asm volatile("" : "+f"(v[i][0]), "+f"(v[i][1]), "+f"(v[i][2]), "+f"(v[i][3])::"memory"); });
#endif
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
// A matrix in shared memory for wgmma: lines of 64 elements, where the eight from 8 p on lie at place p ^ line % 8 of
// eight; to_block: the bytes from one block of 64 columns to the next, for matrices with lines along their columns.
__device__ __forceinline__ uint64_t matrix_of(const uint16_t* first, int to_block) {
  const auto address = static_cast<uint64_t>(__cvta_generic_to_shared(first));
  constexpr uint64_t kEightLines = 1024, kSwizzle = 1;  // by 128 bytes
  return (address & 0x3ffff) >> 4 | static_cast<uint64_t>(to_block >> 4) << 16 | kEightLines >> 4 << 32 |
         kSwizzle << 62;
}

#define CONVOLT_PIECE(i) "+f"(v[i][0]), "+f"(v[i][1]), "+f"(v[i][2]), "+f"(v[i][3])
#define CONVOLT_EIGHT_PIECES(i)                                                                             \
  CONVOLT_PIECE(i), CONVOLT_PIECE(i + 1), CONVOLT_PIECE(i + 2), CONVOLT_PIECE(i + 3), CONVOLT_PIECE(i + 4), \
      CONVOLT_PIECE(i + 5), CONVOLT_PIECE(i + 6), CONVOLT_PIECE(i + 7)
#define CONVOLT_THIRTY_TWO                                                                                         \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, %27, %28, %29, %30, %31"
#define CONVOLT_SIXTY_FOUR                                                                                           \
  CONVOLT_THIRTY_TWO                                                                                                 \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, " \
  "%54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define CONVOLT_WGMMA_64(type)                                                                     \
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " {" CONVOLT_THIRTY_TWO \
               "}, %32, %33, 1, 1, 1, 0, %34;"                                                     \
               : CONVOLT_EIGHT_PIECES(0)                                                           \
               : "l"(a), "l"(b), "n"(kAlong))
#define CONVOLT_WGMMA_128(type)                                                                     \
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {" CONVOLT_SIXTY_FOUR \
               "}, %64, %65, 1, 1, 1, 0, %66;"                                                      \
               : CONVOLT_EIGHT_PIECES(0), CONVOLT_EIGHT_PIECES(8)                                   \
               : "l"(a), "l"(b), "n"(kAlong))

// v += a * b of 64x16 and 16xN elements, N 64 or 128. Warp w of the group and its thread t have of piece i the rows
// 16 w + t / 4 and the eighth below it, and of each the columns 8 i + t % 4 * 2 and the next. kAlong: b's rows are
// along its depth.
template <class T, bool kAlong, int N>
__device__ __forceinline__ void multiply_group(float (*v)[4], uint64_t a, uint64_t b) {
  static_assert(N == 64 || N == 128);
  constexpr bool kHalf = std::is_same_v<T, f16>;
  if constexpr (N == 64 && kHalf) CONVOLT_WGMMA_64("f16");
  if constexpr (N == 64 && !kHalf) CONVOLT_WGMMA_64("bf16");
  if constexpr (N == 128 && kHalf) CONVOLT_WGMMA_128("f16");
  if constexpr (N == 128 && !kHalf) CONVOLT_WGMMA_128("bf16");
}

#undef CONVOLT_WGMMA_128
#undef CONVOLT_WGMMA_64
#undef CONVOLT_SIXTY_FOUR
#undef CONVOLT_THIRTY_TWO
#undef CONVOLT_EIGHT_PIECES
#undef CONVOLT_PIECE
#endif

}  // namespace convolt
