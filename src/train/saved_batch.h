// The pictures of a batch on disk, for a person to look at.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "convolt/dataset.h"

namespace convolt {

// Makes `folder` and writes each sample (indices in `data`; -1 is passed over) as <row>-<class>-<name>: the bytes of
// its file, or its pixels as a PNG; and batch.json: {"step", "where", "pictures": [{"row", "sample", "name", "label",
// "class", "file" or "error"}]}. Throws Error when that fails.
void save_batch(const std::string& folder, const Dataset& data, std::span<const int64_t> samples, int64_t step,
                const std::string& where);

}  // namespace convolt
