// What the loader says about mixing rows: a pure function, in every batch that it gives.
#include "augment/mixing.h"

#include "augment/policy.h"
#include "data/loader_setup.h"
#include "data/shown_row.h"
#include "loader_fixture.h"

namespace convolt::test {
namespace {

using Mode = MixOptions::Mode;

class LoaderMixTest : public LoaderTest {
protected:
  static LoaderOptions mixing(Mode mode, int batch = 7) {
    LoaderOptions o = options(batch);
    o.mixing = {.mixup_alpha = 0.4F, .cutmix_alpha = 1, .mode = mode};
    return o;
  }
};

TEST_P(LoaderMixTest, TheSameForAnyThreadsResidentAndAfterAResume) {
  MemoryDataset dataset(30);
  dataset.spoil(8);
  for (const Mode mode : {Mode::batch, Mode::pair, Mode::elem}) {
    LoaderOptions o = mixing(mode);
    o.threads = 1;
    const auto one = take(*Loader::create(context(), dataset, o), 7, 9);
    int mixed = 0;
    for (const auto& batch : one)
      for (const Row& row : batch) mixed += row.mix.part < 1 ? 1 : 0;
    EXPECT_GT(mixed, 40);
    for (const int threads : {2, 7}) {
      o.threads = threads;
      EXPECT_EQ(take(*Loader::create(context(), dataset, o), 7, 9), one) << threads;
    }
    o.resident = true;
    EXPECT_EQ(take(*Loader::create(context(), dataset, o), 7, 9), one) << "resident";
    o.first_step = 5;
    EXPECT_EQ(take(*Loader::create(context(), dataset, o), 7, 4), std::vector(one.begin() + 5, one.end()));
  }
}

// At positions of the epoch: two batches of an epoch differ, and so do epochs. Pictures are what they were without.
TEST_P(LoaderMixTest, IsDrawnAtThePositionsOfTheEpoch) {
  const MemoryDataset dataset(20);
  LoaderOptions o = mixing(Mode::elem, 6);
  o.mixing.off_epoch = 2;
  const auto mixed = take(*Loader::create(context(), dataset, o), 6, 9);
  for (int64_t step = 0; step < 9; ++step)
    for (size_t n = 0; n < 6; ++n) {
      const MixKey key{42, static_cast<uint32_t>(step / 3), step % 3 * 6 + static_cast<int64_t>(n)};
      const RowMix expected = draw_mix(o.mixing, 4, 4, key), found = mixed[static_cast<size_t>(step)][n].mix;
      EXPECT_EQ(std::memcmp(&found, &expected, sizeof found), 0) << step << ", row " << n;
    }
  LoaderOptions plain = o;
  plain.mixing = {};
  auto without = take(*Loader::create(context(), dataset, plain), 6, 9);
  for (size_t step = 0; step < 9; ++step)
    for (size_t n = 0; n < 6; ++n) without[step][n].mix = mixed[step][n].mix;
  EXPECT_EQ(mixed, without);
}

// Who asks is told what is in the batch: the row of a sample, its partner, part and box.
TEST_P(LoaderMixTest, CanBeFoundOutForASample) {
  const MemoryDataset dataset(31);
  const auto options_with = [&](Mode mode, Sampler sampler, int repeats) {
    LoaderOptions o = mixing(mode);
    o.mixing.off_epoch = 2;
    o.sampler = sampler;
    o.repeats = repeats;
    o.sizes = {.least = 2, .start = 0, .end = 1, .step = 1};
    return o;
  };
  int mixed = 0, absent = 0;
  for (const LoaderOptions& o :
       {options_with(Mode::batch, Sampler::shuffle, 1), options_with(Mode::pair, Sampler::balanced, 1),
        options_with(Mode::elem, Sampler::shuffle, 2)}) {
    const auto batches = take(*Loader::create(context(), dataset, o), 7, 12);
    for (uint32_t epoch = 0; epoch < 3; ++epoch)
      for (int64_t sample = 0; sample < dataset.size(); ++sample) {
        const std::optional<ShownRow> found = find_shown_row(dataset, o, epoch, sample);
        const auto shows = [&](const Row& row) { return row.sample == sample; };
        bool expected = false;
        for (int64_t b = 0; b < 4 && !expected; ++b) {
          const std::vector<Row>& batch = batches[static_cast<size_t>(epoch * 4 + b)];
          const auto row = std::ranges::find_if(batch, shows);
          if (row == batch.end()) continue;
          expected = true;
          ASSERT_TRUE(found) << sample;
          EXPECT_EQ(found->batch, b);
          EXPECT_EQ(found->row, row - batch.begin());
          EXPECT_EQ(std::memcmp(&found->mix, &row->mix, sizeof row->mix), 0);
          const bool changes = row->mix.part < 1;
          EXPECT_EQ(found->partner, changes ? batch[static_cast<size_t>(6 - found->row)].sample : -1);
          const AugmentOptions pictures = pictures_of(o, epoch);
          SampleRecord record =
              make_record(pictures, row->record.height, row->record.width, 3, o.seed, epoch, found->drawn_as);
          record.stride = 0;
          EXPECT_EQ(content_of(record), content_of(row->record));
          mixed += changes ? 1 : 0;
        }
        EXPECT_EQ(found.has_value(), expected);
        absent += expected ? 0 : 1;
      }
  }
  EXPECT_GT(mixed, 60);
  EXPECT_GT(absent, 9);  // what the last, incomplete batch would have shown
}

TEST_P(LoaderMixTest, APictureThatCannotBeReadIsMixedWithNobody) {
  MemoryDataset dataset(24);
  for (const int bad : {0, 5, 10}) dataset.spoil(bad);
  for (const Mode mode : {Mode::batch, Mode::pair, Mode::elem}) {
    LoaderOptions o = mixing(mode, 24);
    o.mixing.cutmix_alpha = 0;
    o.bad_samples = BadSamplePolicy::skip;
    const auto loader = Loader::create(context(), dataset, o);
    for (const auto& batch : take(*loader, 24, 2))
      for (size_t n = 0; n < 24; ++n)
        EXPECT_EQ(batch[n].mix.part<1, batch[n].weight> 0 && batch[23 - n].weight > 0) << n;
  }
}

TEST_P(LoaderMixTest, EvaluationAndOtherTrainingsHaveNone) {
  const MemoryDataset dataset(12);
  LoaderOptions o = mixing(Mode::batch, 4);
  o.training = false;
  for (const LoaderOptions& without : {o, options(4)}) {
    const auto loader = Loader::create(context(), dataset, without);
    Batch batch;
    ASSERT_TRUE(loader->next(batch));
    EXPECT_EQ(batch.mixes, nullptr);
    EXPECT_EQ(input_of(batch).mixes, nullptr);
    loader->release(batch);
  }
  o.mixing.prob = 2;
  EXPECT_THROW(Loader::create(context(), dataset, o), UsageError);
}

INSTANTIATE_TEST_SUITE_P(Devices, LoaderMixTest, testing::Values(Device::cpu(), Device::cuda()), device_name);

}  // namespace
}  // namespace convolt::test
