// What changes from step to step, in device memory, so that a step changes no launch argument: kernels take pointers to
// these.
#pragma once

#include <cstdint>

namespace convolt {

struct SampleRecord;  // of the loader; kernels/augment.h

// What a row of a batch of N rows is mixed with: row n with row N-1-n. The middle row of an odd N is left alone.
struct RowMix {
  float part = 1;  // of the row's own picture and label in the mixture; its partner's have the rest
  // x, y, width, height, inside the output: where the partner's pixels stand in place of the row's, and `part` is the
  // area outside. Width 0: every pixel is a blend.
  int32_t box[4] = {};
};

constexpr int kOwnRates = 3;  // learning rates beside the common one

// Written by the host before each step (one small copy in the order of the compute queue).
struct StepInput {
  int64_t step = 0;         // update: counts from 0 over the whole training
  int64_t epoch = 0;        // of the batch
  uint64_t seed = 0;        // of dropout and stochastic depth
  int64_t first_row = 0;    // of this batch in the global batch; plans that accumulate add that of the micro-batch
  float learning_rate = 0;  // of parameters whose own factor is 1
  float own_rates[kOwnRates] = {};  // in its place for parameters of groups that end early (Optimizer::own_epochs)
  float weight_sum = 0;             // sum of `weights`; 0 is allowed (nothing counts)
  // Filled in by plans that accumulate: which micro-batch of how many.
  int32_t micro_batch = 0, micro_batches = 1;
  // How the augment op shows the pictures of an evaluation. First of the picture, or of its mirror image: the part that
  // the record shows, or with -1 for the column (the row) the part at its left (upper) edge, with 1 at the other; edges
  // are for records that turn nothing. Then moved by so many pixels of the output to the left and up (what comes in is
  // the picture or its border), then mirrored.
  int32_t view_of_mirror_image = 0, view_column = 0, view_row = 0;
  int32_t view_x = 0, view_y = 0, view_mirrored = 0;
  int32_t rows = 0;  // N of the arrays below, for the plan to compare with its batch; 0: whoever made it does not say
  // Where the batch lies, all in device memory.
  const SampleRecord* records = nullptr;  // [N], for the augment op
  const uint8_t* pixels = nullptr;        // base of SampleRecord::offset
  const float* images = nullptr;          // f32 [N, H, W, C], for plans without an augment op
  const int32_t* labels = nullptr;        // [N]; ignored where the row's weight is 0
  const float* weights = nullptr;         // [N]
  // [N], of plans with PlanOptions::mixing; null: nothing is mixed. Rows of weight 0 and their partners have a part of
  // 1 and no box.
  const RowMix* mixes = nullptr;
  const float* targets = nullptr;  // f32 [N, K], for losses of dense targets
  const float* teacher = nullptr;  // f32 [N, K], a teacher's logits, for distillation
};

// Owned by the device: written by kernels, read back by the host now and then.
struct StepStatus {
  int64_t first_bad_step = -1;  // the first step whose loss was not finite
  float loss_scale = 1;         // gradients are this many times too large (f16)
  int32_t good_steps = 0;       // since the loss scale last changed
  int32_t skip = 0;             // the last step's gradients were not finite: the optimizer skipped it (f16)
  int32_t skipped_steps = 0;    // of all
  float gradient_norm = 0;      // of all gradients of the last update before clipping; 0 where nobody needs it
  float rate_factor = 1;        // of the learning rate; halves where a bad step makes it
  int64_t last_bad_step = -1;   // as the first
  int32_t bad_steps = 0, bad_in_a_row = 0;  // where training goes on after them: in all, and up to the last step
  // What the loss of the last micro-batch is a mean by: the weights of the rows that count, each times its class's; and
  // the sum of these since the update began.
  float loss_weight = 0, gradient_weight = 0;
};

}  // namespace convolt
