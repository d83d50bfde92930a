// How large pictures are, as their headers say.
#pragma once

#include <atomic>
#include <mutex>
#include <optional>

#include "convolt/dataset.h"
#include "data/picture_header.h"

namespace convolt {

// 0 x 0 where there is no good header. Absent when `read` throws DataError: that may be otherwise the next time.
std::optional<PictureExtent> read_extent(const PictureBytes::Read& read);

// Tells how many of `all` are done, in steps. Thread-safe.
class MeasureProgress {
public:
  MeasureProgress(const IndexOptions& options, size_t all) : options_(options), all_(static_cast<int64_t>(all)) {}
  void next();

private:
  const IndexOptions& options_;
  const int64_t all_;
  std::atomic<int64_t> done_{0};
  std::mutex mutex_;
};

// As the options say.
int threads_of(const IndexOptions& options);

}  // namespace convolt
