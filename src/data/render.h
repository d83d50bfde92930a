// Pictures as a network sees them, for people to look at: decoded and augmented by the very code of the loader and the
// plan, the normalisation taken back.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "convolt/augment.h"
#include "convolt/context.h"
#include "convolt/dataset.h"
#include "data/decode.h"
#include "step_state.h"

namespace convolt {

struct DecodedPicture {
  PictureSize size;
  std::vector<uint8_t> pixels;  // u8 [height, width, channels]
};

// The whole of sample i as the loader decodes it under these options. Throws DataError, with the name, when it cannot
// be read.
DecodedPicture decode_sample(const Dataset& dataset, int64_t i, const AugmentOptions& options,
                             const DecodeOptions& decode = {});

// The first `count` pictures of a batch on the device (records and pixels of `input`) after augmentation, as u8 [count,
// options.height, options.width, options.channels]: value * std + mean, rounded; erased parts, 0 to the network, are
// the mean. Mixed where `input` says how, and `count` then is the whole batch. Synchronises.
std::vector<uint8_t> shown(Context& context, const AugmentOptions& options, const StepInput& input, int64_t count);

// What each of the epochs of a training with this seed shows of a picture, likewise [epochs, ...]. Options of
// evaluation draw nothing by chance: any epoch will do. Synchronises. Throws UsageError for bad options.
std::vector<uint8_t> render(Context& context, const DecodedPicture& picture, const AugmentOptions& options,
                            uint64_t seed, int64_t sample, std::span<const uint32_t> epochs);

}  // namespace convolt
