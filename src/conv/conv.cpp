#include "conv/conv.h"

#include <fmt/format.h>

namespace convolt {

std::string ConvGeometry::to_string() const {
  std::string s =
      fmt::format("n{} {}x{}x{} -> {}, {}x{} s{}", n, in_h, in_w, in_c, out_c, kernel_h, kernel_w, stride_h);
  if (pad_h != 0 || pad_w != 0) s += fmt::format(" p{}", pad_h);
  if (dilation_h != 1) s += fmt::format(" d{}", dilation_h);
  if (groups != 1) s += fmt::format(" g{}", groups);
  return s;
}

}  // namespace convolt
