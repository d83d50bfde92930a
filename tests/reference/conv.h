// Convolution and the fully connected layer, naively and in double: the truth that every provider is held against.
// Pictures are NHWC, weights OHWI; a fully connected layer is x [rows, in], w [out, in], y [rows, out].
#pragma once

#include <vector>

#include "conv/conv.h"

namespace convolt::reference {

// y of g.y_shape(); bias [out_c] or null.
std::vector<double> conv_fprop(const ConvGeometry& g, const std::vector<double>& x, const std::vector<double>& w,
                               const std::vector<double>* bias);
// dx of g.x_shape().
std::vector<double> conv_dgrad(const ConvGeometry& g, const std::vector<double>& dy, const std::vector<double>& w);
// dw of g.w_shape().
std::vector<double> conv_wgrad(const ConvGeometry& g, const std::vector<double>& x, const std::vector<double>& dy);

std::vector<double> linear_fprop(const LinearDesc& d, const std::vector<double>& x, const std::vector<double>& w,
                                 const std::vector<double>* bias);
std::vector<double> linear_dgrad(const LinearDesc& d, const std::vector<double>& dy, const std::vector<double>& w);
std::vector<double> linear_wgrad(const LinearDesc& d, const std::vector<double>& x, const std::vector<double>& dy);
// The gradient of a bias: the sum of dy [rows, channels] over its rows.
std::vector<double> bias_gradient(const std::vector<double>& dy, int64_t channels);

}  // namespace convolt::reference
