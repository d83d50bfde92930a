// Mixup and CutMix of a batch of augmented pictures, in place.
#pragma once

#include "convolt/context.h"
#include "convolt/tensor.h"
#include "stem.h"
#include "step_state.h"

namespace convolt {

struct MixArgs {
  const StepInput* input = nullptr;  // mixes
  // [N, H, W, C], or pictures laid out as `blocks` says (stem.h; channels 0: plain); f32, bf16 or f16. Fewer than 2^31
  // elements a row.
  Tensor y;
  PixelBlocks blocks;
};

// Each row of y becomes the mixture with its partner that input->mixes says; both read what was there before. Moves 2
// elements per element of y; nothing of pairs in which nobody has less than the whole of its own.
void mix(Stream s, const MixArgs& args);

}  // namespace convolt
