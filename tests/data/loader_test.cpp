// What is in the batches.
#include <atomic>
#include <iterator>
#include <mutex>
#include <set>

#include "augment/policy.h"
#include "data/decode.h"
#include "data/sampler.h"
#include "exif.h"
#include "jpeg_writer.h"
#include "loader_fixture.h"

namespace convolt::test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

TEST_P(LoaderTest, SameBitsForAnyNumberOfThreads) {
  MemoryDataset dataset(37);
  dataset.spoil(3);
  dataset.cut(11);
  const auto one = Loader::create(context(), dataset, options(8, 1)),
             many = Loader::create(context(), dataset, options(8, 8));
  EXPECT_EQ(take(*one, 8, 13), take(*many, 8, 13));
}

// More threads than a batch has rows, fewer slots than threads: each batch is still made once and in its place.
TEST_P(LoaderTest, ManyThreadsAndSmallBatchesKeepTheOrder) {
  const MemoryDataset dataset(40);
  LoaderOptions o = options(2, 8);
  o.slots = 2;
  const auto loader = Loader::create(context(), dataset, o);
  for (int64_t step = 0; step < 300; ++step) {
    Batch batch;
    ASSERT_TRUE(loader->next(batch));
    const Permutation permutation(40, o.seed, static_cast<uint32_t>(step / 20));
    for (int64_t r = 0; r < 2; ++r) EXPECT_EQ(batch.samples[r], permutation(step % 20 * 2 + r)) << step;
    loader->release(batch);
  }
}

TEST_P(LoaderTest, RowsAreTheSamplesOfThePermutation) {
  const MemoryDataset dataset(20);
  const LoaderOptions o = options(6);
  const auto loader = Loader::create(context(), dataset, o);
  EXPECT_EQ(loader->steps_per_epoch(), 3);
  for (int64_t step = 0; step < 7; ++step) {
    Batch batch;
    ASSERT_TRUE(loader->next(batch));
    EXPECT_EQ(batch.step, step);
    EXPECT_EQ(batch.epoch, step / 3);
    EXPECT_EQ(batch.index, step % 3);
    EXPECT_EQ(batch.rows, 6);
    EXPECT_EQ(batch.weight_sum, 6);
    const std::vector<Row> rows = rows_of(batch, 6);
    for (int r = 0; r < 6; ++r) {
      const auto epoch = static_cast<uint32_t>(step / 3);
      const int64_t sample = Permutation(20, o.seed, epoch)(step % 3 * 6 + r);
      const int width = static_cast<int>(1 + sample % 7), height = static_cast<int>(1 + sample % 5);
      const Bytes file = numbered_ppm(width, height, static_cast<int>(sample));
      Row expected{sample,
                   static_cast<int32_t>(sample % 5),
                   1,
                   0,
                   make_record(o.augment, height, width, 3, o.seed, epoch, static_cast<uint64_t>(sample)),
                   {},
                   {}};
      expected.pixels = box_pixels(expected.record, file.data() + file.size() - width * height * 3);
      expected.record.stride = 0;
      EXPECT_EQ(rows[static_cast<size_t>(r)], expected) << "step " << step << " row " << r;
    }
    loader->release(batch);
  }
}

// Of a JPEG only what the epoch shows is decoded, and a cut one is bad whatever that is.
TEST_P(LoaderTest, PartsOfJpegsAreThoseOfTheWholeForAnyThreadsAndAfterAResume) {
  MemoryDataset dataset(12);
  std::vector<Bytes> files;
  for (int i = 0; i < 12; ++i) {
    files.push_back(write_jpeg({.name = "", .progressive = i % 3 == 0}, 60 + 9 * i, 150 - 7 * i));
    if (i % 2 == 1) files.back() = with_exif(files.back(), 1 + i % 8, false);
    dataset.put(i, i == 5 ? Bytes(files[5].begin(), files[5].end() - 30) : files.back());
  }
  LoaderOptions o = options(4, 1);
  o.decode = {.max_side = 200, .full_decode = true};
  const auto one = take(*Loader::create(context(), dataset, o), 4, 9);
  for (const auto& batch : one)
    for (const Row& row : batch) {
      RawSample whole;
      whole.bytes = files[static_cast<size_t>(row.sample)];
      Bytes pixels(1 << 16);
      decode(whole, {}, pixels, "whole");
      SampleRecord lies = row.record;
      lies.stride = lies.width;
      EXPECT_NE(row.sample, 5);
      EXPECT_EQ(row.pixels, box_pixels(lies, pixels.data())) << row.sample;
    }
  o.threads = 8;
  EXPECT_EQ(take(*Loader::create(context(), dataset, o), 4, 9), one);
  o.first_step = 5;
  EXPECT_EQ(take(*Loader::create(context(), dataset, o), 4, 4), std::vector(one.begin() + 5, one.end()));
}

// Files that lose their ends after their first epoch: a crop that lies before what is lost is shown as before. A file
// that never had one is never shown.
TEST_P(LoaderTest, WhatLiesBehindACropIsReadOnce) {
  constexpr int kFiles = 24;
  std::vector<Bytes> files;
  for (int i = 0; i < kFiles; ++i) files.push_back(write_jpeg({.name = ""}, 60 + i, 150 - i));
  const auto cut = [&](int i) {
    const Bytes& file = files[static_cast<size_t>(i)];
    return Bytes(file.begin(), file.end() - static_cast<int64_t>(file.size() / 4));
  };
  LoaderOptions o = options(kFiles, 1);
  o.bad_samples = BadSamplePolicy::skip;
  o.max_bad = 1;
  MemoryDataset good(kFiles), cut_later(kFiles);
  for (int i = 0; i < kFiles; ++i) good.put(i, files[static_cast<size_t>(i)]);
  for (int i = 0; i < kFiles; ++i) cut_later.put(i, i == 7 ? cut(i) : files[static_cast<size_t>(i)]);
  int reads = 0;
  cut_later.on_read = [&] {
    if (++reads == kFiles + 1)
      for (int i = 0; i < kFiles; ++i) cut_later.put(i, cut(i));
  };
  const auto expected = take(*Loader::create(context(), good, o), kFiles, 2);
  const auto found = take(*Loader::create(context(), cut_later, o), kFiles, 2);
  int shown = 0, bad = 0;
  for (size_t epoch = 0; epoch < 2; ++epoch)
    for (size_t row = 0; row < kFiles; ++row) {
      const Row& f = found[epoch][row];
      if (f.sample == 7) {
        EXPECT_EQ(f.skipped, 1);
      } else if (epoch == 0 || f.skipped == 0) {
        EXPECT_EQ(f, expected[epoch][row]);
        shown += epoch == 1 ? 1 : 0;
      } else {
        ++bad;
      }
    }
  EXPECT_GE(shown, 3);
  EXPECT_GE(bad, 3);
}

TEST_P(LoaderTest, PicturesLieApartOn256Bytes) {
  const MemoryDataset dataset(40);
  const auto loader = Loader::create(context(), dataset, options(16, 4));
  Batch batch;
  ASSERT_TRUE(loader->next(batch));
  std::set<int64_t> offsets;
  for (const SampleRecord& record : from_device(batch.records, 16)) {
    EXPECT_EQ(record.offset % 256, 0);
    offsets.insert(record.offset);
  }
  EXPECT_EQ(offsets.size(), 16U);  // no picture here is larger than 256 bytes
  loader->release(batch);
}

TEST_P(LoaderTest, ResumeGivesTheBatchesOfAnUninterruptedRun) {
  MemoryDataset dataset(30);
  dataset.spoil(8);
  LoaderOptions o = options(4);
  const auto whole = take(*Loader::create(context(), dataset, o), 4, 20);
  for (const int first : {1, 6, 7, 13}) {
    o.first_step = first;
    const auto loader = Loader::create(context(), dataset, o);
    EXPECT_EQ(take(*loader, 4, 20 - first), std::vector(whole.begin() + first, whole.end())) << first;
  }
}

TEST_P(LoaderTest, RowsWeighWhatTheDataSetSaysInTrainingAlone) {
  class Weighted final : public Dataset {
  public:
    int64_t size() const override { return 6; }
    RawSample read(int64_t i) const override { return {numbered_ppm(2, 2, static_cast<int>(i)), 0, 0, 0, 0}; }
    float weight(int64_t i) const override { return 0.5F * static_cast<float>(i + 1); }
  };
  const Weighted set;
  for (const bool training : {true, false}) {
    LoaderOptions o = options(6);
    o.training = training;
    const auto loader = Loader::create(context(), set, o);
    Batch batch;
    ASSERT_TRUE(loader->next(batch));
    for (const Row& row : rows_of(batch, 6)) EXPECT_EQ(row.weight, training ? set.weight(row.sample) : 1) << row.sample;
    EXPECT_EQ(batch.weight_sum, training ? 10.5F : 6);
    loader->release(batch);
  }
}

TEST_P(LoaderTest, EvaluationCoversEachSampleOnceAndPads) {
  MemoryDataset dataset(10);
  dataset.spoil(4);
  LoaderOptions o = options(4, 3);
  o.training = false;
  const auto loader = Loader::create(context(), dataset, o);
  EXPECT_EQ(loader->steps_per_epoch(), 3);
  for (int round = 0; round < 2; ++round) {
    const auto batches = take(*loader, 4, 100);
    ASSERT_EQ(batches.size(), 3U);
    for (int64_t i = 0; i < 12; ++i) {
      const Row& row = batches[static_cast<size_t>(i / 4)][static_cast<size_t>(i % 4)];
      EXPECT_EQ(row.sample, i < 10 ? i : -1);
      EXPECT_EQ(row.weight, i < 10 && i != 4 ? 1 : 0);
      EXPECT_EQ(row.skipped, i == 4 ? 1 : 0);
      EXPECT_EQ(row.record.height, i < 10 && i != 4 ? 1 + i % 5 : 0);
      EXPECT_EQ(row.label, i < 10 && i != 4 ? i % 5 : 0);
    }
    Batch none;
    EXPECT_FALSE(loader->next(none));
    loader->restart();
  }
  ASSERT_EQ(loader->bad_samples().size(), 1U);
  EXPECT_EQ(loader->bad_samples()[0].name, "sample4");
  EXPECT_THAT(loader->bad_samples()[0].reason, StartsWith("not a picture"));
}

TEST_P(LoaderTest, EvaluationCanRestartInTheMiddle) {
  const MemoryDataset dataset(50);
  LoaderOptions o = options(4, 4);
  o.training = false;
  const auto loader = Loader::create(context(), dataset, o);
  const auto whole = take(*loader, 4, 100);
  for (int taken = 0; taken < 8; ++taken) {
    loader->restart();
    EXPECT_EQ(take(*loader, 4, taken), std::vector(whole.begin(), whole.begin() + taken));
  }
  Batch batch;
  loader->restart();
  ASSERT_TRUE(loader->next(batch));
  EXPECT_THAT(message_of<UsageError>([&] { loader->restart(); }), HasSubstr("needs all batches"));
  EXPECT_EQ(batch.rows, 4);
  loader->release(batch);
}

TEST_P(LoaderTest, RawSamplesOfOneSizeNeedNoHeaders) {
  class Digits final : public Dataset {
  public:
    int64_t size() const override { return 70; }
    int32_t label(int64_t) const override { return 0; }
    std::string name(int64_t i) const override { return std::to_string(i); }
    RawSample read(int64_t i) const override { return {Bytes(6, static_cast<uint8_t>(i)), 2, 3, 1}; }
    std::string describe() const override { return "digits"; }
    int channels() const override { return 1; }
    int fixed_height() const override { return 2; }
    int fixed_width() const override { return 3; }
  };
  const Digits digits;
  LoaderOptions o = options(35, 3);
  o.training = false;
  o.augment.geometry = AugmentOptions::Geometry::none;
  const auto loader = Loader::create(context(), digits, o);
  const auto batches = take(*loader, 35, 2);
  for (int64_t i = 0; i < 70; ++i) {
    const Row& row = batches[static_cast<size_t>(i / 35)][static_cast<size_t>(i % 35)];
    EXPECT_EQ(row.pixels, Bytes(6, static_cast<uint8_t>(i)));
    EXPECT_EQ(row.record.channels, 1);
  }
}

// A data set of one's own: two functions, here with files, pixels of several sizes and a sample that is lost.
class TwoFunctions final : public Dataset {
public:
  int64_t size() const override { return 9; }
  RawSample read(int64_t i) const override {
    if (i == 4) throw DataError("sample 4: lost");
    const int height = static_cast<int>(1 + i % 3);
    RawSample sample{Bytes(static_cast<size_t>(height * 2 * 3), static_cast<uint8_t>(i)), height, 2, 3};
    if (i % 2 == 1) sample = {numbered_ppm(2, height, static_cast<int>(i)), 0, 0, 0};
    sample.label = static_cast<int32_t>(10 * i);
    return sample;
  }
};

TEST_P(LoaderTest, ADatasetNeedsTwoFunctions) {
  const TwoFunctions dataset;
  LoaderOptions o = options(9, 3);
  o.training = false;
  const auto loader = Loader::create(context(), dataset, o);
  const auto batches = take(*loader, 9, 1);
  for (int64_t i = 0; i < 9; ++i) {
    const Row& row = batches[0][static_cast<size_t>(i)];
    EXPECT_EQ(row.skipped, i == 4 ? 1 : 0);
    if (i == 4) continue;
    EXPECT_EQ(row.label, 10 * i);
    EXPECT_EQ(row.record.height, 1 + i % 3);
    if (i % 2 != 0) continue;  // a file
    EXPECT_THAT(row.pixels, testing::Each(i));
  }
  EXPECT_EQ(loader->bad_samples()[0].reason, "lost");
  EXPECT_EQ(dataset.label(3), 30);
  EXPECT_EQ(dataset.name(3), "sample 3");
  EXPECT_EQ(dataset.describe(), "data set");
  EXPECT_THAT(dataset.class_names(), testing::IsEmpty());
}

// Every batch is announced whole and in order, at the latest while the one before it is decoded; the padding is not.
TEST_P(LoaderTest, SamplesAreAnnouncedBeforeTheyAreRead) {
  struct Announced final : Dataset {
    int64_t size() const override { return 10; }
    RawSample read(int64_t i) const override { return {numbered_ppm(3, 2, static_cast<int>(i)), 0, 0, 0, 0}; }
    bool fetches_ahead() const override { return true; }
    void expect(std::span<const int64_t> samples) const noexcept override {
      const std::lock_guard lock(mutex);
      coming.insert(coming.end(), samples.begin(), samples.end());
    }
    mutable std::mutex mutex;
    mutable std::vector<int64_t> coming;
  };
  for (const bool training : {true, false}) {
    const Announced dataset;
    LoaderOptions o = options(4, 1);
    o.training = training;
    const auto loader = Loader::create(context(), dataset, o);
    std::vector<int64_t> samples;
    Batch batch;
    for (int b = 0; b < (training ? 5 : 3) && loader->next(batch); ++b) {
      std::copy_if(batch.samples, batch.samples + 4, std::back_inserter(samples), [](int64_t i) { return i >= 0; });
      const std::lock_guard lock(dataset.mutex);
      ASSERT_GE(dataset.coming.size(), std::min(samples.size() + 4, training ? size_t{1000} : size_t{10}));
      EXPECT_TRUE(std::equal(samples.begin(), samples.end(), dataset.coming.begin()));
      loader->release(batch);
    }
    EXPECT_EQ(samples.size(), training ? 20U : 10U);
  }
}

// Ordering a batch only to tell a set that does not listen is time lost.
TEST_P(LoaderTest, ASetThatDoesNotFetchAheadIsToldNothing) {
  struct Deaf final : Dataset {
    int64_t size() const override { return 8; }
    RawSample read(int64_t) const override { return {Bytes(3), 1, 1, 3, 0}; }
    void expect(std::span<const int64_t>) const noexcept override { ++told; }
    mutable std::atomic<int> told{0};
  };
  const Deaf dataset;
  take(*Loader::create(context(), dataset, options(4)), 4, 4);
  EXPECT_EQ(dataset.told, 0);
}

TEST_P(LoaderTest, ADatasetWithoutLabelsSaysHowToGiveThem) {
  class Unlabelled final : public Dataset {
  public:
    int64_t size() const override { return 4; }
    RawSample read(int64_t) const override { return {Bytes(3), 1, 1, 3}; }
  };
  const Unlabelled dataset;
  const auto loader = Loader::create(context(), dataset, options(4));
  Batch batch;
  EXPECT_THAT(message_of<UsageError>([&] { loader->next(batch); }), HasSubstr("has no label; a data set gives"));
}

INSTANTIATE_TEST_SUITE_P(Devices, LoaderTest, testing::Values(Device::cpu(), Device::cuda()), device_name);

}  // namespace
}  // namespace convolt::test
