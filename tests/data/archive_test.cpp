// Archives say the same as the folder that they were made of, and refuse what is no such thing.
#include "data/archive.h"

#include <gmock/gmock.h>

#include <random>
#include <thread>

#include "archives.h"
#include "convolt/dataset.h"
#include "convolt/error.h"
#include "loader_fixture.h"

namespace convolt::test {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

const std::string kLong(150, 'n');  // of a name that ustar cannot hold

// Neither in the order of classes nor of names; one folder and one file too many.
std::vector<Packed> picture_set() {
  std::vector<Packed> set{{"train/", {}}, {"train/.hidden/1.ppm", {9}}, {"README.txt", bytes_of("loose")}};
  int number = 0;
  for (const std::string name :
       {"train/b/2.ppm", "train/b/10.ppm", "train/a/x.ppm", "train/b/deep/er/1.ppm", "train/b-c/1.ppm",
        "train/\xC3\xA9/y", "train/a/x/1.ppm", "train/a/._x.ppm", "train/loose.txt", "val/b/1.ppm", "val/a/1.ppm",
        "val/\xC3\xA9/1.ppm", "val/b-c/1.ppm"})
    set.push_back({name, numbered_ppm(5 + number % 7, 4 + number % 5, number)}), ++number;
  for (const std::string& name : {"train/a/" + kLong, "train/a/" + kLong + "/" + kLong})
    set.push_back({name + ".ppm", numbered_ppm(3, 3, ++number)});
  return set;
}

void write_folder(const TemporaryFolder& folder, const std::vector<Packed>& set) {
  for (const Packed& m : set)
    if (!m.name.ends_with('/')) folder.write("folder/" + m.name, m.bytes);
}

struct Said {
  std::string name;
  int32_t label;
  Bytes bytes, part;
  friend bool operator==(const Said&, const Said&) = default;
};
std::vector<Said> all_of(const Dataset& set, const fs::path& below) {
  std::vector<Said> all;
  for (int64_t i = 0; i < set.size(); ++i) {
    Bytes part(20);
    part.resize(set.read_part(i, 30, part));
    all.push_back({fs::path(set.name(i)).lexically_relative(below).string(), set.label(i), set.read(i).bytes, part});
  }
  return all;
}

void expect_the_folder(const TemporaryFolder& folder, const fs::path& file, const std::string& below = "") {
  for (const Split split : {Split::train, Split::validation}) {
    const auto expected = open_at(folder.path() / "folder", split), found = open_at(file, split);
    EXPECT_EQ(found->class_names(), expected->class_names()) << file;
    EXPECT_TRUE(all_of(*found, file / below) == all_of(*expected, folder.path() / "folder")) << file;
    EXPECT_TRUE(found->reads_parts());
  }
}

std::vector<Packed> renamed(std::vector<Packed> set, const std::string& prefix) {
  for (Packed& m : set) m.name = prefix + m.name;
  return set;
}

TEST(Archive, TarsOfEachKindAreTheFolder) {
  const TemporaryFolder folder;
  const auto set = picture_set();
  write_folder(folder, set);
  for (const char* format : {"pax", "gnutar"}) {
    for (const char* filter : {"none", "gzip", "zstd", "xz", "bzip2"})
      expect_the_folder(folder,
                        folder.write(std::string("set-") + format + "-" + filter, make_tar(set, format, filter)));
    for (const char* prefix : {"./", "/", ".//"})
      expect_the_folder(folder, folder.write("set.tar", make_tar(renamed(set, prefix), format)));
    expect_the_folder(folder, folder.write("set.tar", make_tar(renamed(set, "top/"), format)), "top");
  }
  EXPECT_EQ(open_at(folder.path() / "set.tar")->describe(), "image folder in tar");
}

TEST(Archive, ZipsAreTheFolder) {
  const TemporaryFolder folder;
  auto set = picture_set();
  write_folder(folder, set);
  set.push_back({"__MACOSX/train/c/1.ppm", {1}});
  for (const int method : {ZIP_CM_STORE, ZIP_CM_DEFLATE}) {
    write_zip(folder.path() / "set", set, {.method = method});
    expect_the_folder(folder, folder.path() / "set");
    write_zip(folder.path() / "top.zip", renamed(set, "top/"), {.method = method});
    expect_the_folder(folder, folder.path() / "top.zip", "top");
  }
  EXPECT_EQ(open_at(folder.path() / "top.zip")->describe(), "image folder in zip");
}

TEST(Archive, SplitsInFilesBesideEachOther) {
  const TemporaryFolder folder;
  auto set = picture_set();
  write_folder(folder, set);
  std::vector<Packed> parts[2];
  for (const Packed& m : set)
    for (const std::string prefix : {"train/", "val/"})
      if (m.name.starts_with(prefix) && m.name != prefix)
        parts[prefix == "val/"].push_back({m.name.substr(prefix.size()), m.bytes});
  const auto expect_both = [&](const fs::path& training, const fs::path& validation) {
    for (const Split split : {Split::train, Split::validation}) {
      const auto expected = open_at(folder.path() / "folder", split), found = open_at(training, split);
      ASSERT_NE(found, nullptr);
      const fs::path top = split == Split::train ? "train" : "val";
      EXPECT_TRUE(all_of(*found, split == Split::train ? training : validation) ==
                  all_of(*expected, folder.path() / "folder" / top));
    }
  };
  const auto train = folder.write("a/train.tar", make_tar(parts[0]));
  EXPECT_EQ(open_at(train, Split::validation), nullptr);
  const auto val = folder.write("a/val.tar", make_tar(parts[1]));
  expect_both(train, val);
  EXPECT_EQ(open_at(folder.path() / "a", Split::validation)->size(), 4);
  EXPECT_EQ(open_at(val, Split::validation)->size(), 4);
  write_zip(folder.path() / "a/train-1.zip", parts[0]);
  write_zip(folder.path() / "a/test-1.zip", parts[1]);
  expect_both(folder.path() / "a/train-1.zip", folder.path() / "a/test-1.zip");
  folder.write("b/Train-1.tar", make_tar(parts[0]));
  folder.write("b/Valid-1.tar", make_tar(parts[1]));
  EXPECT_EQ(open_at(folder.path() / "b", Split::validation)->size(), 4);
  const auto inside = folder.write("c.tar", make_tar(renamed(parts[0], "Train/")));
  EXPECT_THAT(open_at(inside)->class_names(), ElementsAre("a", "b", "b-c", "\xC3\xA9"));
}

TEST(Archive, TheLastOfMembersWithOneNameCounts) {
  const TemporaryFolder folder;
  const auto file = folder.write(
      "set.tar", make_tar({{"a/1", {1}}, {"b/1", {2}}, {"./a/1", {3, 4}}, {"../c/1", {5}}, {"b/../d/1", {6}}}));
  const auto set = open_at(file);
  EXPECT_THAT(set->class_names(), ElementsAre("a", "b"));
  ASSERT_EQ(set->size(), 2);
  EXPECT_EQ(set->read(0).bytes, (Bytes{3, 4}));
}

TEST(Archive, HardLinksAreTheirFileAndOtherLinksAreRefused) {
  const TemporaryFolder folder;
  const auto set = open_at(folder.write(
      "set.tar",
      make_tar({{"a/1", {1, 2}}, {.name = "b/2", .hardlink = "a/1"}, {.name = "x", .symlink = "a/1"}}, "ustar")));
  ASSERT_EQ(set->size(), 2);
  EXPECT_EQ(set->read(1).bytes, (Bytes{1, 2}));
  const auto tar = folder.write("link.tar", make_tar({{"a/1", {1}}, {.name = "b/2", .symlink = "../a/1"}}));
  EXPECT_THAT(message_of<FormatError>([&] { open_at(tar); }), HasSubstr("link.tar/b/2: is a link"));
  write_zip(folder.path() / "link.zip", {{"a/1", {1}}, {.name = "b/2", .bytes = {1}, .symlink = "../a/1"}});
  EXPECT_THAT(message_of<FormatError>([&] { open_at(folder.path() / "link.zip"); }), HasSubstr("b/2: is a link"));
}

// A header of the old GNU format whose map has a hole of one block before the data.
TEST(Archive, SparseMembersAreRefused) {
  const TemporaryFolder folder;
  Bytes tar = make_tar({{"a/1", Bytes(512, 7)}, {"b/1", {1}}}, "gnutar");
  const auto put = [&](size_t at, const std::string& text) {
    std::copy(text.begin(), text.end(), tar.begin() + static_cast<std::ptrdiff_t>(at));
  };
  put(156, "S");
  put(386, "00000001000");  // offset and length of the first piece
  put(398, "00000001000");
  put(483, "00000002000");  // of the file with its hole
  put(148, "        ");
  unsigned sum = 0;
  for (size_t i = 0; i < 512; ++i) sum += tar[i];
  char text[8];
  std::snprintf(text, sizeof text, "%06o", sum);
  put(148, std::string(text, 7));
  const auto file = folder.write("set.tar", tar);
  EXPECT_THAT(message_of<FormatError>([&] { open_at(file); }), HasSubstr("a/1: is stored as a sparse file"));
}

std::vector<Packed> shard(int first, int count) {
  std::vector<Packed> members;
  for (int i = first; i < first + count; ++i) {
    const std::string key = "00" + std::to_string(i);
    members.push_back({key + (i % 2 == 0 ? ".JPG" : ".ppm"), numbered_ppm(4, 3, i)});
    if (i % 3 == 0)
      members.push_back({key + ".json", bytes_of("{\"caption\": \"x\", \"cls\": " + std::to_string(i % 4) + "}")});
    else
      members.insert(members.end() - i % 2, {key + ".cls", bytes_of(std::to_string(i % 4) + "\n")});
    members.push_back({key + ".seg.png", {1}});
  }
  return members;
}

TEST(Archive, WebDatasetInShards) {
  const TemporaryFolder folder;
  folder.write("train-000001.tar", make_tar(shard(5, 3), "ustar"));
  folder.write("train-000000.tar.gz", make_tar(shard(0, 5), "gnutar", "gzip"));
  folder.write("val-000000.tar", make_tar(shard(0, 3)));
  folder.write("notes.txt", {1});
  const auto train = open_at(folder.path()), val = open_at(folder.path(), Split::validation);
  EXPECT_EQ(train->describe(), "WebDataset in tar");
  EXPECT_THAT(train->class_names(), ElementsAre("0", "1", "2", "3"));
  EXPECT_EQ(val->class_names(), train->class_names());  // though it has three of them
  ASSERT_EQ(train->size(), 8);
  EXPECT_EQ(val->size(), 3);
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(train->label(i), i % 4);
    EXPECT_EQ(train->read(i).bytes, numbered_ppm(4, 3, i));
  }
  EXPECT_EQ(train->name(5), (folder.path() / "train-000001.tar/005.ppm").string());
  EXPECT_EQ(open_at(folder.path() / "train-000001.tar")->size(), 3);
  EXPECT_EQ(open_at(folder.path() / "train-000001.tar", Split::validation), nullptr);
}

TEST(Archive, FilesBesideThePicturesOfAnImageFolderAreNoClasses) {
  const TemporaryFolder folder;
  auto set = picture_set();
  write_folder(folder, set);
  set.push_back({"train/b/2.json", bytes_of("{\"label\": 7}")});
  set.push_back({"val/b/1.json", bytes_of("{\"author\": \"me\"}")});
  const auto file = folder.write("set.tar", make_tar(set));
  EXPECT_EQ(open_at(file)->describe(), "image folder in tar");
  expect_the_folder(folder, file);
}

// Whatever folders a writer of shards has spread its samples over.
TEST(Archive, ClassesBesideThePicturesAreThoseOfAWebDataset) {
  const TemporaryFolder folder;
  const auto file = folder.write("set.tar", make_tar({{"train/00/1.jpg", {1}},
                                                      {"train/00/1.cls", bytes_of("2")},
                                                      {"train/01/2.jpg", {2}},
                                                      {"train/01/2.cls", bytes_of("0")}}));
  const auto set = open_at(file);
  EXPECT_EQ(set->describe(), "WebDataset in tar");
  EXPECT_EQ(set->class_names().size(), 3U);
}

TEST(Archive, WebDatasetNeedsAClassForEachPicture) {
  const TemporaryFolder folder;
  for (const char* text : {"", "x", "-1", "1.5", "1 2", "1000000", "99999999999999999999"}) {
    const auto file = folder.write("set.tar", make_tar({{"1.jpg", {1}}, {"1.cls", bytes_of(text)}}));
    EXPECT_THAT(message_of<FormatError>([&] { open_at(file); }), HasSubstr("set.tar/1.jpg: has no class")) << text;
  }
  for (const char* text : {"[", "{}", "{\"cls\": \"1\"}", "3", "{\"label\": 1e3}"}) {
    const auto file = folder.write("set.tar", make_tar({{"1.jpg", {1}}, {"1.json", bytes_of(text)}}));
    EXPECT_THAT(message_of<FormatError>([&] { open_at(file); }), HasSubstr("has no class")) << text;
  }
  const auto file = folder.write("set.tar", make_tar({{"1.jpg", {1}}, {"1.cls", {'0'}}, {"2.jpg", {1}}}));
  EXPECT_THAT(message_of<FormatError>([&] { open_at(file); }), HasSubstr("set.tar/2.jpg: has no class"));
}

TEST(Archive, WhatIsNoArchiveIsOneSentence) {
  const TemporaryFolder folder;
  const auto text = [&](const fs::path& file) { return message_of<DataError>([&] { open_at(file); }); };
  const Bytes tar = make_tar({{"a/1", Bytes(3000, 1)}, {"b/1", Bytes(3000, 2)}});
  EXPECT_THAT(text(folder.write("x.tar", {1, 2, 3})), HasSubstr("x.tar: cannot be read as a tar archive"));
  EXPECT_THAT(text(folder.write("x.tar", {})), HasSubstr("cannot be read as a tar archive"));
  EXPECT_THAT(text(folder.write("x.tar", Bytes(10240, 0))), HasSubstr("has no class folders"));
  EXPECT_THAT(text(folder.write("x.tar", make_tar({{"readme", {1}}}))), HasSubstr("has no class folders"));
  EXPECT_THAT(text(folder.write("cut", Bytes(tar.begin(), tar.end() - 3000))), HasSubstr("is the download complete?"));
  const Bytes packed = make_tar({{"a/1", Bytes(3000, 1)}, {"b/1", Bytes(3000, 2)}}, "pax", "gzip");
  EXPECT_THAT(text(folder.write("x.tgz", Bytes(packed.begin(), packed.end() - 20))), HasSubstr("is the download"));
  EXPECT_THAT(text(folder.write("x.zip", {'P', 'K', 3, 4})), HasSubstr("cannot be read as a zip archive"));
  write_zip(folder.path() / "x.zip", {{"a/1", {1}}, {"b/", {}}});
  EXPECT_THAT(text(folder.path() / "x.zip"), HasSubstr("b: the class folder has no pictures"));
  write_zip(folder.path() / "x.zip", {{"a/1", {1, 2, 3}}}, {.password = "secret"});
  EXPECT_THAT(text(folder.path() / "x.zip"), HasSubstr("x.zip/a/1: is encrypted"));
  fs::create_directories(folder.path() / "empty");
  EXPECT_THAT(message_of<DataError>([&] { open_at(folder.path() / "empty", Split::train, "tar"); }),
              HasSubstr("has no .tar files"));
  EXPECT_THAT(message_of<DataError>([&] { open_at(folder.write("x.tar", tar), Split::train, "zip"); }),
              HasSubstr("cannot be read as a zip archive"));
}

TEST(Archive, ATarWithoutItsEndIsCutShort) {
  const TemporaryFolder folder;
  Bytes tar = make_tar({{"a/1", Bytes(3000, 1)}, {"b/", {}}, {"b/1", Bytes(512, 0)}}, "gnutar");
  tar.resize(tar.size() - 512);  // of two blocks of zeros one is enough
  EXPECT_EQ(open_at(folder.write("one.tar", tar))->size(), 2);
  tar.resize(tar.size() - 512);
  EXPECT_THAT(refusal(folder.write("cut.tar", tar)), HasSubstr("ends without the block of zeros"));
  write_gzip(folder.path() / "cut.tgz", tar);
  EXPECT_THAT(refusal(folder.path() / "cut.tgz"), HasSubstr("ends without the block of zeros"));
}

TEST(Archive, DamageOfAMemberIsThatOfItsSample) {
  const TemporaryFolder folder;
  const auto tar = folder.write("set.tar", make_tar({{"a/1", Bytes(3000, 1)}, {"b/1", Bytes(3000, 2)}}, "ustar"));
  const auto in_tar = open_at(tar);
  fs::resize_file(tar, 7000);
  EXPECT_EQ(in_tar->read(0).bytes, Bytes(3000, 1));
  EXPECT_THAT(message_of<DataError>([&] { in_tar->read(1); }), HasSubstr("set.tar/b/1: is cut short"));

  const auto zip = folder.path() / "set.zip";
  write_zip(zip, {{"a/1", Bytes(3000, 1)}, {"b/1", Bytes(3000, 2)}}, {.method = ZIP_CM_STORE});
  std::fstream(zip, std::ios::binary | std::ios::in | std::ios::out).seekp(2000).put('\x7f');
  const auto in_zip = open_at(zip);
  EXPECT_THAT(message_of<DataError>([&] { in_zip->read(0); }), HasSubstr("set.zip/a/1: cannot be read (CRC error)"));
  EXPECT_EQ(in_zip->read(1).bytes, Bytes(3000, 2));
}

TEST(Archive, UnpackingKeepsToItsLimit) {
  const TemporaryFolder folder;
  const auto file = folder.write("set.tar.zst", make_tar({{"a/1", Bytes(1 << 20, 1)}}, "ustar", "zstd"));
  const int64_t bytes = unpack_tar(file, 1 << 24).bytes();
  EXPECT_GE(bytes, (1 << 20) + 512);
  EXPECT_EQ(unpack_tar(file, bytes).bytes(), bytes);
  EXPECT_THAT(message_of<DataError>([&] { unpack_tar(file, bytes - 1); }),
              HasSubstr("set.tar.zst: unpacks to more than the " + std::to_string(bytes - 1) + " bytes"));
}

TEST(Archive, ATmpdirThatIsNoFolderIsNamed) {
  const TemporaryFolder folder;
  const auto file = folder.write("set.tar.gz", make_tar({{"a/1", {1}}}, "ustar", "gzip"));
  const char* before = std::getenv("TMPDIR");
  const std::string old = before == nullptr ? "" : before;
  for (const std::string& value : {std::string(), file.string()}) {
    setenv("TMPDIR", value.c_str(), 1);
    EXPECT_THAT(refusal(file), testing::StartsWith("TMPDIR names no folder that can be used ("));
  }
  before == nullptr ? unsetenv("TMPDIR") : setenv("TMPDIR", old.c_str(), 1);
}

TEST(Archive, AnyNumberOfThreadsReads) {
  const TemporaryFolder folder;
  std::vector<Packed> set;
  for (int i = 0; i < 100; ++i)
    set.push_back({(i % 2 == 0 ? "a/" : "b/") + std::to_string(i), numbered_ppm(40, 30 + i % 9, i)});
  write_zip(folder.path() / "set.zip", set);
  for (const auto& file : {folder.write("set.tar", make_tar(set)), folder.path() / "set.zip"}) {
    const auto data = open_at(file);
    const auto expected = all_of(*data, file);
    std::vector<std::vector<Said>> found(8);
    {
      std::vector<std::jthread> threads;
      for (auto& mine : found) threads.emplace_back([&] { mine = all_of(*data, file); });
    }
    for (const auto& mine : found) EXPECT_TRUE(mine == expected);
  }
}

class ArchiveLoaderTest : public LoaderTest {};

TEST_P(ArchiveLoaderTest, BatchesAreThoseOfTheFolder) {
  const TemporaryFolder folder;
  std::vector<Packed> set;
  std::mt19937 random(7);
  for (int i = 0; i < 40; ++i)
    set.push_back({"train/" + std::to_string(i % 3) + "/" + std::to_string(i), numbered_ppm(4 + i % 7, 4 + i % 5, i)});
  set[7].bytes = bytes_of("not a picture");
  write_folder(folder, set);
  std::shuffle(set.begin(), set.end(), random);
  write_zip(folder.path() / "set.zip", set);
  const auto hash = [&](const fs::path& path) {
    const auto data = open_at(path);
    return hash_of(take(*Loader::create(context(), *data, options(8, 3)), 8, 12));
  };
  const uint64_t expected = hash(folder.path() / "folder");
  EXPECT_EQ(hash(folder.write("set.tar", make_tar(set))), expected);
  EXPECT_EQ(hash(folder.write("set.tar.gz", make_tar(set, "gnutar", "gzip"))), expected);
  EXPECT_EQ(hash(folder.path() / "set.zip"), expected);
  folder.write("folder/train/0/0", numbered_ppm(4, 4, 99));
  EXPECT_NE(hash(folder.path() / "folder"), expected);
}
INSTANTIATE_TEST_SUITE_P(Devices, ArchiveLoaderTest, testing::Values(Device::cpu(), Device::cuda()), device_name);

}  // namespace
}  // namespace convolt::test
