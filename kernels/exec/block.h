// Block kernels written in phases: a phase runs for every thread of the block, a barrier separates phases. On the GPU a
// phase is the body followed by __syncthreads() and Lane<T> is a register; on the CPU a phase is a loop over the
// threads and Lane<T> an array. In tests CONVOLT_PHASES_BACKWARDS runs each CPU phase from the last thread to the
// first: a result that changes misses a barrier.
#pragma once

#include "exec/launch.h"

namespace convolt {

#if defined(__CUDA_ARCH__)
template <class T, int B>
struct Lane {
  T v;
  HD T& operator[](int) { return v; }
};
#else
template <class T, int B>
struct Lane {
  T v[B];
  T& operator[](int t) { return v[t]; }
};
#endif

// Set by tests only; read by the CPU executor.
extern bool phases_backwards;

template <int B>
struct Block {
  static constexpr int threads = B;
  int64_t index;
  bool backwards = false;

  template <class F>
  HD void phase(F f) const {
#if defined(__CUDA_ARCH__)
    f(static_cast<int>(threadIdx.x));
    __syncthreads();
#else
    if (backwards)
      for (int t = B - 1; t >= 0; --t) f(t);
    else
      for (int t = 0; t < B; ++t) f(t);
#endif
  }
};

#if defined(__CUDACC__)
template <int B, class K>
__global__ void __launch_bounds__(B) block_kernel(K k) {
  __shared__ typename K::Shared shared;
  k(Block<B>{static_cast<int64_t>(blockIdx.x), false}, shared);
}
#endif

// k(Block<B>, K::Shared&) for each of `blocks` blocks; Shared is uninitialised on entry.
template <int B, class K>
void for_each_block(Stream s, int64_t blocks, K k) {
  if (blocks <= 0) return;
#if defined(__CUDACC__)
  if (s.cuda) {
    block_kernel<B><<<static_cast<unsigned>(blocks), B, 0, static_cast<cudaStream_t>(s.handle)>>>(k);
    return check_launch("block kernel launch");
  }
#else
  (void)s;
#endif
#pragma omp parallel for schedule(static) firstprivate(k)
  for (int64_t b = 0; b < blocks; ++b) {
    typename K::Shared shared;
    k(Block<B>{b, phases_backwards}, shared);
  }
}

}  // namespace convolt
