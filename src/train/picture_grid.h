// A batch as the network sees it, for people.
#pragma once

#include "convolt/context.h"
#include "convolt/loader.h"
#include "io/tensorboard.h"

namespace convolt {

// The first pictures of a batch of a loader, augmented as in its step, at most 16 in rows of up to 4, on a black
// ground. Takes device memory of its own while it runs, and synchronises the compute queue.
EncodedPicture picture_grid(Context& context, const AugmentOptions& options, const Batch& batch);

}  // namespace convolt
