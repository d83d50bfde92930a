// Convolutions by our own tensor-core kernels for single pixels and for stems (kernels/pointwise.h), on CUDA: what the
// library does not fuse, where that is worth more than the library's quicker products.
#pragma once

#include <memory>
#include <vector>

#include "conv/conv.h"

namespace convolt {

// One kernel for 1x1 convolutions of f16 or bf16 with a stride of 1, no padding or groups and channels in eights, with
// the epilogue stats (fprop; in f16 also behind the prologue scale_bias_relu), drelu_bn_reduce or join (dgrad), and
// one for such windows of fewer channels than kFewChannels, into at most kMostOfWindow, with stats; none for other
// descriptions, nor where a plain product and sweeps beside it should take less time by the device's rates. Repeatable.
std::vector<std::unique_ptr<ConvKernel>> pointwise_candidates(const ConvDesc& desc, const DeviceRates& rates);

}  // namespace convolt
