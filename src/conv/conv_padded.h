// Convolutions whose padding differs from side to side, for libraries that only know the same on opposite sides:
// pictures are copied into a border of zeros first.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "conv/conv.h"

namespace convolt {

inline bool is_lopsided(const Padding& pad) { return pad.top != pad.bottom || pad.left != pad.right; }

// The kernels that `offer` has for pictures with their border, each behind a copy: of x into the border before fprop
// and wgrad, out of it after dgrad. CUDA only. None for fusions that read x besides.
std::vector<std::unique_ptr<ConvKernel>> padded_candidates(
    const ConvDesc& desc, const std::function<std::vector<std::unique_ptr<ConvKernel>>(const ConvDesc&)>& offer);

}  // namespace convolt
