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

// Whom the barrier behind a phase is for on the GPU: all threads of the GPU's block, or, where several of these share
// one as its rows (threadIdx.y), those of a row.
enum class Barrier : uint8_t { whole, row };

template <int B, Barrier kBarrier = Barrier::whole>
struct Block {
  static constexpr int threads = B;
  int64_t index;
  bool backwards = false;

  template <class F>
  HD void phase(F f) const {
    phase_of(B, f);
  }
  // Of the first n threads; the others wait.
  template <class F>
  HD void phase_of(int n, F f) const {
#if defined(__CUDA_ARCH__)
    if (n == B || static_cast<int>(threadIdx.x) < n) f(static_cast<int>(threadIdx.x));
    if constexpr (kBarrier == Barrier::row)
      asm volatile("bar.sync %0, %1;" ::"r"(threadIdx.y + 1), "n"(B) : "memory");
    else
      __syncthreads();
#else
    if (backwards)
      for (int t = n - 1; t >= 0; --t) f(t);
    else
      for (int t = 0; t < n; ++t) f(t);
#endif
  }
  // f(warp) by each warp of 32 threads as one, without a barrier behind it.
  template <class F>
  HD void warps(F f) const {
#if defined(__CUDA_ARCH__)
    f(static_cast<int>(threadIdx.x) / 32);
#else
    for (int w = 0; w < B / 32; ++w) f(backwards ? B / 32 - 1 - w : w);
#endif
  }
};

// f(t) for each thread t of a warp, within warps().
template <class F>
HD void each_of(int warp, F f) {
#if defined(__CUDA_ARCH__)
  f(static_cast<int>(threadIdx.x));
  (void)warp;
#else
  for (int t = warp * 32; t < warp * 32 + 32; ++t) f(t);
#endif
}

#if defined(__CUDACC__)
// True in all threads of the last of `blocks` blocks to get here, which then sees what the others wrote before, and in
// no other. Leaves the counter zero, as it was.
__device__ inline bool is_last_block(int32_t* counter, unsigned blocks) {
  __threadfence();
  __syncthreads();
  bool is_last = false;
  if (threadIdx.x == 0) {
    is_last = atomicAdd(counter, 1) == static_cast<int>(blocks) - 1;
    if (is_last) *counter = 0;
  }
  const bool last = __syncthreads_or(is_last) != 0;
  if (last) __threadfence();
  return last;
}

template <int B, class K, class L>
__global__ void __launch_bounds__(B, blocks_per_processor<K>()) block_then_kernel(K k, L last, int32_t* counter) {
  __shared__ union {
    typename K::Shared first;
    typename L::Shared second;
  } shared;
  k(Block<B>{static_cast<int64_t>(blockIdx.x), false}, shared.first);
  if (is_last_block(counter, gridDim.x)) last(Block<B>{0, false}, shared.second);
}

template <int B, class K>
__global__ void __launch_bounds__(B, blocks_per_processor<K>()) block_kernel(K k) {
  __shared__ typename K::Shared shared;
  k(Block<B>{static_cast<int64_t>(blockIdx.x), false}, shared);
}
#endif

// The blocks of a thread have one Shared, so that what several of them need can be found once: it is told first that
// it holds nothing yet, if it has a member for that.
template <int B, class K>
void for_each_block_on_cpu(int64_t blocks, K k) {
#pragma omp parallel firstprivate(k)
  {
    typename K::Shared shared;
    if constexpr (requires { shared.begin_launch(); }) shared.begin_launch();
#pragma omp for schedule(static) nowait
    for (int64_t b = 0; b < blocks; ++b) k(Block<B>{b, phases_backwards}, shared);
    wait_for_stores();
  }
}

// The same blocks on a CUDA stream: what runs on GPUs alone is not compiled for the CPU.
template <int B, class K>
void for_each_block_on_cuda([[maybe_unused]] Stream s, [[maybe_unused]] int64_t blocks, [[maybe_unused]] const K& k) {
#if defined(__CUDACC__)
  if (blocks <= 0) return;
  block_kernel<B><<<static_cast<unsigned>(blocks), B, 0, static_cast<cudaStream_t>(s.handle)>>>(k);
  check_launch("block kernel launch");
#endif
}

// k(Block<B>, K::Shared&) for each of `blocks` blocks; Shared is uninitialised on entry, but for what a kernel keeps
// there on the CPU.
template <int B, class K>
void for_each_block(Stream s, int64_t blocks, K k) {
  if (blocks <= 0) return;
  if (s.cuda) return for_each_block_on_cuda<B>(s, blocks, k);
  for_each_block_on_cpu<B>(blocks, k);
}

// for_each_block(k), then `last` as one block of as many threads that sees all that k wrote; on the GPU in one launch,
// by the block that ends last.
template <int B, class K, class L>
void for_each_block_then(Stream s, int64_t blocks, K k, L last) {
  if (!s.cuda) {
    for_each_block_on_cpu<B>(blocks, k);
    return for_each_block_on_cpu<B>(1, last);
  }
  if (blocks <= 0) return for_each_block_on_cuda<B>(s, 1, last);
#if defined(__CUDACC__)
  block_then_kernel<B>
      <<<static_cast<unsigned>(blocks), B, 0, static_cast<cudaStream_t>(s.handle)>>>(k, last, s.counters);
  check_launch("block kernel launch");
#endif
}

}  // namespace convolt
