#include "data/slot_ring.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "convolt/error.h"

namespace convolt {

const char* name_of(SlotState state) {
  switch (state) {
    case SlotState::free:
      return "Free";
    case SlotState::decoding:
      return "Decoding";
    case SlotState::copying:
      return "Copying";
    case SlotState::ready:
      return "Ready";
    case SlotState::in_use:
      return "InUse";
  }
  return "";
}

SlotLayout::SlotLayout(int batch_, int64_t picture_bytes, bool mixing_)
    : batch(batch_),
      mixing(mixing_),
      labels(aligned(batch * int64_t{sizeof(SampleRecord)})),
      weights(labels + aligned(batch * int64_t{sizeof(int32_t)})),
      mixes(weights + aligned(batch * int64_t{sizeof(float)})),
      pictures(mixes + aligned(mixing ? batch * int64_t{sizeof(RowMix)} : 0)),
      bytes(pictures + aligned(picture_bytes)) {}

int64_t picture_capacity(std::vector<int64_t> sizes, int batch, int repeats) {
  constexpr int64_t kReplacements = 16;
  for (int64_t& size : sizes) size = SlotLayout::aligned(size);
  const auto count = std::min(sizes.size(), static_cast<size_t>((batch + repeats - 1) / repeats));
  const auto end = sizes.begin() + static_cast<int64_t>(count);
  std::partial_sort(sizes.begin(), end, sizes.end(), std::greater<>());
  const int64_t largest = sizes.empty() ? 0 : sizes.front();
  return std::min(std::accumulate(sizes.begin(), end, int64_t{0}) * repeats + kReplacements * largest, batch * largest);
}

Slot::Slot(Context& context, const SlotLayout& layout)
    : samples(static_cast<size_t>(layout.batch)),
      skipped(static_cast<size_t>(layout.batch)),
      bad(static_cast<size_t>(layout.batch)),
      layout_(layout),
      host_(context, layout.bytes, Buffer::Kind::pinned),
      device_(context, layout.bytes, Buffer::Kind::device) {}

void Slot::advance(SlotState from, SlotState to) {
  const bool next =
      to == SlotState::free ? from == SlotState::in_use : static_cast<int>(to) == static_cast<int>(from) + 1;
  if (state_ != from || !next)
    throw Error(std::string("a loader slot cannot go from ") + name_of(from) + " to " + name_of(to) + ": it is " +
                name_of(state_));
  state_ = to;
}

void Slot::begin() {
  advance(SlotState::free, SlotState::decoding);
  next_row = 0;
  rows_left = layout_.batch;
  error = nullptr;
  error_row = layout_.batch;
  taken_ = copied_bytes_ = device_bytes_ = 0;
}

void Slot::discard() {
  if (state_ == SlotState::in_use) throw Error("a loader slot that is InUse cannot be discarded");
  state_ = SlotState::free;
}

void Slot::point_to_device(Batch& batch) const {
  batch.size = layout_.batch;
  batch.records = device_.as<const SampleRecord>();
  batch.labels = at<const int32_t>(device_, layout_.labels);
  batch.weights = at<const float>(device_, layout_.weights);
  if (layout_.mixing) batch.mixes = at<const RowMix>(device_, layout_.mixes);
  batch.pixels = device_pictures();
}

std::span<RowMix> Slot::mixes() const {
  return {at<RowMix>(host_, layout_.mixes), layout_.mixing ? static_cast<size_t>(layout_.batch) : 0};
}

bool Slot::take(int64_t bytes) {
  if (taken_.fetch_add(bytes) + bytes <= room()) return true;
  taken_.fetch_sub(bytes);
  return false;
}

int64_t Slot::reserve(int64_t bytes) {
  const int64_t size = SlotLayout::aligned(bytes);
  return take(size) ? copied_bytes_.fetch_add(size) : -1;
}

int64_t Slot::reserve_on_device(int64_t bytes) {
  const int64_t size = SlotLayout::aligned(bytes);
  return take(size) ? room() - device_bytes_.fetch_add(size) - size : -1;
}

}  // namespace convolt
