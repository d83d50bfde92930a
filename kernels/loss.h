// The losses (convolt/loss.h says the formulas), their gradients and the meters, in two launches.
#pragma once

#include "convolt/context.h"
#include "convolt/loss.h"
#include "convolt/tensor.h"
#include "step_state.h"

namespace convolt {

struct LossArgs {
  Tensor logits;   // [N, K], f32, bf16 or f16
  Tensor dlogits;  // as logits, overwritten; data null: no gradient
  LossKind kind = LossKind::cross_entropy;
  bool dense = false;  // the target is input->targets, not input->labels
  bool mixed = false;  // the target of labels is of those of two rows, as input->mixes says (null: of the row's alone)
  float smoothing = 0;
  float target_threshold = -1;              // from 0 on: binary targets become 1 above it, and 0 elsewhere
  const float* class_weights = nullptr;     // [K] in device memory; may be null
  const float* positive_weights = nullptr;  // likewise
  bool ignores = false;                     // whether rows of label ignore_index count for nothing
  int32_t ignore_index = 0;
  float focal_gamma = 2, focal_alpha = 0.25F;
  float distill_alpha = 0, temperature = 1;  // above 0: input->teacher is read
  // Not null: each row's loss, f32 [N], and the derivative of their sum by the logits, f32 [N, K] (null where dlogits
  // is), in place of those of `kind`.
  const float* given_losses = nullptr;
  const float* given_gradient = nullptr;
  const StepInput* input = nullptr;  // targets, weights, weight_sum, step
  float* row_values = nullptr;       // f32 [N, 4] scratch: loss, weight, top-1, top-5 of each row
  Meters* meters = nullptr;          // added to: loss times sum of weights, and the sums
  // first_bad_step is latched when a row with weight > 0 has a loss that is not finite, and last_bad_step follows.
  StepStatus* status = nullptr;
  bool leaves_out_bad = false;  // the meters then take in nothing of the batch
};

// The loss of the batch into the meters; dlogits = its gradient times status->loss_scale. A label is counted in top-k
// when fewer than k classes have a larger logit, or an equal one and a smaller index; of a dense target the label is
// its largest entry, for the losses by sigmoids the positive class (0.5 or more) of the largest logit; of a mixed row
// it is the label of the larger part, its own where they are equal. A label outside [0, K) of a row with weight > 0
// makes the loss NaN (the loader never produces one). Moves 2 elements per logit, and 1 of targets and teacher: a row
// is read again from cache.
void loss_and_gradient(Stream s, const LossArgs& args);

// probabilities f32 [N, K] of logits [N, K]. Moves 1 element of each per logit.
void softmax(Stream s, const Tensor& logits, float* probabilities);

}  // namespace convolt
