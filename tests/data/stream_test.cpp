// The stream of batches is a function of the set, the seed and the global batch, told by its hash.
#include <algorithm>
#include <set>
#include <tuple>

#include "archives.h"
#include "data/sampler.h"
#include "loader_fixture.h"
#include "packed_fixture.h"

namespace convolt::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// As members of an archive, in an order of its own.
std::vector<Packed> members_of(const fs::path& folder) {
  std::vector<Packed> members;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) members.push_back({fs::relative(entry, folder).string(), read_bytes(entry)});
  std::sort(members.begin(), members.end(), [](const auto& a, const auto& b) { return a.bytes < b.bytes; });
  return members;
}

std::string list_of(const Dataset& folder) {
  std::string list = "path,label\n";
  for (int64_t i = 0; i < folder.size(); ++i)
    list += "\"" + folder.name(i) + "\"," + folder.class_names()[static_cast<size_t>(folder.label(i))] + "\n";
  return list;
}

class Stream : public LoaderTest {
protected:
  static constexpr int kGlobal = 8, kSteps = 7;

  static LoaderOptions wild(int batch) {
    LoaderOptions o = options(batch);
    o.augment.geometry = AugmentOptions::Geometry::random_resized_crop;
    o.augment.rotate = 20;
    o.augment.erase = 0.3F;
    o.decode.max_side = 200;
    return o;
  }
  uint64_t hash(const Dataset& set, const LoaderOptions& o, int count) const {
    return hash_of(take(*Loader::create(context(), set, o), o.batch, count));
  }

  // The global batches of updates first .. end - 1, put together from those of all ranks.
  std::vector<std::vector<Row>> together(const Dataset& set, LoaderOptions o, int ranks, int group, int first,
                                         int end) const {
    o.ranks = ranks;
    o.group = group;
    o.batch = kGlobal / ranks / group;
    o.first_step = first * group;
    std::vector<std::vector<Row>> updates(static_cast<size_t>(end - first), std::vector<Row>(kGlobal));
    for (o.rank = 0; o.rank < ranks; ++o.rank) {
      const auto loader = Loader::create(context(), set, o);
      Batch batch;
      for (int i = 0; i < (end - first) * group; ++i) {
        EXPECT_TRUE(loader->next(batch));
        EXPECT_EQ(batch.first_row, o.rank * o.batch * group);
        EXPECT_EQ(batch.step, first * group + i);
        const auto rows = rows_of(batch, o.batch);
        std::copy(rows.begin(), rows.end(),
                  updates[static_cast<size_t>(i / group)].begin() + batch.first_row + i % group * o.batch);
        loader->release(batch);
      }
    }
    return updates;
  }
};

// An epoch and a half, with broken pictures and such as are turned by Exif.
TEST_P(Stream, IsTheSameForAnyThreadsSlotsAndFormOfTheSet) {
  const PictureFolder pictures(true);
  const auto folder = pictures.open();
  const auto members = members_of(pictures.path());
  const TemporaryFolder out;
  pack_dataset(pictures.options());
  PackOptions shards = pictures.options("shards.cvt");
  shards.shards = 3;
  pack_dataset(shards);
  write_zip(out.path() / "set.zip", members);
  const std::pair<const char*, std::unique_ptr<Dataset>> forms[] = {
      {"folder", pictures.open()},
      {"tar", open_at(out.write("set.tar", make_tar(members)))},
      {"tar.gz", open_at(out.write("set.tar.gz", make_tar(members, "gnutar", "gzip")))},
      {"zip", open_at(out.path() / "set.zip")},
      {"packed", pictures.open_set()},
      {"shards", pictures.open_set(Split::train, "shards-00000-of-00003.cvt")},
      {"list", open_at(out.write("list.csv", bytes_of(list_of(*folder))))}};
  LoaderOptions o = wild(4);
  ASSERT_EQ(Loader::create(context(), *folder, o)->steps_per_epoch(), 4);
  const uint64_t expected = hash(*folder, o, 6);
  for (const auto& [form, set] : forms)
    for (const int threads : {1, 2, 7, 16})
      for (const int slots : {2, 3, 8}) {
        o.threads = threads;
        o.slots = slots;
        EXPECT_EQ(hash(*set, o, 6), expected) << form << ", " << threads << " threads, " << slots << " slots";
      }
  o.seed = 43;
  EXPECT_NE(hash(*folder, o, 6), expected);
}

// Killed or not: a loader that begins at a step knows nothing of the steps before.
TEST_P(Stream, GoesOnFromAnyStepWhateverThreadsAndSampler) {
  MemoryDataset set(40);
  set.spoil(3);
  set.cut(17);
  for (const Sampler sampler : {Sampler::shuffle, Sampler::balanced, Sampler::weighted})
    for (const int repeats : {1, 3}) {
      LoaderOptions o = wild(8);
      o.sampler = sampler;
      o.repeats = repeats;
      const auto whole = take(*Loader::create(context(), set, o), 8, kSteps);
      for (int first = 0; first < kSteps; ++first) {
        o.first_step = first;
        o.threads = 1 + first % 3 * 5;
        o.slots = 2 + first % 4;
        EXPECT_EQ(hash(set, o, kSteps - first), hash_of({whole.begin() + first, whole.end()})) << first;
      }
    }
}

TEST_P(Stream, IsTheSameForAnyNumberOfRanksAlsoWhenItChanges) {
  MemoryDataset set(43);
  set.spoil(3);
  for (const Sampler sampler : {Sampler::shuffle, Sampler::balanced, Sampler::weighted})
    for (const int repeats : {1, 3}) {
      LoaderOptions o = wild(kGlobal);
      o.sampler = sampler;
      o.repeats = repeats;
      const auto whole = take(*Loader::create(context(), set, o), kGlobal, kSteps);
      const uint64_t expected = hash_of(whole);
      for (const int ranks : {1, 2, 4})
        for (const int group : {1, 2})
          EXPECT_EQ(hash_of(together(set, o, ranks, group, 0, kSteps)), expected) << ranks << ", group " << group;
      auto changing = together(set, o, 2, 2, 0, 3);
      for (const auto& [ranks, first, end] : {std::tuple{4, 3, 6}, std::tuple{1, 6, kSteps}})
        for (auto& update : together(set, o, ranks, 1, first, end)) changing.push_back(std::move(update));
      EXPECT_EQ(hash_of(changing), expected);
    }
}

TEST_P(Stream, EvaluationOnRanksCountsEachSampleOnce) {
  MemoryDataset set(21);
  set.spoil(4);
  for (const int ranks : {1, 2, 4}) {
    LoaderOptions o = options(kGlobal / ranks);
    o.training = false;
    o.group = 3;  // of training alone
    o.ranks = ranks;
    std::vector<int> counted(21);
    for (o.rank = 0; o.rank < ranks; ++o.rank) {
      const auto batches = take(*Loader::create(context(), set, o), o.batch, 100);
      EXPECT_EQ(batches.size(), 3U) << "the same for all";
      for (const auto& batch : batches)
        for (const Row& row : batch) {
          if (row.sample < 0)
            EXPECT_EQ(row.weight, 0);
          else
            counted[static_cast<size_t>(row.sample)] += row.weight > 0 || row.skipped != 0 ? 1 : 0;
        }
    }
    EXPECT_THAT(counted, testing::Each(1)) << ranks;
  }
}

// The copies lie side by side, look different, and together with the other samples fill an epoch of the same length.
TEST_P(Stream, RepeatsShowEachSampleSeveralTimesAnew) {
  const MemoryDataset set(24);
  LoaderOptions o = wild(24);
  o.repeats = 3;
  const auto loader = Loader::create(context(), set, o);
  EXPECT_EQ(loader->steps_per_epoch(), 1);
  const auto epochs = take(*loader, 24, 2);
  for (uint32_t epoch = 0; epoch < 2; ++epoch) {
    std::set<Bytes> looks;
    for (size_t r = 0; r < 24; ++r) {
      const Row& row = epochs[epoch][r];
      EXPECT_EQ(row.sample, Permutation(24, o.seed, epoch)(static_cast<int64_t>(r / 3)));
      looks.insert(content_of(row.record));
    }
    EXPECT_EQ(looks.size(), 24U);
  }
}

// One class is a single large picture: it fills half of each batch.
TEST_P(Stream, ASlotHasRoomForWhatASamplerShowsOftenest) {
  class Lopsided final : public Dataset {
  public:
    int64_t size() const override { return 80; }
    RawSample read(int64_t i) const override {
      return {numbered_ppm(i == 7 ? 60 : 2, i == 7 ? 50 : 2, static_cast<int>(i)), 0, 0, 0, label(i)};
    }
    int32_t label(int64_t i) const override { return i == 7 ? 1 : 0; }
    float weight(int64_t i) const override { return i == 7 ? 1000 : 1; }
  };
  const Lopsided set;
  for (const Sampler sampler : {Sampler::balanced, Sampler::weighted}) {
    LoaderOptions o = options(80);
    o.augment.geometry = AugmentOptions::Geometry::none;  // all of each picture
    o.augment.height = 50;
    o.augment.width = 60;
    o.sampler = sampler;
    EXPECT_EQ(take(*Loader::create(context(), set, o), 80, 2).size(), 2U);
  }
  LoaderOptions o = options(80);
  o.repeats = 40;
  EXPECT_EQ(take(*Loader::create(context(), set, o), 80, 6).size(), 6U);
}

TEST_P(Stream, RanksAndRepeatsThatMakeNoSense) {
  const MemoryDataset set(20);
  LoaderOptions o = options(4);
  const auto refusal = [&] { return message_of<UsageError>([&] { Loader::create(context(), set, o); }); };
  o.ranks = 0;
  EXPECT_THAT(refusal(), HasSubstr("number of ranks is 0: expected at least 1"));
  o.ranks = 2;
  o.rank = 2;
  EXPECT_THAT(refusal(), HasSubstr("rank is 2: expected 0 to 1"));
  o.rank = 0;
  o.repeats = 21;
  EXPECT_THAT(refusal(), HasSubstr("repeats (--repeats) is 21: expected 1 to the 20 samples of the data set"));
  o.repeats = 1;
  o.ranks = 6;
  EXPECT_THAT(message_of<DataError>([&] { Loader::create(context(), set, o); }),
              HasSubstr("fewer than one batch of 24"));
}

INSTANTIATE_TEST_SUITE_P(Devices, Stream, testing::Values(Device::cpu(), Device::cuda()), device_name);

}  // namespace
}  // namespace convolt::test
