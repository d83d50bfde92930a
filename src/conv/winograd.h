// 3x3 convolutions of stride 1 on the CPU by Winograd's F(M x M, 3 x 3): of every tile of M x M sums (M + 2)^2 products
// are made where the plain sums take 9 M^2. All of it in f32 whatever the storage.
#pragma once

#include <memory>
#include <string>

#include "conv/conv.h"
#include "conv/winograd_code.h"

namespace convolt {

// The code for this processor.
const winograd::Code& winograd_code();

// A kernel for `threads` compute threads; null where the description is another convolution, or one that has not 1.5
// times fewer products so.
std::unique_ptr<ConvKernel> make_winograd(const ConvDesc& desc, int threads,
                                          const winograd::Code& code = winograd_code());

// Whether it is quicker than `library`, the name of oneDNN's implementation of the same: measured on Zen 4
// (convolt bench conv).
bool winograd_is_quicker(const ConvDesc& desc, const std::string& library);

}  // namespace convolt
