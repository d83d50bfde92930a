// A look at every sample of a data set: whether it can be decoded, what it is, and which samples are the same file.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/decode.h"

namespace convolt {

struct Examined {
  int32_t label = -1;  // -1: unknown
  int64_t bytes = 0;
  uint64_t hash = 0;                    // of the bytes, and of the size of raw pixels
  std::optional<PictureHeader> header;  // of an encoded file whose header can be read
  int width = 0, height = 0;            // upright; 0 where that is not known
  std::string problem;                  // why it cannot be decoded; empty: it was, to the end
};

// Decodes each sample of `data` on `threads` threads; `done` is called with the number of samples done, by one thread
// at a time. A sample that cannot be read or decoded is no error but has its problem; whatever else is thrown passes
// on.
std::vector<Examined> examine(const Dataset& data, const DecodeLimits& limits, int threads,
                              const std::function<void(int64_t)>& done);

// One sample of several data sets.
struct SampleOf {
  size_t set = 0;
  int64_t sample = 0;
  friend bool operator==(const SampleOf&, const SampleOf&) = default;
};
// Groups of two or more samples with the same bytes, each in order, the groups in the order of their first. Equal
// hashes are compared byte by byte. `sets` and `examined` belong to each other.
std::vector<std::vector<SampleOf>> identical_samples(const std::vector<const Dataset*>& sets,
                                                     const std::vector<std::vector<Examined>>& examined);

}  // namespace convolt
