// Operations on 8-bit pictures of the output's size, between the sampling and the colour jitter of augmentation. Each
// sample has a list of its own: what it needs, neighbours or statistics of the picture after the operations before, one
// sampling cannot give. Bytes come out of each operation, as of torchvision's functions on uint8 tensors.
#pragma once

#include <cstdint>

#include "convolt/context.h"
#include "step_state.h"

namespace convolt {

// What becomes of a byte v, by the numbers a and b of a step. Results are cut off at 0 and 255, and rounded to the
// nearest unless said otherwise; "down" is floor, as torchvision has it. luma is 0.2989 R + 0.587 G + 0.114 B.
enum class PictureOp : int32_t {
  brightness,     // a v, down
  contrast,       // a v + (1 - a) m, down; m: the mean over the picture of floor(luma); of v in a grey picture
  saturation,     // a v + (1 - a) floor(luma), down; v in a grey picture
  sharpness,      // v + (1 - a) (s - v), down; s is (the 8 neighbours + 5 v) / 13, rounded; the outermost pixels stay
  invert,         // 255 - v
  solarize,       // 255 - v where v >= a, else v
  solarize_add,   // v + a where v < b, else v
  posterize,      // the highest a bits of v, the others 0
  auto_contrast,  // (v - least) 255 / (most - least) of its channel, down, in integers; v where all are equal
  equalize,       // Pillow's ImageOps.equalize of each channel
  // A Gaussian of standard deviation a pixels with taps up to b pixels away, normalised. Beyond its edges the picture
  // goes on mirrored about its outermost pixels. Along the rows first, to 1/256.
  blur,
  // v + a n. n are normals of the pixel, 0 to H W - 1: for channels 0 and 1 by Box and Muller from words 0 and 1 of
  // philox(key, pixel, op), sqrt(-2 ln(1 - u0)) times cos and sin of 2 pi u1; for channel 2 by words 2 and 3.
  noise,
  // What JPEG of quality a leaves, by libjpeg's tables, colours and means of 2x2 for chroma, which is then repeated,
  // not smoothed; in a grey picture it is absent.
  jpeg,
  // Those below take the pixel with its centre at (x, y) from another place, bilinearly; what is outside is fill.
  shear_x,      // (x + a y, y): about the upper left corner
  shear_y,      // (x, y + a x)
  translate,    // (x - a, y - b)
  rotate,       // centre + (a dx - b dy, b dx + a dy), (dx, dy) from the centre: counter-clockwise by acos a
  perspective,  // by the programme's map
  // (x, y) + a (sx, sy): uniform cubic B-splines at ((x - 1/2) / b, (y - 1/2) / b). Their knots (i, j), of which the
  // first is one before the picture, are 2 u - 1 of words 0 and 1 of philox(key, j * kMostKnots + i, op).
  elastic,
  // For mixtures of chains of operations (AugMix).
  keep,       // the picture is remembered
  end_chain,  // a times the picture is added to the sum, to 1/256 (b = 0: becomes the sum); the kept one is taken again
  mix,        // a times the kept picture + the sum, down
};

constexpr int kMostPictureOps = 26;
constexpr int kMostBlurRadius = 32;  // b of blur
constexpr int kMostKnots = 32;       // along a side: floor((side - 1) / b) + 4 of elastic

struct PictureStep {
  PictureOp op = PictureOp::brightness;
  float a = 0, b = 0;
};

// What is done to one sample, in this order.
struct PictureProgramme {
  int32_t count = 0;  // 0: nothing, and the sample is not rounded to bytes
  PictureStep steps[kMostPictureOps];
  uint64_t key = 0;  // of what is drawn for single pixels: Philox of core/philox.h
  // Of perspective: ((m0 x + m1 y + m2) / w, (m3 x + m4 y + m5) / w), w = m6 x + m7 y + 1.
  float map[8] = {1, 0, 0, 0, 1, 0, 0, 0};
};

// Of a batch's pictures, [N, H, W, C] each.
struct PictureBuffers {
  uint8_t* bytes = nullptr;  // the pictures
  uint8_t* spare = nullptr;  // scratch
  uint8_t* kept = nullptr;   // scratch, where a programme may have `keep`
  uint16_t* wide = nullptr;  // scratch, where a programme may have `blur` or `end_chain`
};

struct PictureOpsArgs {
  const StepInput* input = nullptr;  // records: their programmes
  int64_t pictures = 0;
  int height = 0, width = 0, channels = 3;  // 3 or 1
  PictureBuffers buffers;                   // bytes: overwritten where there is a programme
  float fill[3] = {0, 0, 0};                // 0..1
};

// Runs all programmes, in one launch: a block for each picture. An operation moves the picture once or twice, of which
// the caches of a GPU hold most.
void run_picture_ops(Stream s, const PictureOpsArgs& args);

}  // namespace convolt
