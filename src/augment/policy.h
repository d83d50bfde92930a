// From options to what is done to one sample.
#pragma once

#include <string>
#include <vector>

#include "augment.h"
#include "convolt/augment.h"

namespace convolt {

// Where an operation finds its random numbers: draw `attempt` of an operation is
// random4(seed, RandomUse::augment, epoch, sample, operation * kDrawAttempts + attempt). No operation reads another's
// numbers, so switching one on changes no other. Append only: the values are part of the contract of repeatability.
enum class Draw : uint32_t {
  crop = 0,    // of random_resized_crop, up to 10 attempts: area, log ratio, top, left; of crop_with_padding: top, left
  hflip = 1,   // decision
  vflip = 2,   // decision
  rotate = 3,  // angle
  translate = 4,      // x, y
  zoom = 5,           // factor
  brightness = 6,     // factor
  contrast = 7,       // factor
  saturation = 8,     // factor
  erase = 9,          // decision
  erase_place = 10,   // up to 10 attempts: area, log ratio, top, left
  shear = 11,         // angle along x, angle along y
  hue = 12,           // turn
  grayscale = 13,     // decision
  policy = 14,        // operation k of a policy: which, its magnitude, its sign, decision; attempt 2: which sub-policy
  policy_level = 15,  // of operation k: two for a normal
  mixture = 16,       // of chains: three weights, the picture's own part; attempt 1: three depths
  perspective = 17,   // decision; attempts 1 and 2: x and y of the corners from the upper left, clockwise
  elastic = 18,       // decision; so are the next ones, to noise
  invert = 19,
  posterize = 20,
  solarize = 21,
  auto_contrast = 22,
  equalize = 23,
  sharpness = 24,
  blur = 25,  // decision, sigma
  noise = 26,
  jpeg = 27,          // decision, quality
  erase_colour = 28,  // normals; attempt 1: key of normals for each pixel
  pixels = 29         // key of what operations draw for each pixel
};
constexpr uint32_t kDrawAttempts = 16;

// Output -> source, in double until the record is written: sx = m[0] x + m[1] y + m[2], sy = m[3] x + m[4] y + m[5].
struct Affine {
  double m[6] = {1, 0, 0, 0, 1, 0};
  // This map after `inner`.
  Affine operator*(const Affine& inner) const {
    const double *a = m, *b = inner.m;
    return {{a[0] * b[0] + a[1] * b[3], a[0] * b[1] + a[1] * b[4], a[0] * b[2] + a[1] * b[5] + a[2],
             a[3] * b[0] + a[4] * b[3], a[3] * b[1] + a[4] * b[4], a[3] * b[2] + a[4] * b[5] + a[5]}};
  }
};

// Shear along x, then along y, rotation counter-clockwise (degrees) and zoom about the centre, then a shift in pixels.
struct Turn {
  double angle = 0, shear_x = 0, shear_y = 0, zoom = 1;
  int x = 0, y = 0;
};
// Its inverse: torchvision's affine(-angle, [x, y], zoom, [shear_x, shear_y]).
Affine turned(const Turn& turn, int height, int width);

// Everything about the sample's record, with the whole picture at offset 0. A pure function of its arguments: picture_*
// describe the picture as it is decoded. One without height or width gives a record without a picture. The options have
// passed check().
SampleRecord make_record(const AugmentOptions& options, int picture_height, int picture_width, int picture_channels,
                         uint64_t seed, uint32_t epoch, uint64_t sample);

// What was drawn for a sample by one operation.
struct DrawnValues {
  std::string operation;  // named as the flags are
  std::vector<double> values;
  friend bool operator==(const DrawnValues&, const DrawnValues&) = default;
};
// The draws behind make_record() of the same arguments, in the order in which they are applied, of what the options
// switch on: crop (left, top, right, bottom of what comes to lie on the output, in pixels of the decoded picture),
// hflip, vflip (1: mirrored), shear (x, y degrees), zoom, rotate (degrees), translate (x, y pixels), brightness,
// contrast, saturation, hue, grayscale (1: grey), erase (left, top, width, height in the output; none: not erased);
// before brightness "policy ..." for each operation that a policy chose, and those of AugmentOptions::perspective to
// jpeg that are on, without a value where they were not chosen.
std::vector<DrawnValues> explain(const AugmentOptions& options, int picture_height, int picture_width, uint64_t seed,
                                 uint32_t epoch, uint64_t sample);

// What the options say to the kernel about all samples; input and output are still to be filled in. `scratch`:
// augment_scratch() bytes in device memory for batches of so many pictures of the options' size; may be null where
// those are 0.
AugmentArgs augment_args(const AugmentOptions& options, int64_t batch, void* scratch);
int64_t augment_scratch(const AugmentOptions& options, int64_t batch);
// Launches of the kernel, and the bytes that it moves between them at most, of the scratch.
int augment_launches(const AugmentOptions& options);
int64_t augment_scratch_traffic(const AugmentOptions& options, int64_t batch);

// Throws UsageError (the option, its range, what was found) for options that make no sense.
void check(const AugmentOptions& options);
void check(const SizeRamp& ramp, const AugmentOptions& full);

// What the epochs of a training do to pictures, each size once, the largest first.
std::vector<AugmentOptions> sizes_of(const AugmentOptions& full, const SizeRamp& ramp);

}  // namespace convolt
