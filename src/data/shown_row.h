// Where a training shows a sample, for people who ask.
#pragma once

#include <cstdint>
#include <optional>

#include "convolt/dataset.h"
#include "convolt/loader.h"

namespace convolt {

struct ShownRow {
  int64_t batch = 0;      // of the epoch
  int row = 0;            // of the batch
  uint64_t drawn_as = 0;  // under which number its augmentation is drawn
  // What the row is mixed with, if all pictures of its batch can be read: with that sample, -1 for none, in that way.
  int64_t partner = -1;
  RowMix mix;
};

// The first row in which a training loader shows the sample in that epoch (the first is 0), or nothing. The options
// have passed check(). Goes through the epoch's order.
std::optional<ShownRow> find_shown_row(const Dataset& data, const LoaderOptions& options, uint32_t epoch,
                                       int64_t sample);

}  // namespace convolt
