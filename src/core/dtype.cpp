#include "convolt/dtype.h"

#include <string>

#include "convolt/error.h"

namespace convolt {

std::string_view name_of(DType t) {
  switch (t) {
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::f16:
      return "f16";
    case DType::u8:
      return "u8";
    case DType::i32:
      return "i32";
  }
  return "?";
}

DType dtype_from_name(std::string_view name) {
  for (DType t : {DType::f32, DType::bf16, DType::f16, DType::u8, DType::i32})
    if (name == name_of(t)) return t;
  throw UsageError("unknown element type '" + std::string(name) + "': expected f32, bf16, f16, u8 or i32");
}

}  // namespace convolt
