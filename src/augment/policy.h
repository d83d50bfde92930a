// From options to what is done to one sample.
#pragma once

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
  translate = 4,    // x, y
  zoom = 5,         // factor
  brightness = 6,   // factor
  contrast = 7,     // factor
  saturation = 8,   // factor
  erase = 9,        // decision
  erase_place = 10  // up to 10 attempts: area, log ratio, top, left
};
constexpr uint32_t kDrawAttempts = 16;

// Everything about the sample's record but its offset. A pure function of its arguments: picture_* describe the picture
// in the slot. A picture without height or width gives a record without a picture. The options have passed check().
SampleRecord make_record(const AugmentOptions& options, int picture_height, int picture_width, int picture_channels,
                         uint64_t seed, uint32_t epoch, uint64_t sample);

// Throws UsageError (the option, its range, what was found) for options that make no sense.
void check(const AugmentOptions& options);

}  // namespace convolt
