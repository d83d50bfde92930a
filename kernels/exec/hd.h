// HD marks a function that runs on host and device. Only .cu files may include kernels/exec/.
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

#include <cmath>
#include <cstdint>
#include <cstring>

#include "convolt/context.h"
#include "convolt/error.h"
#include "convolt/tensor.h"
