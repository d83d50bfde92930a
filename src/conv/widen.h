// Conversions between 16-bit storage and float for providers that lack a type. Rounding to nearest, ties to even.
#pragma once

#include <cstdint>

#include "convolt/dtype.h"

namespace convolt {

// to[i] = from[i]; `from` holds n elements of `dtype` (f32, bf16 or f16). Runs on the calling thread and its OpenMP
// threads.
void widen(const void* from, DType dtype, float* to, int64_t n);
void narrow(const float* from, void* to, DType dtype, int64_t n);

}  // namespace convolt
