#include "data/resident.h"

#include <algorithm>
#include <string>

#include "convolt/error.h"
#include "data/parallel_for.h"
#include "data/slot_ring.h"

namespace convolt {
namespace {

constexpr int64_t kStage = 64 << 20;  // bytes of pinned memory through which pictures travel, or the largest picture

// Where each picture begins, and behind the last the end of all.
std::vector<int64_t> places(const std::vector<int64_t>& sizes) {
  std::vector<int64_t> offsets{0};
  for (const int64_t size : sizes) offsets.push_back(offsets.back() + SlotLayout::aligned(size));
  return offsets;
}

Buffer room_for(Context& context, int64_t bytes) {
  if (const int64_t free = context.free_bytes(); bytes > free)
    throw OutOfMemoryError("the decoded pictures take " + std::to_string(bytes) + " bytes of " +
                           context.device().to_string() + ", of which " + std::to_string(free) +
                           " are free; leave out --resident, or shrink the pictures with --max-side");
  return {context, bytes};
}

}  // namespace

ResidentSet::ResidentSet(Context& context, const std::vector<int64_t>& sizes, int threads, const DecodeOne& decode)
    : pictures_(sizes.size()) {
  const std::vector<int64_t> offsets = places(sizes);
  memory_ = room_for(context, offsets.back());
  const auto at = [&](size_t i) { return offsets[i]; };
  int64_t stage_bytes = std::min(kStage, offsets.back());
  for (const int64_t size : sizes) stage_bytes = std::max(stage_bytes, SlotLayout::aligned(size));
  const Buffer stage(context, stage_bytes, Buffer::Kind::pinned);
  Queue& copies = context.copies();
  for (size_t first = 0, end = 0; first < sizes.size(); first = end) {
    while (end < sizes.size() && at(end + 1) - at(first) <= stage_bytes) ++end;
    parallel_for(static_cast<int64_t>(end - first), threads, [&](int64_t k) {
      const size_t i = first + static_cast<size_t>(k);
      auto* const to = stage.as<uint8_t>() + (at(i) - at(first));
      std::optional<ResidentPicture> picture =
          decode(static_cast<int64_t>(i), {to, static_cast<size_t>(at(i + 1) - at(i))});
      if (picture) picture->offset = at(i);
      pictures_[i] = picture;
    });
    copies.copy(memory_.as<uint8_t>() + at(first), stage.data(), at(end) - at(first));
    copies.synchronize();
  }
}

}  // namespace convolt
