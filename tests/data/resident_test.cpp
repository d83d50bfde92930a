// A data set that stays on the device gives the same batches as one that is decoded anew for each.
#include <gtest/gtest.h>

#include <atomic>

#include "exif.h"
#include "jpeg_writer.h"
#include "loader_fixture.h"

namespace convolt::test {
namespace {

using testing::HasSubstr;

class ResidentTest : public LoaderTest {
protected:
  static LoaderOptions resident(LoaderOptions o) {
    o.resident = true;
    return o;
  }
  // Of everything that the loader can give.
  void expect_same(const Dataset& dataset, const LoaderOptions& o, int count) const {
    const auto expected = take(*Loader::create(context(), dataset, o), o.batch, count);
    for (const int threads : {1, 5}) {
      LoaderOptions r = resident(o);
      r.threads = threads;
      const auto loader = Loader::create(context(), dataset, r);
      EXPECT_EQ(take(*loader, o.batch, count), expected) << threads;
      if (o.training) continue;
      loader->restart();
      EXPECT_EQ(take(*loader, o.batch, count), expected) << threads << ", restarted";
    }
  }
};

TEST_P(ResidentTest, GivesTheBatchesOfOneThatDecodesForEach) {
  MemoryDataset dataset(14);
  for (int i = 0; i < 12; ++i) {
    const Bytes file = write_jpeg({.name = "", .progressive = i % 3 == 0}, 60 + 9 * i, 150 - 7 * i);
    dataset.put(i, i % 2 == 1 ? with_exif(file, 1 + i % 8, false) : file);
  }
  dataset.spoil(5);
  LoaderOptions o = options(4);
  o.decode = {.max_side = 100, .full_decode = true};  // some are shrunk
  o.augment.geometry = AugmentOptions::Geometry::random_resized_crop;
  expect_same(dataset, o, 9);
  o.first_step = 5;
  expect_same(dataset, o, 4);
  o.bad_samples = BadSamplePolicy::skip;
  expect_same(dataset, o, 4);
  o.training = false;
  expect_same(dataset, o, 10);
}

TEST_P(ResidentTest, ReadsEachSampleOnce) {
  MemoryDataset dataset(20);
  dataset.spoil(3);
  std::atomic<int> reads = 0;
  dataset.on_read = [&] { ++reads; };
  const auto loader = Loader::create(context(), dataset, resident(options(4)));
  EXPECT_EQ(reads, 20);
  ASSERT_EQ(loader->bad_samples().size(), 1U);
  EXPECT_EQ(loader->bad_samples()[0].name, "sample3");
  take(*loader, 4, 12);
  EXPECT_EQ(reads, 20);
}

// Raw pictures of one size.
class Fields final : public Dataset {
public:
  Fields(int64_t size, int side) : size_(size), side_(side) {}
  int64_t size() const override { return size_; }
  int32_t label(int64_t i) const override { return static_cast<int32_t>(i % 3); }
  int channels() const override { return 1; }
  int fixed_height() const override { return side_; }
  int fixed_width() const override { return side_; }
  RawSample read(int64_t i) const override {
    return {Bytes(static_cast<size_t>(side_) * static_cast<size_t>(side_), static_cast<uint8_t>(3 * i + 1)), side_,
            side_, 1};
  }

private:
  const int64_t size_;
  const int side_;
};

// More than travels at once.
TEST_P(ResidentTest, LargeSetsTravelInParts) {
  const Fields dataset(35, 1500);
  LoaderOptions o = options(5);
  o.decode.max_side = 1500;
  const auto loader = Loader::create(context(), dataset, resident(o));
  EXPECT_LT(loader->slot_bytes(), 1500 * 1500);
  Batch batch;
  for (int i = 0; i < 7; ++i) {
    ASSERT_TRUE(loader->next(batch));
    const auto records = from_device(batch.records, 5);
    for (size_t row = 0; row < 5; ++row) {
      const Bytes ends = from_device(batch.pixels + records[row].offset, 1500 * 1500);
      const auto value = static_cast<uint8_t>(3 * batch.samples[row] + 1);
      EXPECT_EQ(ends.front(), value);
      EXPECT_EQ(ends.back(), value);
    }
    loader->release(batch);
  }
}

TEST_P(ResidentTest, WhatIsTooLargeIsRefused) {
  LoaderOptions o = options(4);
  o.decode.max_side = 14000;
  const std::string message = message_of<OutOfMemoryError>(
      [&] { static_cast<void>(Loader::create(context(), Fields(100'000, 14'000), resident(o))); });
  EXPECT_THAT(message, HasSubstr("the decoded pictures take 19600"));
  EXPECT_THAT(message, HasSubstr("leave out --resident"));
}

TEST_P(ResidentTest, ABadPictureMayEndIt) {
  MemoryDataset dataset(12);
  dataset.cut(7);
  LoaderOptions o = resident(options(4));
  o.bad_samples = BadSamplePolicy::fail;
  EXPECT_THAT(message_of<DataError>([&] { static_cast<void>(Loader::create(context(), dataset, o)); }),
              HasSubstr("sample7: "));
  dataset.fail(2);
  EXPECT_THAT(message_of<Error>([&] { static_cast<void>(Loader::create(context(), dataset, o)); }),
              HasSubstr("sample2: the disk is on fire"));
}

INSTANTIATE_TEST_SUITE_P(Devices, ResidentTest, testing::Values(Device::cpu(), Device::cuda()), device_name);

}  // namespace
}  // namespace convolt::test
