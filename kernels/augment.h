// Augmentation: uint8 pictures of any size -> NHWC batch of one size, normalised, in one launch (two with contrast, which needs the
// mean of the picture first).
#pragma once

#include "convolt/augment.h"
#include "convolt/context.h"
#include "convolt/tensor.h"
#include "step_state.h"

namespace convolt {

// What the augment kernel does to one sample. Made on the host (augment/policy.h), copied to the device with the batch.
struct SampleRecord {
  int64_t offset = 0;              // of the picture from StepInput::pixels: u8 [height, width, channels], RGB or grey, rows packed
  int32_t height = 0, width = 0;   // 0: no picture, the row becomes fill
  int32_t channels = 3;
  int32_t axis_aligned = 1;        // the map below only scales, shifts and mirrors
  // Output pixel centre (x + 0.5, y + 0.5) -> source position: sx = map[0] x + map[1] y + map[2], sy = map[3] x + map[4] y + map[5].
  float map[6] = {1, 0, 0, 0, 1, 0};
  // Samples outside this window of the source (x0, y0, x1, y1) take the fill colour; the filter is cut at it, as Pillow's box is.
  float box[4] = {0, 0, 0, 0};
  float brightness = 1, contrast = 1, saturation = 1;
  int32_t erase[4] = {0, 0, 0, 0};  // x, y, width, height in the output; width 0: nothing is erased
};

struct AugmentArgs {
  const StepInput* input = nullptr;  // records, pixels
  float mean[3] = {0, 0, 0};
  float std[3] = {1, 1, 1};
  float fill[3] = {0, 0, 0};
  bool contrast = false;       // some record may have contrast != 1: launch the mean first
  float* grey_means = nullptr;  // f32 [N] scratch, needed when `contrast`
  Tensor y;                    // [N, H, W, C], C = 1 or 3; f32, bf16 or f16
};

void augment(Stream s, const AugmentArgs& args);

}  // namespace convolt
