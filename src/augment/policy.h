// From options to what is done to one sample.
#pragma once

#include "augment.h"
#include "convolt/augment.h"

namespace convolt {

// Everything about the sample's record but its offset. A pure function of its arguments: picture_* describe the picture in the slot.
SampleRecord make_record(const AugmentOptions& options, int picture_height, int picture_width, int picture_channels, uint64_t seed,
                         uint32_t epoch, uint64_t sample);

// Throws UsageError (the option, its range, what was found) for options that make no sense.
void check(const AugmentOptions& options);

}  // namespace convolt
