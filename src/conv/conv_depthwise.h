// Convolutions by our own depthwise kernels (kernels/depthwise.h), on the CPU and on CUDA.
#pragma once

#include <memory>
#include <vector>

#include "conv/conv.h"

namespace convolt {

// One kernel, repeatable and with the same bits for any number of threads, for square windows of 3, 5 or 7, strides of
// 1 or 2, no dilation and as many groups as channels in and out, in any floating type; bias and ReLU or ReLU6 after the
// forward pass. None for other descriptions.
std::vector<std::unique_ptr<ConvKernel>> depthwise_candidates(const ConvDesc& desc);

// On the CPU, whether it is quicker than oneDNN's `library`: measured on Zen 4 (convolt bench conv).
bool depthwise_is_quicker(const ConvDesc& desc, const ConvKernel& library);

}  // namespace convolt
