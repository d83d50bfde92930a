// A slot: the memory of one batch on its way from the decoders to the device, and where it is on that way.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <span>
#include <vector>

#include "augment.h"
#include "convolt/context.h"
#include "convolt/loader.h"

namespace convolt {

enum class SlotState : uint8_t {
  free,      // nobody's
  decoding,  // decode threads write the host block
  copying,   // full; being handed to the copy queue
  ready,     // its copy is queued and `copied` marks its end: the consumer may take it
  in_use,    // the consumer has it
};

const char* name_of(SlotState state);

// One block, alike on host and device: records [batch], labels i32 [batch], weights f32 [batch], where wanted mixes
// [batch], then pictures, all at 256-byte offsets, so that one copy of the used prefix moves a batch.
struct SlotLayout {
  static constexpr int64_t kAlignment = 256;
  static constexpr int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

  SlotLayout(int batch, int64_t picture_bytes, bool mixing = false);
  int batch;
  bool mixing;
  int64_t labels, weights, mixes, pictures;  // offsets; records are at 0
  int64_t bytes;
};

// Room for the pictures of any batch that has no sample more than `repeats` times, and for 16 more of the largest,
// since replacements of bad pictures may repeat a sample; never more than a whole batch of the largest. `sizes`: bytes
// of all samples.
int64_t picture_capacity(std::vector<int64_t> sizes, int batch, int repeats = 1);

// All memory is allocated by the constructor. State and plain members are guarded by the loader's mutex; the rows of
// the host block belong to the thread that claimed them.
class Slot {
public:
  Slot(Context& context, const SlotLayout& layout);

  SlotState state() const { return state_; }
  // Throws Error when the slot is not in state `from`, or its life knows no such step.
  void advance(SlotState from, SlotState to);
  // Free -> Decoding, with nothing in it; the host block must be reusable.
  void begin();
  // Drops a batch that nobody will take: any state but in_use -> Free.
  void discard();
  // True when the last copy out of the host block has ended. Does not wait.
  bool host_reusable() const { return copied.reached(); }

  // Takes `bytes` of the pictures' room; the offset from pictures(), or -1 when it is full. Thread-safe.
  int64_t reserve(int64_t bytes);
  // The same for what the device writes itself, from the end of the room, where the copy does not come.
  int64_t reserve_on_device(int64_t bytes);
  // What the copy moves.
  int64_t used_bytes() const { return layout_.pictures + copied_bytes_.load(); }

  SampleRecord* records() const { return host_.as<SampleRecord>(); }
  int32_t* labels() const { return at<int32_t>(host_, layout_.labels); }
  float* weights() const { return at<float>(host_, layout_.weights); }
  // [batch]; none where the layout has no room for them.
  std::span<RowMix> mixes() const;
  uint8_t* pictures() const { return at<uint8_t>(host_, layout_.pictures); }
  uint8_t* device_pictures() const { return at<uint8_t>(device_, layout_.pictures); }

  // Sets where the batch lies on the device.
  void point_to_device(Batch& batch) const;

  const Buffer& host() const { return host_; }
  const Buffer& device() const { return device_; }
  const SlotLayout& layout() const { return layout_; }

  // Of the batch that is being made.
  int next_row = 0;   // the first that no thread has claimed
  int rows_left = 0;  // not yet finished
  std::exception_ptr error;
  int error_row = 0;             // the first row that failed
  std::vector<int64_t> samples;  // [batch]
  std::vector<uint8_t> skipped;  // [batch]
  // [batch]; of each row the samples that it could not use. Like the rows of the host block they belong to the thread
  // that claimed them.
  std::vector<std::vector<int64_t>> bad;
  Event copied;    // the end of the last copy
  Event released;  // the consumer's last use of the device block

private:
  template <class T>
  static T* at(const Buffer& buffer, int64_t offset) {
    return reinterpret_cast<T*>(buffer.as<uint8_t>() + offset);
  }

  int64_t room() const { return layout_.bytes - layout_.pictures; }
  bool take(int64_t bytes);

  SlotLayout layout_;
  Buffer host_, device_;
  SlotState state_ = SlotState::free;
  std::atomic<int64_t> taken_{0};  // of the room: from its beginning and from its end
  std::atomic<int64_t> copied_bytes_{0}, device_bytes_{0};
};

}  // namespace convolt
