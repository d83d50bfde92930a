// Writing packed sets: the same bytes whatever happens on the way.
#include <gmock/gmock.h>

#include <algorithm>
#include <fstream>

#include "archives.h"
#include "convolt/error.h"
#include "data/decode.h"
#include "data/packed_format.h"
#include "data/packed_writer.h"
#include "packed_fixture.h"

namespace convolt::test {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<PackOptions> every_kind(const PictureFolder& pictures) {
  std::vector<PackOptions> kinds(5, pictures.options());
  kinds[1].as = PackAs::pixels;
  kinds[2].as = PackAs::jpeg;
  kinds[3].max_side = 40;
  kinds[4].max_side = 40;
  kinds[4].as = PackAs::pixels;
  return kinds;
}

TEST(Pack, SameBytesForAnyNumberOfThreads) {
  const PictureFolder pictures(true);
  for (PackOptions o : every_kind(pictures)) {
    o.overwrite = true;
    o.threads = 1;
    pack_dataset(o);
    const Bytes one = read_bytes(o.output);
    o.threads = 4;
    pack_dataset(o);
    EXPECT_EQ(read_bytes(o.output), one);
  }
}

struct Killed {};

// Ends as a killed process does, but that the descriptors are closed.
void pack_until(PackOptions o, int64_t pictures) {
  o.on_progress = [&](int64_t done, int64_t) {
    if (done == pictures) throw Killed();
  };
  EXPECT_THROW(pack_dataset(o), Killed) << pictures;
}

TEST(Pack, GoesOnToTheSameBytesFromAnyPicture) {
  const PictureFolder pictures(true);
  PackOptions o = pictures.options();
  o.as = PackAs::pixels;  // so that two are left out
  o.threads = 3;
  const size_t left_out = pack_dataset(o).left_out.size();
  EXPECT_EQ(left_out, 2U);
  const Bytes whole = read_bytes(o.output);
  for (int64_t n = 1; n <= 23; ++n) {
    fs::remove(o.output);
    pack_until(o, n);
    EXPECT_FALSE(fs::exists(o.output));
    int64_t first = 0;
    PackOptions again = o;
    again.on_progress = [&](int64_t done, int64_t all) {
      if (first == 0) first = done;
      EXPECT_EQ(all, 23);
    };
    EXPECT_EQ(pack_dataset(again).left_out.size(), 2U);
    EXPECT_EQ(first, n == 23 ? 0 : n + 1) << "what was done is not done again";
    EXPECT_EQ(read_bytes(o.output), whole) << n;
    EXPECT_FALSE(fs::exists(o.output + ".partial-journal"));
  }
}

// What a power cut leaves: either file may have less than the other says, and rubbish at its end.
TEST(Pack, GoesOnFromPartialFilesThatDoNotAgree) {
  const PictureFolder pictures;
  const PackOptions o = pictures.options();
  pack_dataset(o);
  const Bytes whole = read_bytes(o.output);
  fs::remove(o.output);
  pack_until(o, 12);
  const std::string partial = o.output + ".partial", journal = partial + "-journal";
  const Bytes samples = read_bytes(partial), notes = read_bytes(journal);
  const auto begin_of = [](const Bytes& of, size_t percent) {
    return Bytes(of.begin(), of.begin() + static_cast<std::ptrdiff_t>(of.size() * percent / 100));
  };
  const auto put = [](const std::string& path, const Bytes& bytes) {
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  };
  Bytes flipped = samples;
  flipped[flipped.size() / 2] ^= 1U;
  for (const auto& [a, b] : std::vector<std::pair<Bytes, Bytes>>{{begin_of(samples, 50), notes},
                                                                 {samples, begin_of(notes, 50)},
                                                                 {samples + Bytes(300, 7), notes + Bytes(100, 9)},
                                                                 {flipped, notes},
                                                                 {{}, notes},
                                                                 {samples, {}},
                                                                 {samples, Bytes(5, 1)}}) {
    fs::remove(o.output);
    put(partial, a);
    put(journal, b);
    pack_dataset(o);
    EXPECT_EQ(read_bytes(o.output), whole);
  }
}

TEST(Pack, GoesOnWithTheShardsThatAreMissing) {
  const PictureFolder pictures;
  PackOptions o = pictures.options();
  o.shards = 3;
  const auto shards = [&] {
    std::vector<Bytes> all;
    for (uint32_t k = 0; k < 3; ++k) all.push_back(read_bytes(shard_path(o.output, k, 3)));
    return all;
  };
  const PackResult result = pack_dataset(o);
  const auto whole = shards();
  for (uint32_t k = 0; k < 3; ++k) fs::remove(shard_path(o.output, k, 3));
  pack_until(o, 11);
  EXPECT_TRUE(fs::exists(shard_path(o.output, 0, 3)));
  EXPECT_FALSE(fs::exists(shard_path(o.output, 1, 3)));
  const PackResult again = pack_dataset(o);
  EXPECT_EQ(shards(), whole);
  EXPECT_EQ(again.train, result.train);
  EXPECT_EQ(again.bytes, result.bytes);
}

TEST(Pack, NothingIsOverwrittenUnasked) {
  const PictureFolder pictures;
  PackOptions o = pictures.options();
  pack_dataset(o);
  const Bytes first = read_bytes(o.output);
  EXPECT_THAT(message_of<UsageError>([&] { pack_dataset(o); }), HasSubstr("--overwrite"));
  o.as = PackAs::jpeg;
  EXPECT_THAT(message_of<UsageError>([&] { pack_dataset(o); }), HasSubstr("set.cvt: is there already"));
  EXPECT_EQ(read_bytes(o.output), first);
  o.overwrite = true;
  pack_until(o, 9);
  EXPECT_EQ(read_bytes(o.output), first) << "until the new one is whole";
  PackOptions other = o;
  other.overwrite = false;
  other.as = PackAs::pixels;
  fs::remove(o.output);
  EXPECT_THAT(message_of<UsageError>([&] { pack_dataset(other); }),
              HasSubstr(".partial: was begun with other options"));
  other.overwrite = true;
  EXPECT_EQ(pack_dataset(other).train, 16);
}

// What is there was made of pictures that may have changed since.
TEST(Pack, OverwritingTakesOverNothing) {
  const TemporaryFolder folder;
  const auto write = [&](int number) {
    for (const char* name : {"data/a/0.ppm", "data/a/1.ppm", "data/b/2.ppm", "data/b/3.ppm"})
      folder.write(name, numbered_ppm(4, 3, number));
  };
  const auto file = [&](const std::string& name) { return (folder.path() / name).string(); };
  PackOptions o;
  o.data_path = file("data");
  o.output = file("set.cvt");
  write(1);
  pack_until(o, 3);
  write(2);
  o.overwrite = true;
  pack_dataset(o);
  o.output = file("shards.cvt");
  o.overwrite = false;
  o.shards = 2;
  write(1);
  pack_until(o, 3);
  ASSERT_TRUE(fs::exists(file("shards-00000-of-00002.cvt")));
  write(2);
  o.overwrite = true;
  pack_dataset(o);
  for (const char* name : {"set.cvt", "shards-00000-of-00002.cvt"}) {
    const auto set = open_at(file(name));
    ASSERT_EQ(set->size(), 4);
    for (int64_t i = 0; i < 4; ++i)
      EXPECT_TRUE(std::ranges::equal(set->read(i).content(), numbered_ppm(4, 3, 2))) << name << " " << i;
  }
}

TEST(Pack, LargerPicturesAreShrunkAndNoOthersTouched) {
  const PictureFolder pictures;
  PackOptions o = pictures.options();
  o.max_side = 40;
  pack_dataset(o);
  const auto packed = pictures.open_set(), folder = pictures.open();
  int larger = 0;
  for (int64_t i = 0; i < folder->size(); ++i) {
    const RawSample sample = packed->read(i), source = folder->read(i);
    const PictureHeader was = read_picture_header(source.bytes), is = read_picture_header(sample.content());
    const int side = std::max(was.height, was.width);
    if (side <= 40) {
      EXPECT_TRUE(std::ranges::equal(sample.content(), source.bytes));
      continue;
    }
    ++larger;
    EXPECT_EQ(is.format, PictureFormat::jpeg);
    EXPECT_EQ(std::max(is.height, is.width), 40);
    EXPECT_NEAR(is.width * was.height, is.height * was.width, side) << "the same shape";
    EXPECT_EQ(packed->extent(i)->height, is.height);
    EXPECT_EQ(packed->extent(i)->width, is.width);
  }
  EXPECT_GT(larger, 5);
}

TEST(Pack, JpegLeavesJpegsAlone) {
  const PictureFolder pictures;
  PackOptions o = pictures.options();
  o.as = PackAs::jpeg;
  pack_dataset(o);
  const auto packed = pictures.open_set(), folder = pictures.open();
  for (int64_t i = 0; i < folder->size(); ++i) {
    const RawSample sample = packed->read(i), source = folder->read(i);
    EXPECT_EQ(read_picture_header(sample.content()).format, PictureFormat::jpeg);
    const bool was = read_picture_header(source.bytes).format == PictureFormat::jpeg;
    EXPECT_EQ(std::ranges::equal(sample.content(), source.bytes), was);
  }
}

TEST(Pack, BrokenPicturesAreLeftOutOrAnError) {
  const PictureFolder pictures(true);
  PackOptions o = pictures.options();
  o.as = PackAs::pixels;
  o.fail_on_bad = true;
  EXPECT_THAT(message_of<DataError>([&] { pack_dataset(o); }), HasSubstr("train/ape/cut.jpg: "));
  o.fail_on_bad = false;
  const PackResult result = pack_dataset(o);
  EXPECT_EQ(result.train, 16);
  ASSERT_EQ(result.left_out.size(), 2U);
  EXPECT_THAT(result.left_out[0].name, HasSubstr("train/ape/cut.jpg"));
  EXPECT_THAT(result.left_out[1].name, HasSubstr("train/bee/text.jpg"));
  EXPECT_FALSE(result.left_out[1].reason.empty());
}

TEST(Pack, SplitsHaveTheSameClasses) {
  const TemporaryFolder folder;
  const auto shard = [&](const std::string& name, int classes) {
    std::vector<Packed> members;
    for (int c = 0; c < classes; ++c) {
      members.push_back({std::to_string(c) + ".ppm", numbered_ppm(1, 1, c)});
      members.push_back({std::to_string(c) + ".cls", bytes_of(std::to_string(c))});
    }
    folder.write("shards/" + name, make_tar(members));
  };
  PackOptions o;
  o.data_path = (folder.path() / "shards").string();
  o.output = (folder.path() / "set.cvt").string();
  shard("train.tar", 2);
  shard("val.tar", 3);
  EXPECT_THAT(message_of<DataError>([&] { pack_dataset(o); }),
              HasSubstr("shards: the validation set has 3 classes that are not the 2 of the training set"));
  shard("val.tar", 1);
  EXPECT_EQ(pack_dataset(o).validation, 1);
}

TEST(Pack, ShardsThatDoNotBelongTogetherAreRefused) {
  const PictureFolder pictures;
  PackOptions o = pictures.options();
  o.shards = 2;
  pack_dataset(o);
  PackOptions other = pictures.options("other.cvt");
  other.shards = 2;
  other.max_side = 40;
  pack_dataset(other);
  const std::string first = "set-00000-of-00002.cvt", second = "set-00001-of-00002.cvt";
  const auto open_first = [&] { pictures.open_set(Split::train, first); };
  EXPECT_THAT(message_of<DataError>([&] { pictures.open_set(Split::train, ""); }), HasSubstr("holds 2 packed sets"));
  fs::rename(pictures.at(second), pictures.at("kept"));
  EXPECT_THAT(message_of<DataError>(open_first), HasSubstr(second + ": cannot be opened"));
  fs::copy(pictures.at("other-00001-of-00002.cvt"), pictures.at(second));
  EXPECT_THAT(message_of<DataError>(open_first), HasSubstr("of another set"));
  fs::rename(pictures.at("kept"), pictures.at("x.cvt"));
  EXPECT_THAT(message_of<DataError>([&] { pictures.open_set(Split::train, "x.cvt"); }),
              HasSubstr("is shard 1 of 2, expected a name that ends in -00001-of-00002.cvt"));
}

std::vector<std::pair<std::string, Bytes>> tree(const std::string& root) {
  std::vector<std::pair<std::string, Bytes>> files;
  for (const auto& entry : fs::recursive_directory_iterator(root))
    if (entry.is_regular_file())
      files.emplace_back(entry.path().lexically_relative(root).string(), read_bytes(entry.path()));
  std::sort(files.begin(), files.end());
  return files;
}

TEST(Unpack, GivesTheFolderBack) {
  const PictureFolder pictures(true);
  PackOptions o = pictures.options();
  o.shards = 2;
  pack_dataset(o);
  EXPECT_EQ(unpack_dataset({pictures.at("set-00000-of-00002.cvt"), pictures.at("folder")}).pictures, 23);
  EXPECT_EQ(tree(pictures.at("folder")), tree(pictures.path()));
  EXPECT_THAT(message_of<UsageError>([&] {
                unpack_dataset({o.output, pictures.at("folder")});
              }),
              HasSubstr("is not an empty folder"));
  // A set packed from a set is that set, but for where it says it comes from.
  PackOptions again = pictures.options("again.cvt");
  again.data_path = pictures.at("set-00000-of-00002.cvt");
  pack_dataset(again);
  unpack_dataset({again.output, pictures.at("again")});
  EXPECT_EQ(tree(pictures.at("again")), tree(pictures.path()));
}

TEST(Unpack, GivesBackWhatAnyListNames) {
  const TemporaryFolder folder;
  const std::string elsewhere = folder.write("elsewhere/3.ppm", numbered_ppm(1, 1, 3)).string();
  folder.write("lists/cat/1.ppm", numbered_ppm(1, 1, 1));
  folder.write("1.ppm", numbered_ppm(1, 1, 2));
  PackOptions o;
  o.data_path = folder
                    .write("lists/list.csv", bytes_of("path,label,split\ncat/1.ppm,cat,\n../1.ppm,cat,\n" + elsewhere +
                                                      ",cat,\n./cat//1.ppm,dog,\n" + elsewhere + ",cat,val\n"))
                    .string();
  o.output = (folder.path() / "set.cvt").string();
  pack_dataset(o);
  const std::string out = (folder.path() / "out").string(), below = elsewhere.substr(1);
  EXPECT_EQ(unpack_dataset({o.output, out}).pictures, 5);
  const std::vector<std::pair<std::string, Bytes>> expected{{"train/cat/1-2.ppm", numbered_ppm(1, 1, 2)},
                                                            {"train/cat/1.ppm", numbered_ppm(1, 1, 1)},
                                                            {"train/cat/" + below, numbered_ppm(1, 1, 3)},
                                                            {"train/dog/cat/1.ppm", numbered_ppm(1, 1, 1)},
                                                            {"val/cat/" + below, numbered_ppm(1, 1, 3)}};
  EXPECT_EQ(tree(out), expected);
}

TEST(Unpack, WritesPixelsAsPng) {
  const PictureFolder pictures;
  PackOptions o = pictures.options();
  o.as = PackAs::pixels;
  pack_dataset(o);
  unpack_dataset({o.output, pictures.at("folder")});
  const auto packed = pictures.open_set(), png = open_dataset({pictures.at("folder")});
  ASSERT_EQ(png->size(), packed->size());
  for (int64_t i = 0; i < png->size(); ++i) {
    EXPECT_TRUE(png->name(i).ends_with(".png"));
    const RawSample pixels = packed->read(i);
    Bytes decoded(1 << 16);
    decoded.resize(static_cast<size_t>(decode(png->read(i), {}, decoded, "png").bytes()));
    EXPECT_TRUE(std::ranges::equal(decoded, pixels.content()));
  }
}

// One bit of a file that was rot: the others can be had all the same.
TEST(Unpack, ADamagedSampleIsLeftOutOrLeavesNoFolder) {
  const PictureFolder pictures;
  const PackOptions o = pictures.options();
  const PackResult packed = pack_dataset(o);
  Bytes set = read_bytes(o.output);
  const Bytes head{0xFF, 0xD8, 0xFF};
  const auto jpeg = std::search(set.begin(), set.end(), head.begin(), head.end());
  ASSERT_NE(jpeg, set.end());
  jpeg[20] ^= 1;
  std::ofstream(pictures.at("damaged.cvt"), std::ios::binary)
      .write(reinterpret_cast<const char*>(set.data()), static_cast<std::streamsize>(set.size()));
  UnpackOptions unpack{pictures.at("damaged.cvt"), pictures.at("out")};
  EXPECT_THAT(message_of<DataError>([&] { unpack_dataset(unpack); }), HasSubstr("checksum"));
  EXPECT_FALSE(fs::exists(unpack.output));
  unpack.skip_bad = true;
  const UnpackResult result = unpack_dataset(unpack);
  EXPECT_EQ(result.pictures, packed.train + packed.validation - 1);
  ASSERT_EQ(result.left_out.size(), 1U);
  EXPECT_THAT(result.left_out[0].reason, HasSubstr("checksum"));
}

// As long as names may be, and one to which .png is added.
TEST(Unpack, LongNames) {
  const TemporaryFolder folder;
  const std::string set = (folder.path() / "set.cvt").string(), out = (folder.path() / "out").string();
  const std::string longest(255, 'n');
  const std::array<uint8_t, 3> pixel{};
  PackedWriter writer(set, {}, {.classes = {"c"}}, true);
  writer.add({}, numbered_ppm(1, 1, 1), longest);
  writer.add({.height = 1, .width = 1, .kind = PackedKind::pixels, .channels = 3}, pixel, longest.substr(0, 252));
  writer.commit();
  EXPECT_THAT(message_of<DataError>([&] { unpack_dataset({set, out}); }), HasSubstr("its name is too long for a file"));
  const UnpackResult result = unpack_dataset({.input = set, .output = out, .skip_bad = true});
  EXPECT_EQ(result.pictures, 1);
  EXPECT_EQ(read_bytes(folder.path() / "out/train/c" / longest), numbered_ppm(1, 1, 1));
}

TEST(Unpack, InterruptedItLeavesNothing) {
  const PictureFolder pictures;
  pack_dataset(pictures.options());
  const std::atomic<int> interrupt{2};
  const UnpackOptions o{.input = pictures.at("set.cvt"), .output = pictures.at("out/set"), .interrupt = &interrupt};
  EXPECT_THAT(message_of<Error>([&] { unpack_dataset(o); }), HasSubstr("out/set: interrupted"));
  EXPECT_TRUE(fs::is_empty(pictures.at("out")));
}

TEST(Unpack, NoNameLeadsOutOfTheFolder) {
  const TemporaryFolder folder;
  const std::string set = (folder.path() / "set.cvt").string();
  const Bytes file = numbered_ppm(1, 1, 1);
  const auto unpack = [&](const std::string& name, const std::string& class_name) {
    PackedWriter writer(set, {}, {.classes = {class_name}}, true);
    writer.add({.height = 1, .width = 1}, file, name);
    writer.commit();
    unpack_dataset({set, (folder.path() / "a/b/out").string()});
  };
  for (const std::string name : {"..", "../x", "a/../../x", "/etc/x", "", "a//x", ".", "x/"})
    EXPECT_THAT(message_of<DataError>([&] { unpack(name, "c"); }), HasSubstr("leads out of the folder")) << name;
  EXPECT_THAT(message_of<DataError>([&] { unpack(std::string("a\0b", 3), "c"); }), HasSubstr("a name has a zero byte"));
  EXPECT_THAT(message_of<DataError>([&] { unpack("x", ".."); }), HasSubstr("leads out"));
  EXPECT_TRUE(!fs::exists(folder.path() / "a") || fs::is_empty(folder.path() / "a/b"));
  unpack("x..y", "c");
  EXPECT_EQ(read_bytes(folder.path() / "a/b/out/train/c/x..y"), file);
}

}  // namespace
}  // namespace convolt::test
