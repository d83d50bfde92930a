// What becomes of pictures that cannot be read. loader_test.cpp names the devices.
#include <optional>
#include <set>

#include "data/sampler.h"
#include "loader_fixture.h"

namespace convolt::test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

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

TEST_P(LoaderTest, MoreBadPicturesThanAllowedEndIt) {
  MemoryDataset dataset(24);
  for (const int bad : {3, 4, 5}) dataset.spoil(bad);
  LoaderOptions o = options(24, 3);
  o.bad_samples = BadSamplePolicy::skip;
  Batch batch;
  o.max_bad = 3.0 / 24;
  const auto enough = Loader::create(context(), dataset, o);
  ASSERT_TRUE(enough->next(batch));
  enough->release(batch);
  for (const int allowed : {2, 1, 0}) {
    o.max_bad = (allowed + 0.1) / 24;
    const auto loader = Loader::create(context(), dataset, o);
    const std::string message = message_of<DataError>([&] { loader->next(batch); });
    EXPECT_THAT(message,
                StartsWith(std::to_string(allowed + 1) + " of 24 pictures cannot be used, more than --max-bad allows"));
    EXPECT_EQ(message_of<DataError>([&] { loader->next(batch); }), message);
  }
  o.max_bad = 1.5;
  EXPECT_THROW(Loader::create(context(), dataset, o), UsageError);
}

// Decode threads run ahead, and meet bad pictures in any order.
TEST_P(LoaderTest, WhereBadPicturesEndItDoesNotDependOnTheThreads) {
  MemoryDataset dataset(60);
  for (int bad = 1; bad < 60; bad += 4) dataset.spoil(bad);
  LoaderOptions o = options(4);
  o.max_bad = 8.0 / 60;
  for (const BadSamplePolicy policy : {BadSamplePolicy::skip, BadSamplePolicy::replace}) {
    o.bad_samples = policy;
    std::optional<std::vector<std::string>> expected;
    for (const int threads : {1, 2, 7, 16}) {
      o.threads = threads;
      const auto loader = Loader::create(context(), dataset, o);
      std::vector<std::string> found;
      const std::string end = message_of<DataError>([&] {
        for (Batch batch; found.size() < 500 && loader->next(batch); loader->release(batch)) {
          found.push_back("batch " + std::to_string(batch.step));
          for (const BadSample& b : loader->bad_samples()) found.push_back(b.name + ": " + b.reason);
        }
      });
      EXPECT_THAT(end, StartsWith("9 of 60 pictures cannot be used"));
      EXPECT_GE(found.size(), 10U);
      found.push_back(end);
      if (!expected) expected = found;
      EXPECT_EQ(found, *expected) << threads;
    }
  }
}

TEST_P(LoaderTest, TooManyBadReplacementsAreAnError) {
  MemoryDataset dataset(64);
  for (int i = 1; i < 64; ++i) dataset.spoil(i);
  const auto loader = Loader::create(context(), dataset, options(16));
  Batch batch;
  const std::string message = message_of<DataError>([&] { loader->next(batch); });
  EXPECT_THAT(message, StartsWith("sample"));
  EXPECT_THAT(message, HasSubstr("64 samples drawn in its place"));
  EXPECT_EQ(message_of<DataError>([&] { loader->next(batch); }), message);
}

TEST_P(LoaderTest, ASkippedPictureHasWeightZeroAndItsPlace) {
  MemoryDataset dataset(24);
  for (const int bad : {0, 5, 10}) dataset.spoil(bad);
  LoaderOptions o = options(24, 3);
  o.bad_samples = BadSamplePolicy::skip;
  const auto loader = Loader::create(context(), dataset, o);
  for (uint32_t epoch = 0; epoch < 2; ++epoch) {
    Batch batch;
    ASSERT_TRUE(loader->next(batch));
    EXPECT_EQ(batch.weight_sum, 21);
    EXPECT_EQ(batch.rows, 24);
    const std::vector<Row> rows = rows_of(batch, 24);
    for (int r = 0; r < 24; ++r) {
      const Row& row = rows[static_cast<size_t>(r)];
      const bool bad = row.sample == 0 || row.sample == 5 || row.sample == 10;
      EXPECT_EQ(row.sample, Permutation(24, o.seed, epoch)(r));
      EXPECT_EQ(row.weight, bad ? 0 : 1);
      EXPECT_EQ(row.skipped, bad ? 1 : 0);
    }
    loader->release(batch);
  }
  EXPECT_EQ(loader->bad_samples().size(), 3U);
}

TEST_P(LoaderTest, ABatchWithoutAnyPictureIsAnError) {
  MemoryDataset dataset(16);
  for (int i = 0; i < 16; ++i)
    if (i != 3) dataset.cut(i);
  LoaderOptions o = options(4);
  o.bad_samples = BadSamplePolicy::skip;
  const auto loader = Loader::create(context(), dataset, o);
  const std::string message = message_of<DataError>([&] { take(*loader, 4, 4); });
  EXPECT_THAT(message, HasSubstr("cannot be read, and neither can any other sample of its batch of 4"));
}

TEST_P(LoaderTest, FailNamesTheFirstBadPicture) {
  MemoryDataset dataset(16);
  dataset.spoil(9);
  for (const bool training : {true, false}) {
    LoaderOptions o = options(4);
    o.training = training;
    o.bad_samples = BadSamplePolicy::fail;
    const auto loader = Loader::create(context(), dataset, o);
    EXPECT_THAT(message_of<DataError>([&] { take(*loader, 4, 4); }), StartsWith("sample9: not a picture"));
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

}  // namespace
}  // namespace convolt::test
