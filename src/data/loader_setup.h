// What is settled before the first batch: options that make sense, and how large the pictures will be.
#pragma once

#include <vector>

#include "convolt/loader.h"
#include "data/decode.h"

namespace convolt {

// Throws UsageError (the option, what was expected, what was found), or DataError when the set is too small.
void check(const LoaderOptions& options, const Dataset& dataset);

DecodeLimits decode_limits(const LoaderOptions& options);
// What an epoch does to pictures.
AugmentOptions pictures_of(const LoaderOptions& options, uint32_t epoch);

struct PictureSizes {
  std::vector<int64_t> each;  // bytes of each decoded picture
  int64_t largest = 0;        // of the largest
  int64_t capacity = 0;       // bytes that the pictures of one batch may take (slot_ring.h)
};

// Reads the headers of all samples on the threads of the options. Samples without a good header count as nothing:
// `largest` is 0 when no sample has one.
PictureSizes measure_pictures(const Dataset& dataset, const DecodeLimits& limits, const LoaderOptions& options);

// How many slots of so many bytes there are: those of the options, or as many as fit into their memory beside the
// decode threads' scratch. Throws UsageError where two do not.
int slots_that_fit(const LoaderOptions& options, int64_t slot_bytes, int64_t scratch_bytes, bool on_cpu);

}  // namespace convolt
