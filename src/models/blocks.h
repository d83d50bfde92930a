// Blocks that several families of networks share.
#pragma once

#include <string>

#include "convolt/layers.h"

namespace convolt {

// A convolution without bias, padded so that stride 1 keeps the size, and a batch norm.
struct ConvNorm {
  std::string conv, norm;  // names
  int64_t channels = 0;
  int kernel = 1, stride = 1;
  int64_t groups = 1;
  float eps = 1e-5F, momentum = 0.1F;
  Init init = Init::kaiming_normal_fan_out();
  Init scale = Init::constant(1);  // of the norm
};
Value conv_norm(Value x, const ConvNorm& options);

using ActivationLayer = Value (*)(Value);

// x times gate(fc2(activation(fc1(mean of x)))), with one factor per channel (J. Hu et al., "Squeeze-and-Excitation
// Networks", arXiv 1709.01507); fc1 and fc2 are 1x1 convolutions named <name>.fc1 and <name>.fc2.
struct SqueezeExcitation {
  std::string name;
  int64_t channels = 0;  // between fc1 and fc2
  ActivationLayer activation = relu, gate = sigmoid;
  Init bias = Init::constant(0);
};
Value squeeze_excitation(Value x, const SqueezeExcitation& options);

// Stochastic depth, and no layer where the chance is 0.
Value drop_path(Value x, double chance);

// The multiple of `divisor` nearest to `value` (halves up, at least one divisor), the next one where that would lose
// more than a tenth: how the MobileNets' authors scale widths.
int64_t scaled_width(double value, int64_t divisor = 8);

}  // namespace convolt
