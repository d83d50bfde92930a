// Element types. Arithmetic is done in float whatever the storage; f16 and bf16 are two-byte structs of our own, so
// that host compilers and nvcc agree on them.
#pragma once

#include <cstdint>
#include <string_view>

namespace convolt {

// The type of a tensor's elements.
enum class DType : uint8_t { f32, bf16, f16, u8, i32 };

// Bytes of one element.
constexpr int64_t size_of(DType t) {
  switch (t) {
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::bf16:
    case DType::f16:
      return 2;
    case DType::u8:
      return 1;
  }
  return 0;
}

// "f32", "bf16", "f16", "u8", "i32".
std::string_view name_of(DType t);

// The inverse of name_of; throws UsageError that lists the known names.
DType dtype_from_name(std::string_view name);

}  // namespace convolt
