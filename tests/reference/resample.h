// Borders around NHWC pictures and pictures of another size, in double. The gradients scatter.
#pragma once

#include <vector>

#include "convolt/shape.h"

namespace convolt::reference {

// `shape` of x, [N, H, W, C].
std::vector<double> pad(const std::vector<double>& x, const Shape& shape, const Padding& padding, double value);
std::vector<double> pad_backward(const std::vector<double>& dy, const Shape& shape, const Padding& padding);

// To [N, h, w, C]: the pixel that the left upper corner of each new one lies in, or bilinear between pixel centres.
std::vector<double> resample(const std::vector<double>& x, const Shape& shape, int64_t h, int64_t w, bool bilinear);
std::vector<double> resample_backward(const std::vector<double>& dy, const Shape& shape, int64_t h, int64_t w,
                                      bool bilinear);

}  // namespace convolt::reference
