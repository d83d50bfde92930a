// What of a sample goes into a packed set.
#pragma once

#include <string>

#include "convolt/pack.h"
#include "data/packed_format.h"

namespace convolt {

struct PackedSample {
  PackedEntry entry;     // of which label, weight, extents, kind and channels are set
  RawSample content;     // the bytes
  std::string left_out;  // why it cannot be packed; empty where it can
};

// Reads sample i and, as the options say, decodes, shrinks and encodes it. A pure function of the sample: no clock
// decides. Thread-safe.
PackedSample packed_sample(const Dataset& data, int64_t i, const PackOptions& options);

}  // namespace convolt
