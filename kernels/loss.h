// Softmax cross-entropy with label smoothing, its gradient and the meters, in one go.
#pragma once

#include "convolt/context.h"
#include "convolt/tensor.h"
#include "step_state.h"

namespace convolt {

struct SoftmaxXentArgs {
  Tensor logits;                     // [N, K], f32, bf16 or f16
  Tensor dlogits;                    // as logits, overwritten; data null: no gradient
  const StepInput* input = nullptr;  // labels, weights, weight_sum, step
  float smoothing = 0;               // target = (1 - smoothing) * onehot + smoothing / K
  float* row_values = nullptr;       // f32 [N, 4] scratch: loss, weight, top-1, top-5 of each row
  Meters* meters = nullptr;          // added to
  StepStatus* status = nullptr;  // first_bad_step is latched when a row with weight > 0 has a loss that is not finite
};

// loss = sum_n weight_n * xent_n / weight_sum; dlogits = its gradient times status->loss_scale. A label is counted in
// top-k when fewer than k classes have a larger logit, or an equal one and a smaller index. A label outside [0, K) of a
// row with weight > 0 makes the loss NaN (the loader never produces one).
void softmax_xent(Stream s, const SoftmaxXentArgs& args);

// probabilities f32 [N, K] of logits [N, K].
void softmax(Stream s, const Tensor& logits, float* probabilities);

}  // namespace convolt
