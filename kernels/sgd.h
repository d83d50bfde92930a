// The optimizer: one launch for each parameter group over all its tensors.
#pragma once

#include "convolt/context.h"
#include "convolt/tensor.h"
#include "step_state.h"

namespace convolt {

// One tensor of a group. All pointers in device memory; the table itself too.
struct OptimizerTensor {
  float* weight = nullptr;         // f32 master
  float* moment = nullptr;         // f32, same shape
  const void* gradient = nullptr;  // of gradient_dtype, scaled by StepStatus::loss_scale
  void* copy = nullptr;            // 16-bit copy of the weight, refreshed; may be null
  int64_t elements = 0;
  DType gradient_dtype = DType::f32;
  DType copy_dtype = DType::f32;
};

// A tile is kOptimizerTile elements of one tensor from `first`; the last one of a tensor may be short.
constexpr int kOptimizerTile = 2048;
struct OptimizerTile {
  int32_t tensor = 0;
  int64_t first = 0;
};

struct SgdArgs {
  const OptimizerTensor* tensors = nullptr;
  const OptimizerTile* tiles = nullptr;
  int64_t tile_count = 0;
  int group = 0;  // index of StepInput::learning_rate
  float momentum = 0.9F;
  float weight_decay = 0;
  bool nesterov = false;
  const StepInput* input = nullptr;
  const StepStatus* status = nullptr;
};

// PyTorch's SGD (torch.optim.SGD, dampening 0): g += wd * w; v = mu * v + g (moments start at 0, so that the first v is
// g); w -= lr * (nesterov ? g + mu * v : v). Writes nothing when status->first_bad_step >= 0 or status->skip.
void sgd_step(Stream s, const SgdArgs& args);

// For f16: sets status->skip when any gradient of the group is not finite; call it for each group before the first
// sgd_step. flags: i32 [tile_count] scratch.
void check_gradients(Stream s, const SgdArgs& args, int32_t* flags, StepStatus* status);
// After the last group's sgd_step: on skip the loss scale halves (at least 1) and skip is cleared; after 2000 good
// steps in a row it doubles (at most 2^24).
void update_loss_scale(Stream s, StepStatus* status);

}  // namespace convolt
