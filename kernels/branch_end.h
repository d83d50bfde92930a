// The end of a branch that is scaled by channel (H. Touvron et al., arXiv 2103.17239), dropped by picture
// (stochastic_depth.h) and added to what goes past it: one sweep each way. Tensors are [N, ..., C] of one floating
// dtype.
#pragma once

#include "convolt/context.h"
#include "convolt/tensor.h"
#include "step_state.h"

namespace convolt {

// What the branch is multiplied with; either factor may be missing.
struct BranchScale {
  const float* gamma = nullptr;  // f32 [C]; null: 1
  float p = 0;                   // of stochastic depth
  uint32_t layer = 0;            // whose bits are drawn
  const StepInput* input = nullptr;
};

// y = x * gamma[c] * keep[n] + residual; y may be x or residual. Moves 3 elements per element.
void branch_end(Stream s, const Tensor& x, const Tensor& residual, const BranchScale& scale, const Tensor& y);

// With g = dy * keep[n]: dx = g * gamma[c], dgamma[c] = sum g * x, dbias[c] = sum of the stored dx, the gradient of a
// bias that the branch ends with. dx may be dy or x. Moves 3 per element, 2 without gamma.
struct BranchEndBackwardArgs {
  Tensor dy, x;  // x, dgamma: only with a gamma
  BranchScale scale;
  Tensor dx;
  float* scratch = nullptr;                   // branch_end_scratch() bytes
  float *dgamma = nullptr, *dbias = nullptr;  // [C], overwritten; dbias may be null
};
int64_t branch_end_scratch(int64_t rows, int64_t channels);
void branch_end_backward(Stream s, const BranchEndBackwardArgs& args);

}  // namespace convolt
