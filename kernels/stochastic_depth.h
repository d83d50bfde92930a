// Stochastic depth (G. Huang et al., arXiv 1603.09382), row by row.
#pragma once

#include "convolt/context.h"
#include "convolt/tensor.h"
#include "step_state.h"

namespace convolt {

// Each row n of x [N, ...] kept whole with probability 1-p and scaled by 1/(1-p), else 0. The bit of a row is that
// which dropout (activation.h) draws for the first element of the row in this layer, so that applying it to dy is its
// gradient. y may be x. Moves 2 elements per element.
void stochastic_depth(Stream s, const Tensor& x, const Tensor& y, float p, uint32_t layer, const StepInput* input);

}  // namespace convolt
