#include "convolt/loader.h"

#include <gmock/gmock.h>

#include <atomic>
#include <cstddef>
#include <cstring>
#include <set>
#include <thread>

#include "augment.h"
#include "augment/policy.h"
#include "convolt/error.h"
#include "data/sampler.h"
#include "support/device.h"
#include "test_files.h"

namespace convolt::test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

// Small pictures of many sizes in memory. Sample i has label i % 5; some are not pictures, some throw.
class MemoryDataset final : public Dataset {
public:
  explicit MemoryDataset(int size) {
    for (int i = 0; i < size; ++i) files_.push_back(numbered_ppm(1 + i % 7, 1 + i % 5, i));
  }
  void spoil(int i) { files_[static_cast<size_t>(i)] = bytes_of("not a picture"); }
  // Good header, broken picture.
  void cut(int i) { files_[static_cast<size_t>(i)] = bytes_of("P3 2 2 255 1 2 3 x"); }
  void fail(int i) { failing_ = i; }

  int64_t size() const override { return static_cast<int64_t>(files_.size()); }
  int32_t label(int64_t i) const override { return static_cast<int32_t>(i % 5); }
  std::string name(int64_t i) const override { return "sample" + std::to_string(i); }
  std::string describe() const override { return "memory"; }
  RawSample read(int64_t i) const override {
    if (on_read) on_read();
    if (i == failing_) throw std::runtime_error("the disk is on fire");
    RawSample sample;
    sample.bytes = files_[static_cast<size_t>(i)];
    return sample;
  }
  size_t read_part(int64_t i, int64_t offset, std::span<uint8_t> into) const override {
    const Bytes& file = files_[static_cast<size_t>(i)];
    const size_t count = std::min(into.size(), file.size() - std::min(file.size(), static_cast<size_t>(offset)));
    std::memcpy(into.data(), file.data() + offset, count);
    return count;
  }

  std::function<void()> on_read;  // called by read(), not by read_part()

private:
  std::vector<Bytes> files_;
  int64_t failing_ = -1;
};

// Without the padding at the end.
constexpr size_t kRecordBytes = offsetof(SampleRecord, erase) + sizeof(SampleRecord::erase);

// A row as the network will see it. The picture is compared itself, not where it lies.
struct Row {
  int64_t sample = 0;
  int32_t label = 0;
  float weight = 0;
  int skipped = 0;
  SampleRecord record;
  Bytes pixels;

  friend bool operator==(const Row& a, const Row& b) {
    return a.sample == b.sample && a.label == b.label && a.weight == b.weight && a.skipped == b.skipped &&
           std::memcmp(&a.record, &b.record, kRecordBytes) == 0 && a.pixels == b.pixels;
  }
};

class LoaderTest : public testing::TestWithParam<Device> {
protected:
  void SetUp() override {
    if (GetParam().is_cuda() && cuda_device_count() == 0) GTEST_SKIP() << cuda_unavailable_reason();
  }
  Context& context() const { return context_of(GetParam()); }

  static LoaderOptions options(int batch, int threads = 2) {
    LoaderOptions o;
    o.batch = batch;
    o.threads = threads;
    o.seed = 42;
    o.augment.height = o.augment.width = 4;
    o.augment.hflip = 0.5F;
    return o;
  }

  template <class T>
  std::vector<T> from_device(const T* device, int64_t count) const {
    std::vector<T> host(static_cast<size_t>(count));
    context().compute().copy(host.data(), device, count * static_cast<int64_t>(sizeof(T)));
    context().compute().synchronize();
    return host;
  }

  std::vector<Row> rows_of(const Batch& batch, int size) const {
    const auto records = from_device(batch.records, size);
    const auto labels = from_device(batch.labels, size);
    const auto weights = from_device(batch.weights, size);
    std::vector<Row> rows(static_cast<size_t>(size));
    for (size_t r = 0; r < rows.size(); ++r) {
      rows[r] = {batch.samples[r], labels[r], weights[r], batch.skipped[r], records[r], {}};
      const SampleRecord& record = records[r];
      if (record.height > 0)
        rows[r].pixels =
            from_device(batch.pixels + record.offset, int64_t{record.height} * record.width * record.channels);
      rows[r].record.offset = 0;
    }
    return rows;
  }

  // The next `count` batches, or all of an evaluation.
  std::vector<std::vector<Row>> take(Loader& loader, int batch_size, int count) const {
    std::vector<std::vector<Row>> batches;
    Batch batch;
    while (static_cast<int>(batches.size()) < count && loader.next(batch)) {
      batches.push_back(rows_of(batch, batch_size));
      loader.release(batch);
    }
    return batches;
  }
};

TEST_P(LoaderTest, SameBitsForAnyNumberOfThreads) {
  MemoryDataset dataset(37);
  dataset.spoil(3);
  dataset.cut(11);
  const auto one = Loader::create(context(), dataset, options(8, 1)),
             many = Loader::create(context(), dataset, options(8, 8));
  EXPECT_EQ(take(*one, 8, 13), take(*many, 8, 13));
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
                   Bytes(file.end() - width * height * 3, file.end())};
      expected.record.offset = 0;
      EXPECT_EQ(rows[static_cast<size_t>(r)], expected) << "step " << step << " row " << r;
    }
    loader->release(batch);
  }
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

TEST_P(LoaderTest, ABadPictureIsReplacedByAPureFunction) {
  MemoryDataset dataset(24);
  for (const int bad : {0, 5, 6, 7, 8, 9}) dataset.spoil(bad);
  for (const int bad : {10, 11}) dataset.cut(bad);
  const auto is_bad = [](int64_t i) { return i == 0 || (i >= 5 && i <= 11); };
  const LoaderOptions o = options(24, 3);
  const auto loader = Loader::create(context(), dataset, o);
  for (uint32_t epoch = 0; epoch < 3; ++epoch) {
    Batch batch;
    ASSERT_TRUE(loader->next(batch));
    for (int r = 0; r < 24; ++r) {
      int64_t expected = Permutation(24, o.seed, epoch)(r);
      for (int attempt = 0; is_bad(expected); ++attempt) expected = replacement_sample(o.seed, epoch, r, attempt, 24);
      EXPECT_EQ(batch.samples[r], expected);
      EXPECT_EQ(batch.skipped[r], 0);
    }
    EXPECT_EQ(batch.weight_sum, 24);
    loader->release(batch);
  }
  std::set<std::string> named;
  for (const BadSample& bad : loader->bad_samples()) {
    EXPECT_TRUE(named.insert(bad.name).second) << bad.name << " twice";
    EXPECT_FALSE(bad.reason.empty());
  }
  EXPECT_EQ(named, (std::set<std::string>{"sample0", "sample10", "sample11", "sample5", "sample6", "sample7", "sample8",
                                          "sample9"}));
}

TEST_P(LoaderTest, SixteenBadReplacementsAreAnError) {
  MemoryDataset dataset(64);
  for (int i = 1; i < 64; ++i) dataset.spoil(i);
  const auto loader = Loader::create(context(), dataset, options(16));
  Batch batch;
  const std::string message = message_of<DataError>([&] { loader->next(batch); });
  EXPECT_THAT(message, StartsWith("sample"));
  EXPECT_THAT(message, HasSubstr("16 samples drawn in its place"));
  EXPECT_EQ(message_of<DataError>([&] { loader->next(batch); }), message);
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
      EXPECT_EQ(row.label, i < 10 ? i % 5 : 0);
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
  const auto loader = Loader::create(context(), digits, o);
  const auto batches = take(*loader, 35, 2);
  for (int64_t i = 0; i < 70; ++i) {
    const Row& row = batches[static_cast<size_t>(i / 35)][static_cast<size_t>(i % 35)];
    EXPECT_EQ(row.pixels, Bytes(6, static_cast<uint8_t>(i)));
    EXPECT_EQ(row.record.channels, 1);
  }
}

TEST_P(LoaderTest, ASlowDecodeIsQuarantined) {
  const MemoryDataset dataset(4);
  LoaderOptions o = options(4);
  o.training = false;
  o.max_decode_seconds = 0;  // everything takes longer
  const auto loader = Loader::create(context(), dataset, o);
  Batch batch;
  ASSERT_TRUE(loader->next(batch));
  EXPECT_EQ(batch.weight_sum, 0);
  EXPECT_EQ(batch.rows, 4);
  ASSERT_EQ(loader->bad_samples().size(), 4U);
  EXPECT_THAT(loader->bad_samples()[0].reason, HasSubstr("took longer"));
  loader->release(batch);
}

TEST_P(LoaderTest, AWorkersExceptionNamesTheSampleAndComesInOrder) {
  MemoryDataset dataset(20);
  dataset.fail(13);
  LoaderOptions o = options(4, 4);
  o.training = false;
  const auto loader = Loader::create(context(), dataset, o);
  EXPECT_EQ(take(*loader, 4, 3).size(), 3U);
  Batch batch;
  EXPECT_EQ(message_of<Error>([&] { loader->next(batch); }), "sample13: the disk is on fire");
}

TEST_P(LoaderTest, StopsAtAnyMoment) {
  const MemoryDataset dataset(64);
  for (int taken = 0; taken < 12; ++taken) {
    const auto loader = Loader::create(context(), dataset, options(8, 4));
    Batch batch;
    for (int i = 0; i < taken; ++i) {
      ASSERT_TRUE(loader->next(batch));
      if (i + 1 < taken || taken % 2 == 0) loader->release(batch);  // else it is still held at the end
    }
    if (taken % 3 == 0) {
      loader->stop();
      EXPECT_THAT(message_of<Error>([&] { loader->next(batch); }), HasSubstr("stopped"));
    }
  }
}

TEST_P(LoaderTest, StopWakesAWaitingConsumer) {
  MemoryDataset dataset(8);
  std::atomic<bool> open{false}, reached{false};
  dataset.on_read = [&] {
    reached = true;
    open.wait(false);
  };
  const auto loader = Loader::create(context(), dataset, options(4, 1));
  std::jthread stopper([&] {
    while (!reached) std::this_thread::yield();
    loader->stop();
    open = true;
    open.notify_all();
  });
  Batch batch;
  EXPECT_THROW(loader->next(batch), Error);
}

// The decoders never run further ahead than the slots, and the consumer never gets a batch early.
TEST_P(LoaderTest, DecodersWaitForFreeSlots) {
  MemoryDataset dataset(64);
  constexpr int kBatch = 4, kSlots = 3;
  std::atomic<int> reads{0}, allowed{kBatch * kSlots}, excess{0};
  dataset.on_read = [&] {
    if (++reads > allowed) ++excess;
  };
  LoaderOptions o = options(kBatch, 4);
  o.slots = kSlots;
  const auto loader = Loader::create(context(), dataset, o);
  for (int i = 0; i < 30; ++i) {
    while (reads < allowed) std::this_thread::yield();
    Batch batch;
    ASSERT_TRUE(loader->next(batch));
    allowed += kBatch;
    loader->release(batch);
  }
  EXPECT_EQ(excess, 0);
}

TEST_P(LoaderTest, MemoryIsAllocatedAtCreationAndNobodyWaitsOnTheDevice) {
  const MemoryDataset dataset(64);
  Counters& counters = context().counters();
  const int64_t bytes_before = counters.device_bytes;
  const auto loader = Loader::create(context(), dataset, options(8, 4));
  EXPECT_EQ(counters.device_bytes - bytes_before, 3 * loader->slot_bytes());
  const int64_t device = counters.device_allocations, pinned = counters.pinned_allocations, waits = counters.host_waits;
  Batch batch;
  for (int i = 0; i < 40; ++i) {
    ASSERT_TRUE(loader->next(batch));
    loader->release(batch);
  }
  EXPECT_EQ(counters.device_allocations, device);
  EXPECT_EQ(counters.pinned_allocations, pinned);
  EXPECT_EQ(counters.host_waits, waits);
}

TEST_P(LoaderTest, MemoryIsGivenBack) {
  const MemoryDataset dataset(64);
  const int64_t device = context().counters().device_bytes, pinned = context().counters().pinned_bytes;
  {
    const auto loader = Loader::create(context(), dataset, options(8, 4));
    Batch batch;
    ASSERT_TRUE(loader->next(batch));
  }
  EXPECT_EQ(context().counters().device_bytes, device);
  EXPECT_EQ(context().counters().pinned_bytes, pinned);
}

// The device's block is not overwritten while work that was submitted before release() still reads it.
TEST_P(LoaderTest, ReleasedBlocksAreReusedOnlyAfterTheComputeQueue) {
  const MemoryDataset dataset(64);
  LoaderOptions o = options(8, 4);
  o.slots = 2;
  const auto loader = Loader::create(context(), dataset, o);
  const auto expected = take(*Loader::create(context(), dataset, o), 8, 12);
  std::vector<std::vector<int32_t>> labels(12, std::vector<int32_t>(8));
  for (size_t i = 0; i < labels.size(); ++i) {
    Batch batch;
    ASSERT_TRUE(loader->next(batch));
    context().compute().run([](Stream) { std::this_thread::sleep_for(std::chrono::milliseconds(2)); });
    context().compute().copy(labels[i].data(), batch.labels, 8 * sizeof(int32_t));
    loader->release(batch);
  }
  context().compute().synchronize();
  for (size_t i = 0; i < labels.size(); ++i)
    for (size_t r = 0; r < 8; ++r) EXPECT_EQ(labels[i][r], expected[i][r].label) << i;
}

TEST_P(LoaderTest, OptionsAndCallsThatMakeNoSense) {
  const MemoryDataset dataset(4);
  const auto refusal = [&](const LoaderOptions& o) {
    return message_of<UsageError>([&] { Loader::create(context(), dataset, o); });
  };
  LoaderOptions o = options(0);
  EXPECT_THAT(refusal(o), HasSubstr("batch is 0: expected at least 1"));
  o = options(4, 0);
  EXPECT_THAT(refusal(o), HasSubstr("number of threads is 0"));
  o = options(4);
  o.slots = 1;
  EXPECT_THAT(refusal(o), HasSubstr("number of slots is 1: expected at least 2"));
  EXPECT_THAT(message_of<DataError>([&] { Loader::create(context(), dataset, options(5)); }),
              HasSubstr("has 4 samples, fewer than one batch of 5"));

  o.slots = 2;
  const auto loader = Loader::create(context(), dataset, o);
  Batch first, second;
  ASSERT_TRUE(loader->next(first));
  ASSERT_TRUE(loader->next(second));
  EXPECT_THAT(message_of<UsageError>([&] { loader->next(first); }), HasSubstr("all 2 slots of the loader are in use"));
  EXPECT_THROW(loader->restart(), UsageError);
  loader->release(first);
  EXPECT_THROW(loader->release(first), Error);
  EXPECT_THROW(loader->release(Batch{}), UsageError);
  loader->release(second);
}

TEST_P(LoaderTest, ASetWithoutAnyPictureIsRefused) {
  MemoryDataset dataset(3);
  for (int i = 0; i < 3; ++i) dataset.spoil(i);
  EXPECT_THAT(message_of<DataError>([&] { Loader::create(context(), dataset, options(2)); }),
              HasSubstr("nor is any other of the 3 samples"));
}

std::string device_name(const testing::TestParamInfo<Device>& param) { return param.param.is_cuda() ? "cuda" : "cpu"; }

INSTANTIATE_TEST_SUITE_P(Devices, LoaderTest, testing::Values(Device::cpu(), Device::cuda()), device_name);

}  // namespace
}  // namespace convolt::test
