// What the gradients of convolutions and linear layers begin with.
#pragma once

#include "graph/op.h"

namespace convolt {

// The gradient of the sums that bias and activation were fused into; that of the bias, operand 2, is made on the way.
ValueId gradient_of_sums(const Op& op, ConvEpilogue epilogue, GradientBuilder& b);

}  // namespace convolt
