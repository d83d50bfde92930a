// Launches of products (product.h), on the GPU with two teams in a block.
#pragma once

#include "exec/product.h"

namespace convolt {

#if defined(__CUDACC__)
// Teams are the rows of a block: those of chunks that follow each other, of the same channels.
template <class P, class G>
__global__ void __launch_bounds__(2 * P::kThreads, 1)
    product_kernel(P product, G finish, int width, int32_t* counters) {
  extern __shared__ __align__(1024) uint4 shared[];
  auto* const own = reinterpret_cast<typename P::Own*>(shared);
  auto* weights = reinterpret_cast<uint16_t*>(own + blockDim.y);
  const auto team = static_cast<int>(threadIdx.y), teams = static_cast<int>(blockDim.y);
  const auto column = static_cast<int>(blockIdx.x % product.columns_of_tiles);
  const int64_t chunk = int64_t{blockIdx.x / product.columns_of_tiles} * teams + team;
  const typename P::Team self{chunk * product.columns_of_tiles + column, false};
  if (product.kept) {
    product.copy_weights(self, weights, column * width, team, teams);
    __syncthreads();
  } else {
    weights += team * P::kStagesOfB * P::kStepOfB;
  }
  product.template run<kWarpGroups>(self, own[team], weights);
  __threadfence();
  __syncthreads();
  if (team > 0) return;
  if (!is_last_block(counters + column, gridDim.x / product.columns_of_tiles)) return;
  join_partials(product.partials, product.chunks, product.channels, column * width, width, own->joined, finish);
}

// How many teams share a block of this GPU, and whether it keeps the weights: by the shared memory that a block may
// have (`most`, bytes), and one where as many blocks as chunks run at once anyway. Of narrow tiles a Hopper keeps the
// weights of two teams up to a depth of 768.
struct ProductBlock {
  int teams, bytes, most;
  bool kept;
};
template <class P>
ProductBlock product_block(const P& product) {
  int device = 0, most = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) != cudaSuccess)
    check_launch("asking a GPU for its shared memory");
  const bool few = int64_t{product.chunks} * product.columns_of_tiles <= kMultiprocessors;
  for (const bool kept : {true, false})
    for (int teams = few ? 1 : 2; teams >= 1; --teams) {
      const int steps = kept ? product.steps() : teams * P::kStagesOfB;
      const ProductBlock block{teams, static_cast<int>(teams * sizeof(typename P::Own)) + steps * P::kStepOfB * 2, most,
                               kept};
      if (block.bytes <= most && (!kept || product.kept)) return block;
    }
  throw DeviceError("a pointwise convolution needs more shared memory than a block of this GPU has: " +
                    std::to_string(most) + " bytes");
}

template <class P, class G>
void launch_product(Stream s, P product, const G& finish, int width) {
  if (product.columns_of_tiles > kStreamCounters)
    throw ShapeError("a product of too many channels: " + std::to_string(product.channels));
  const ProductBlock block = product_block(product);
  product.kept = block.kept;
  // Not what this launch takes: the limit is that of all launches of the kernel, also of those in other threads.
  if (cudaFuncSetAttribute(product_kernel<P, G>, cudaFuncAttributeMaxDynamicSharedMemorySize, block.most) !=
      cudaSuccess)
    check_launch("giving a kernel its shared memory");
  const auto blocks =
      static_cast<unsigned>((product.chunks + block.teams - 1) / block.teams * product.columns_of_tiles);
  product_kernel<<<blocks, dim3(P::kThreads, static_cast<unsigned>(block.teams)), static_cast<size_t>(block.bytes),
                   static_cast<cudaStream_t>(s.handle)>>>(product, finish, width, s.counters);
  check_launch("pointwise convolution launch");
}
#endif

// The product, then finish(c, sums) for each channel; on the GPU in one launch. The CPU's loops are an eighth of a
// program's code and its plans multiply by a library, so that builds for GPUs leave them out.
template <class T, bool kAlong, int N, class L, class E, class G>
void run_product(Stream s, const Tensor& a, const L& rows_of_a, int64_t rows, int64_t depth, const Tensor& b,
                 int64_t channels, const E& epilogue, float* scratch, const G& finish) {
  using P = Product<T, L, E, N, kAlong>;
  const ProductTiles tiles(rows, depth, channels);
  const P product{a.as<const T>(),
                  b.as<const T>(),
                  rows_of_a,
                  epilogue,
                  scratch,
                  static_cast<int>(rows),
                  static_cast<int>(tiles.rows_of_tiles),
                  static_cast<int>(tiles.columns_of_tiles),
                  static_cast<int>(tiles.chunks),
                  static_cast<int>(tiles.per_chunk),
                  static_cast<int>(depth),
                  static_cast<int>(channels),
                  ProductTiles::kept(depth, N)};
#if defined(__CUDACC__)
  if (!s.cuda) throw Error("a build for GPUs has no pointwise convolutions for the CPU");
  launch_product(s, product, finish, N);
#else
  for_each_block_on_cpu<P::kThreads>(tiles.chunks * tiles.columns_of_tiles, product);
  join_chunks<E::kSums>(s, tiles.chunks, static_cast<int>(channels), scratch, finish);
#endif
}

}  // namespace convolt
