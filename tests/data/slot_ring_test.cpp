#include "data/slot_ring.h"

#include <gmock/gmock.h>

#include "convolt/error.h"
#include "support/device.h"
#include "test_files.h"

namespace convolt::test {
namespace {

using testing::HasSubstr;

TEST(SlotLayout, EverythingStartsOn256Bytes) {
  const SlotLayout layout(3, 1000);
  EXPECT_GE(layout.labels, 3 * static_cast<int64_t>(sizeof(SampleRecord)));
  EXPECT_GE(layout.weights, layout.labels + 12);
  EXPECT_GE(layout.pictures, layout.weights + 12);
  EXPECT_EQ(layout.bytes, layout.pictures + 1024);
  for (const int64_t offset : {layout.labels, layout.weights, layout.pictures}) EXPECT_EQ(offset % 256, 0);
  const SlotLayout mixing(20, 1000, true);
  EXPECT_EQ(mixing.mixes, mixing.weights + 256);
  EXPECT_EQ(mixing.pictures, mixing.mixes + 512) << "20 of 20 bytes";
}

TEST(PictureCapacity, LargestOfABatchAndSixteenMore) {
  // Two of the largest (768 + 512), and 16 x 768, capped by 2 x 768.
  EXPECT_EQ(picture_capacity({10, 700, 400, 300}, 2), 1536);
  // 40 x 256 small ones and one of 2560: (39 x 256 + 2560) + 16 x 2560.
  std::vector<int64_t> sizes(100, 1);
  sizes[50] = 2560;
  EXPECT_EQ(picture_capacity(sizes, 40), 39 * 256 + 2560 + 16 * 2560);
  // A set smaller than the batch.
  EXPECT_EQ(picture_capacity({256}, 100), 256 + 16 * 256);
  // Samples without a header count as nothing.
  EXPECT_EQ(picture_capacity({0, 256, 0}, 2), 512);
  sizes = std::vector<int64_t>(100, 256);
  sizes[50] = 2560;
  EXPECT_EQ(picture_capacity(sizes, 40, 4), 4 * (9 * 256 + 2560) + 16 * 2560);
  EXPECT_EQ(picture_capacity(sizes, 41, 4), 4 * (10 * 256 + 2560) + 16 * 2560);
  EXPECT_EQ(picture_capacity(sizes, 40, 40), 40 * 2560);
}

TEST(Slot, LivesInOneOrder) {
  Slot slot(context_of(Device::cpu()), SlotLayout(2, 512));
  EXPECT_EQ(slot.state(), SlotState::free);
  slot.begin();
  EXPECT_THAT(message_of<Error>([&] { slot.begin(); }), HasSubstr("from Free to Decoding: it is Decoding"));
  EXPECT_THROW(slot.advance(SlotState::decoding, SlotState::ready), Error);
  EXPECT_THROW(slot.advance(SlotState::decoding, SlotState::free), Error);
  slot.advance(SlotState::decoding, SlotState::copying);
  slot.advance(SlotState::copying, SlotState::ready);
  slot.advance(SlotState::ready, SlotState::in_use);
  EXPECT_THROW(slot.discard(), Error);
  slot.advance(SlotState::in_use, SlotState::free);
  EXPECT_EQ(slot.state(), SlotState::free);
}

TEST(Slot, ReservesAlignedRoomUntilFull) {
  Slot slot(context_of(Device::cpu()), SlotLayout(2, 1024));
  slot.begin();
  EXPECT_EQ(slot.reserve(257), 0);
  EXPECT_EQ(slot.reserve(1), 512);
  EXPECT_EQ(slot.used_bytes(), slot.layout().pictures + 768);
  EXPECT_EQ(slot.reserve(257), -1);
  EXPECT_EQ(slot.reserve(256), 768);
  EXPECT_EQ(slot.reserve(1), -1);
}

TEST(Slot, WhatTheDeviceWritesLiesAtTheEndAndIsNotCopied) {
  Slot slot(context_of(Device::cpu()), SlotLayout(2, 2048));
  slot.begin();
  EXPECT_EQ(slot.reserve_on_device(300), 2048 - 512);
  EXPECT_EQ(slot.reserve(256), 0);
  EXPECT_EQ(slot.reserve_on_device(1), 2048 - 768);
  EXPECT_EQ(slot.used_bytes(), slot.layout().pictures + 256);
  EXPECT_EQ(slot.reserve_on_device(1025), -1);
  EXPECT_EQ(slot.reserve(1025), -1);
  EXPECT_EQ(slot.reserve_on_device(1024), 256);
  EXPECT_EQ(slot.reserve(1), -1);
  slot.discard();
  slot.begin();
  EXPECT_EQ(slot.reserve_on_device(1), 2048 - 256) << "empty again";
}

}  // namespace
}  // namespace convolt::test
