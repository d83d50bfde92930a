// Convolutions by our own kernels for few channels a group (kernels/depthwise.h, grouped.h), on the CPU and on CUDA.
// All are repeatable, with the same bits for any number of threads, in any floating type; after the forward pass they
// add a bias and activate by ReLU or ReLU6.
#pragma once

#include <memory>
#include <vector>

#include "conv/conv.h"

namespace convolt {

// One kernel for square windows of 3, 5 or 7, strides of 1 or 2, no dilation and as many groups as channels in and out;
// none for other descriptions.
std::vector<std::unique_ptr<ConvKernel>> depthwise_candidates(const ConvDesc& desc);
// The same for groups of 4 or 8 channels in and out, windows of 3 and strides alike, and more than one group.
std::vector<std::unique_ptr<ConvKernel>> grouped_candidates(const ConvDesc& desc);
// On CUDA, whether the latter come before cuDNN's while nothing is timed: groups of 8 are what a tensor core takes, of
// which our kernels make no use.
inline bool own_grouped_first(const ConvDesc& desc) { return desc.geometry.in_c == 4 * desc.geometry.groups; }

// On the CPU, whether such a kernel is quicker than oneDNN's `library`: measured on Zen 4
// (convolt bench conv).
bool own_is_quicker(const ConvDesc& desc, const ConvKernel& library);

}  // namespace convolt
