// Dense arrays of doubles, as the references have them.
#pragma once

#include <vector>

#include "convolt/tensor.h"

namespace convolt::reference {

// Where element (n, h, w, c) of an NHWC array lies.
inline size_t at(const Shape& s, int64_t n, int64_t h, int64_t w, int64_t c) {
  return static_cast<size_t>(((n * s[1] + h) * s[2] + w) * s[3] + c);
}
inline std::vector<double> zeros(const Shape& s) { return std::vector<double>(static_cast<size_t>(s.elements())); }

}  // namespace convolt::reference
