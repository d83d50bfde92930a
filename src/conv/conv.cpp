#include "conv/conv.h"

#include <fmt/format.h>

namespace convolt {

std::string ConvGeometry::to_string() const {
  std::string s = fmt::format("n{} {}x{}x{} -> {}, {}x{} s{}", n, in_h, in_w, in_c, out_c, kernel_h, kernel_w,
                              Size2(stride_h, stride_w).to_string());
  if (pad != Padding()) s += " p" + pad.to_string();
  if (const Size2 dilation(dilation_h, dilation_w); dilation != Size2(1)) s += " d" + dilation.to_string();
  if (groups != 1) s += fmt::format(" g{}", groups);
  return s;
}

}  // namespace convolt
