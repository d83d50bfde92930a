#include "conv/widen.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>

namespace convolt {
namespace {

// bf16 is the upper half of a float; adding half of the last kept place (and one where that place is odd) rounds to
// even.
uint16_t to_bf16(float f) {
  uint32_t u = 0;
  std::memcpy(&u, &f, 4);
  if ((u & 0x7fffffffU) > 0x7f800000U) return static_cast<uint16_t>((u >> 16) | 0x40U);
  return static_cast<uint16_t>((u + 0x7fffU + ((u >> 16) & 1U)) >> 16);
}
float from_bf16(uint16_t bits) {
  const uint32_t u = static_cast<uint32_t>(bits) << 16;
  float f = 0;
  std::memcpy(&f, &u, 4);
  return f;
}

}  // namespace

void widen(const void* from, DType dtype, float* to, int64_t n) {
  const auto* half = static_cast<const uint16_t*>(from);
  if (dtype == DType::f32) {
    std::copy_n(static_cast<const float*>(from), n, static_cast<float*>(to));
  } else if (dtype == DType::bf16) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; ++i) to[i] = from_bf16(half[i]);
  } else {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; ++i) to[i] = _cvtsh_ss(half[i]);
  }
}

void narrow(const float* from, void* to, DType dtype, int64_t n) {
  auto* half = static_cast<uint16_t*>(to);
  if (dtype == DType::f32) {
    std::copy_n(static_cast<const float*>(from), n, static_cast<float*>(to));
  } else if (dtype == DType::bf16) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; ++i) half[i] = to_bf16(from[i]);
  } else {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; ++i) half[i] = static_cast<uint16_t>(_cvtss_sh(from[i], _MM_FROUND_TO_NEAREST_INT));
  }
}

}  // namespace convolt
