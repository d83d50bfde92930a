// HD marks a function that runs on host and device, HD_ONCE one that is large: on the host it is not inlined into each
// of its callers, which GCC would take minutes for. Only .cu files may include kernels/exec/.
#pragma once

#if !defined(CONVOLT_KERNEL)
#error "kernels/exec is for the .cu files of kernels/ only: a host .cpp would instantiate a CPU-only twin (ODR)"
#endif

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define HD __host__ __device__ __forceinline__
#else
#define HD inline __attribute__((always_inline))
#endif

#if defined(__CUDA_ARCH__)
#define HD_ONCE HD
#elif defined(__CUDACC__)
#define HD_ONCE __host__ __device__ __noinline__ inline
#else
#define HD_ONCE inline __attribute__((noinline))
#endif

// For lambdas that are called in many places: g++ leaves them out of line where a file has grown much, and then
// vectorises no loop around them.
#define INLINED __attribute__((always_inline))

#include <cmath>
#include <cstdint>
#include <cstring>

#include "convolt/context.h"
#include "convolt/error.h"
#include "convolt/tensor.h"

namespace convolt {

// t, but for all that a compiler knows another number each time: it then keeps nothing that follows from t in registers
// through a loop that needs them.
HD int unknown(int t) {
#if defined(__CUDA_ARCH__)
  asm volatile("" : "+r"(t));
#endif
  return t;
}

// For __launch_bounds__: how many blocks of K a multiprocessor is to have at once at least, where K says so; 0: as the
// compiler likes.
template <class K>
constexpr int blocks_per_processor() {
  if constexpr (requires { K::kBlocksPerProcessor; }) return K::kBlocksPerProcessor;
  return 0;
}

// In code for other GPUs than those that kernels were tuned on: its compilers spill for more threads at once.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ != 900
constexpr bool kElsewhere = true;
#else
constexpr bool kElsewhere = false;
#endif
// kBlocksPerProcessor of a kernel that would spill there, were there more.
constexpr int blocks_elsewhere(int blocks) { return kElsewhere ? blocks : 0; }

}  // namespace convolt
