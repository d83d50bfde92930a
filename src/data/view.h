// What one epoch shows of one sample, as far as the host makes it: the record of what is done to the picture, and the
// pixels that this needs.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "augment.h"
#include "data/decode.h"

namespace convolt {

struct View {
  SampleRecord record;  // its offset counts from the first of its pixels' bytes
  int64_t bytes = 0;    // of these
};

// PixelRows of bytes that lie somewhere.
struct PixelRows {
  const uint8_t* first = nullptr;
  int64_t count = 0, bytes = 0, stride = 0;  // of each row; from one row to the next
};
void copy_rows(const PixelRows& from, uint8_t* to);

// Which numbers are drawn.
struct ViewKey {
  uint64_t seed = 0;
  uint32_t epoch = 0;
  uint64_t sample = 0;
};

// What of the picture a record needs.
Wanted wanted_of(const SampleRecord& record, const AugmentOptions& options);
// A record whose picture's `region`, in which its box lies, is written with packed rows.
View view_of(const SampleRecord& record, const Region& region);

// Header first: its size and the key make the record, and of the picture the record's box is decoded into `target`,
// which must have room for the whole (decoded_size()). Throws as decode() does.
View decode_view(const RawSample& sample, const AugmentOptions& options, const ViewKey& key, const DecodeLimits& limits,
                 std::span<uint8_t> target, const std::string& name);

// The same of pixels that are shown as they are and that the data set has in memory (RawSample::kept): `rows` are those
// that decode_view() would write. None for all other samples.
std::optional<View> view_in_place(const RawSample& sample, const AugmentOptions& options, const ViewKey& key,
                                  const DecodeLimits& limits, PixelRows& rows, const std::string& name);

}  // namespace convolt
