// Two-byte floats with our own structs, the same on host and device. Rounding is to nearest, ties to even (IEEE 754).
#pragma once

#include "exec/hd.h"

#if !defined(__CUDA_ARCH__)
#include <immintrin.h>
#endif

namespace convolt {

HD float bits_to_float(uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}
HD uint32_t float_to_bits(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  return bits;
}

struct bf16 {
  uint16_t bits;
  bf16() = default;
  HD explicit bf16(float f) {
    const uint32_t u = float_to_bits(f);
    // NaN stays NaN (quiet); otherwise add half of the last kept place, and one more where that place is odd.
    bits = (u & 0x7fffffffU) > 0x7f800000U ? static_cast<uint16_t>((u >> 16) | 0x40U)
                                           : static_cast<uint16_t>((u + 0x7fffU + ((u >> 16) & 1U)) >> 16);
  }
  HD explicit operator float() const { return bits_to_float(static_cast<uint32_t>(bits) << 16); }
};

struct f16 {
  uint16_t bits;
  f16() = default;
  HD explicit f16(float f) {
#if defined(__CUDA_ARCH__)
    bits = __half_as_ushort(__float2half_rn(f));
#else
    bits = static_cast<uint16_t>(_cvtss_sh(f, _MM_FROUND_TO_NEAREST_INT));
#endif
  }
  HD explicit operator float() const {
#if defined(__CUDA_ARCH__)
    return __half2float(__ushort_as_half(bits));
#else
    return _cvtsh_ss(bits);
#endif
  }
};

// Calls f(T{}) with the element type of a floating dtype.
template <class F>
void dispatch_float(DType t, const char* op, F f) {
  switch (t) {
    case DType::f32:
      return f(float{});
    case DType::bf16:
      return f(bf16{});
    case DType::f16:
      return f(f16{});
    default:
      throw Error(std::string(op) + " takes f32, bf16 or f16, found " + std::string(name_of(t)));
  }
}

// W floats, and loads and stores of W elements of storage type T at a W-aligned place: 16-byte accesses wherever W
// fills them.
template <int W>
struct Floats {
  float v[W];
  HD float& operator[](int i) { return v[i]; }
  HD float operator[](int i) const { return v[i]; }
};

template <class T, int W>
struct alignas(sizeof(T) * W >= 16 ? 16 : sizeof(T) * W) Packet {
  T v[W];
};

template <int W, class T>
HD Floats<W> load(const T* p) {
  const Packet<T, W> packet = *reinterpret_cast<const Packet<T, W>*>(p);
  Floats<W> r;
#if defined(__CUDACC__)
#pragma unroll
#endif
  for (int i = 0; i < W; ++i) r.v[i] = static_cast<float>(packet.v[i]);
  return r;
}

template <int W, class T>
HD void store(T* p, const Floats<W>& x) {
  Packet<T, W> packet;
#if defined(__CUDACC__)
#pragma unroll
#endif
  for (int i = 0; i < W; ++i) packet.v[i] = static_cast<T>(x.v[i]);
  *reinterpret_cast<Packet<T, W>*>(p) = packet;
}

}  // namespace convolt
