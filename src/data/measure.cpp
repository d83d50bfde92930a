#include "data/measure.h"

#include <algorithm>
#include <thread>

#include "convolt/error.h"

namespace convolt {

std::optional<PictureExtent> read_extent(const PictureBytes::Read& read) {
  bool readable = true;
  try {
    PictureBytes bytes([&](int64_t offset, std::span<uint8_t> into) {
      readable = false;
      const size_t got = read(offset, into);
      readable = true;
      return got;
    });
    const PictureHeader header = read_picture_header(bytes);
    return PictureExtent{header.height, header.width};
  } catch (const DataError&) {
    return readable ? std::optional(PictureExtent{}) : std::nullopt;
  }
}

void MeasureProgress::next() {
  const int64_t done = ++done_;
  constexpr int64_t kEach = 256;
  if (!options_.progress || done % kEach != 0) return;
  const std::lock_guard lock(mutex_);
  options_.progress(done, all_);
}

int threads_of(const IndexOptions& options) {
  return options.threads > 0 ? options.threads : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
}

}  // namespace convolt
