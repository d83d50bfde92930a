// Augmentation: uint8 pictures of any size -> NHWC batch of one size, normalised, in one launch; contrast, which needs
// the mean of the picture first, takes one more, and operations of picture_ops.h two. The order of operations is in
// convolt/augment.h.
#pragma once

#include "convolt/augment.h"
#include "convolt/context.h"
#include "convolt/tensor.h"
#include "picture_ops.h"
#include "stem.h"
#include "step_state.h"

namespace convolt {

// What every row of a sample needs to know.
struct RowRecord {
  // u8, RGB or grey. Pixel (x, y) is `offset` + (y `stride` + x) `channels` bytes from StepInput::pixels. Only those of
  // the box need be there: `offset`, where (0, 0) would be, may lie before the pixels or after them.
  int64_t offset = 0;
  int32_t height = 0, width = 0;  // of the whole picture; 0: no picture, the row becomes fill
  int32_t stride = 0;             // pixels from one row to the next
  int32_t channels = 3;           // 3 or 1
  int32_t axis_aligned = 1;       // the map below only scales, shifts and mirrors: map[1] and map[3] are 0
  // Output pixel centre (x + 0.5, y + 0.5) -> source position: sx = map[0] x + map[1] y + map[2],
  // sy = map[3] x + map[4] y + map[5]. Source pixel (i, j) has its centre at (i + 0.5, j + 0.5).
  float map[6] = {1, 0, 0, 0, 1, 0};
  // The window of the source that may be read (x0, y0, x1, y1): whole numbers, inside the picture. Axis-aligned: a
  // pixel whose centre maps outside it is fill, else the filter is cut at it, as Pillow's is. General: taps outside are
  // fill. With another border than constant a centre outside is first moved inside, and the filter is cut always.
  float box[4] = {0, 0, 0, 0};
  float brightness = 1, contrast = 1, saturation = 1;
  float hue = 0;                     // turn, in whole circles
  int32_t to_grey = 0;               // three equal channels at the end
  int32_t erase[4] = {0, 0, 0, 0};   // x, y, width, height in the output; width 0: nothing is erased
  float erase_value[3] = {0, 0, 0};  // of the channels there, after normalisation
  uint64_t erase_key = 0;            // not 0: normals instead, of philox(key, y W + x, 0) as those of PictureOp::noise
};

// What is done to one sample. Made on the host (augment/policy.h), copied to the device with the batch.
struct SampleRecord : RowRecord {
  PictureProgramme programme;  // after the sampling, before brightness
};

struct AugmentArgs {
  const StepInput* input = nullptr;  // records, pixels
  float mean[3] = {0, 0, 0};         // of 0..1; a grey y uses the first of mean, std and fill
  float std[3] = {1, 1, 1};
  float fill[3] = {0, 0, 0};
  AugmentOptions::Interpolation interpolation = AugmentOptions::Interpolation::bilinear;
  AugmentOptions::Border border = AugmentOptions::Border::constant;
  bool contrast = false;       // some record may have contrast != 1 (else its contrast is ignored): sum the greys first
  float* grey_sums = nullptr;  // f32 [N, H] scratch, needed when `contrast`: the grey of each row of the output
  PictureBuffers drafts;       // scratch; none: programmes are passed over
  // [N, H, W, C], C = 1 or 3, or so many laid out as `blocks` says (stem.h; channels 0: plain); f32, bf16 or f16.
  Tensor y;
  PixelBlocks blocks;
};

// y = the augmented batch; overwrites all of y. Reads about (scale + 1)^2 pixels for each pixel written, most of them
// from cache: the traffic is the cropped pictures once, u8, and y once (twice the reading with contrast).
void augment(Stream s, const AugmentArgs& args);

}  // namespace convolt
