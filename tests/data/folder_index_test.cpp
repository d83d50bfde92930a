// The index of an image folder: what it gives is what a walk without it gives, whatever has happened in between.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <thread>

#include "convolt/error.h"
#include "data/folder_scan.h"
#include "data/loader_setup.h"
#include "data/picture_header.h"
#include "data/sources.h"
#include "support/cache_home.h"
#include "test_files.h"

namespace convolt::test {
namespace {

namespace fs = std::filesystem;

class FolderIndexTest : public testing::Test {
protected:
  FolderIndexTest() {
    for (int i = 0; i < 6; ++i) folder_.write("a/" + std::to_string(i) + ".ppm", numbered_ppm(4 + i, 3, i));
    folder_.write("b/deep/er/x.ppm", numbered_ppm(9, 8, 1));
    folder_.write("b/deep.ppm", numbered_ppm(7, 2, 2));
    folder_.write("b/.hidden/y.ppm", numbered_ppm(1, 1, 2));
    folder_.write("b/broken.jpg", bytes_of("no picture"));
  }

  std::vector<std::string> classes() const { return list_folders(folder_.path()); }
  fs::path index() const { return cache_.folder().path("index/i.idx"); }
  // As long after the last change as nothing is unsettled.
  static int64_t later() {
    return std::chrono::nanoseconds(std::chrono::system_clock::now().time_since_epoch()).count() + 10'000'000'000;
  }
  PictureIndex scan() const {
    fs::create_directories(index().parent_path());
    return scan_folder(folder_.path(), classes(), index(), {.threads = 2}, later());
  }
  ino_t inode() const {
    struct stat status {};
    return stat(index().c_str(), &status) == 0 ? status.st_ino : 0;
  }

  // "class/name height x width" of each file.
  static std::vector<std::string> lines(const PictureIndex& index) {
    std::vector<std::string> all;
    for (const IndexedFile& f : index.files())
      all.push_back(std::string(index.classes()[static_cast<size_t>(f.label)]) + "/" + std::string(index.name(f)) +
                    " " + std::to_string(f.height) + "x" + std::to_string(f.width));
    return all;
  }
  // The same without any index.
  std::vector<std::string> true_lines() const {
    const auto set = open_dataset({.path = folder_.path().string(), .format = "folder", .index = {.use = false}});
    std::vector<std::string> all;
    for (int64_t i = 0; i < set->size(); ++i) {
      EXPECT_FALSE(set->extent(i));
      PictureHeader header;
      header.height = header.width = 0;
      try {
        header = read_picture_header(set->read(i).content());
      } catch (const DataError&) {
      }
      all.push_back(fs::path(set->name(i)).lexically_relative(folder_.path()).string() + " " +
                    std::to_string(header.height) + "x" + std::to_string(header.width));
    }
    return all;
  }
  // That the index is as the folder is, before and after it is read again.
  void expect_true() const {
    EXPECT_EQ(lines(scan()), true_lines());
    const ino_t kept = inode();
    EXPECT_EQ(lines(scan()), true_lines());
    EXPECT_EQ(inode(), kept) << "made again although nothing changed";
    EXPECT_NE(kept, 0U);
  }

  CacheHome cache_;
  TemporaryFolder folder_;
};

TEST_F(FolderIndexTest, GivesWhatAWalkGives) {
  expect_true();
  EXPECT_EQ(lines(scan()).front(), "a/0.ppm 3x4");
  EXPECT_EQ(lines(scan())[7], "b/deep.ppm 2x7");
  EXPECT_EQ(scan().files().size(), 9U);
}

TEST_F(FolderIndexTest, IsUsed) {
  scan();
  PictureIndex changed = PictureIndex::read(index().string());
  std::vector<IndexedFile> files(changed.files().begin(), changed.files().end());
  files[0].height = 77;
  changed.with(files).write(index().string());
  EXPECT_EQ(scan().files()[0].height, 77) << "its header was read again";
  folder_.write("a/new.ppm", numbered_ppm(2, 2, 2));
  EXPECT_EQ(scan().files()[0].height, 77) << "its header was read again for another file's sake";
}

TEST_F(FolderIndexTest, SeesWhatIsAddedRemovedAndOverwritten) {
  scan();
  folder_.write("b/deep/er/new.ppm", numbered_ppm(5, 6, 3));
  expect_true();
  fs::remove(folder_.path() / "a/3.ppm");
  expect_true();
  folder_.write("a/0.ppm", numbered_ppm(40, 30, 3));  // in place
  expect_true();
  folder_.write("a/1.ppm", numbered_ppm(3, 5, 1));  // of the same length, once 5 x 3
  expect_true();
  fs::rename(folder_.path() / "a/2.ppm", folder_.path() / "b/2.ppm");
  expect_true();
  folder_.write("c/1.ppm", numbered_ppm(5, 6, 3));
  expect_true();
  fs::rename(folder_.path() / "a", folder_.path() / "z");  // labels move
  expect_true();
}

TEST_F(FolderIndexTest, DoesNotRelyOnWhatHasJustChanged) {
  fs::create_directories(index().parent_path());
  const int64_t now = later() - 10'000'000'000;
  const PictureIndex fresh = scan_folder(folder_.path(), classes(), index(), {.threads = 1}, now);
  for (const IndexedFile& file : fresh.files()) EXPECT_EQ(file.changed, kUnsettled);
  for (const IndexedFolder& folder : fresh.folders()) EXPECT_EQ(folder.changed, kUnsettled);
}

TEST_F(FolderIndexTest, FollowsLinksAndSeesThemComeToLife) {
  const TemporaryFolder elsewhere, far, more;
  fs::create_symlink(far.path() / "later.ppm", folder_.path() / "a/link.ppm");
  fs::create_directory_symlink(elsewhere.path(), folder_.path() / "linked");  // a class
  fs::create_directory_symlink("..", folder_.path() / "a/circle");
  elsewhere.write("one.ppm", numbered_ppm(2, 3, 4));
  EXPECT_EQ(lines(scan()), true_lines());
  far.write("later.ppm", numbered_ppm(8, 9, 4));
  EXPECT_EQ(lines(scan()), true_lines());
  EXPECT_EQ(scan().files().size(), 11U);
  // To a folder, which leads to itself, and to one that is led to already.
  more.write("deep/two.ppm", numbered_ppm(2, 3, 5));
  fs::create_directory_symlink(more.path(), more.path() / "deep/again");
  fs::create_directory_symlink(more.path(), folder_.path() / "a/more");
  fs::create_directory_symlink(more.path() / "deep", folder_.path() / "linked/deep");
  EXPECT_EQ(lines(scan()), true_lines());
  EXPECT_EQ(scan().files().size(), 13U);
}

TEST_F(FolderIndexTest, OfAnyDamageIsMadeAgain) {
  scan();
  std::ifstream file(index(), std::ios::binary);
  const std::string good{std::istreambuf_iterator<char>(file), {}};
  const auto damaged = [&](const std::string& bytes) {
    std::ofstream(index(), std::ios::binary) << bytes;
    expect_true();
  };
  for (size_t at = 0; at < good.size(); at += 5) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 4);
    EXPECT_THROW(PictureIndex::parse({reinterpret_cast<const uint8_t*>(bad.data()), bad.size()}, "i"), FormatError)
        << at;
  }
  damaged("");
  damaged(good.substr(0, good.size() / 2));
  damaged(good + "x");
  std::string other_version = good;
  ++other_version[8];
  seal_index({reinterpret_cast<uint8_t*>(other_version.data()), other_version.size()});
  EXPECT_THROW(PictureIndex::parse({reinterpret_cast<const uint8_t*>(other_version.data()), other_version.size()}, "i"),
               FormatError);
  damaged(other_version);
}

TEST_F(FolderIndexTest, ThatMakesNoSenseIsMadeAgain) {
  const PictureIndex good = scan();
  const auto with = [&](auto change) {
    std::vector<IndexedFile> files(good.files().begin(), good.files().end());
    change(files);
    good.with(files).write(index().string());
    EXPECT_THROW(PictureIndex::read(index().string()), FormatError);
    expect_true();
  };
  with([](auto& files) { files.back().label = 2; });
  with([](auto& files) { std::swap(files[0], files[1]); });
  with([](auto& files) { files[3].width = 0; });
  with([](auto& files) { files[3].height = -5; });
  with([](auto& files) { files[3].name = uint64_t{1} << 63; });
  with([](auto& files) { --files[3].name_bytes; });
  with([](auto& files) { files[3].bytes = -1; });
}

TEST_F(FolderIndexTest, OfAnotherFolderIsNotTaken) {
  scan();
  const TemporaryFolder other;
  for (const std::string& line : lines(scan())) other.write(line.substr(0, line.find(' ')), numbered_ppm(1, 2, 0));
  const PictureIndex found = scan_folder(other.path(), classes(), index(), {}, later());
  for (const IndexedFile& file : found.files()) EXPECT_EQ(file.height, 2);
}

TEST_F(FolderIndexTest, ThatCannotBeKeptIsNotMade) {
  std::ofstream(cache_.folder().path("no-folder")) << "x";
  const PictureIndex index =
      scan_folder(folder_.path(), classes(), cache_.folder().path("no-folder/index/i.idx"), {}, later());
  EXPECT_FALSE(index.measured());
  setenv("XDG_CACHE_HOME", cache_.folder().path("no-folder").c_str(), 1);
  const auto set = open_at(folder_.path(), Split::train, "folder");
  EXPECT_EQ(set->size(), 9);
  EXPECT_FALSE(set->extent(0));
}

TEST_F(FolderIndexTest, AskedOfByTheLoaderGivesTheSameSizes) {
  const auto plain =
      std::shared_ptr(open_dataset({.path = folder_.path().string(), .format = "folder", .index = {.use = false}}));
  const std::shared_ptr<Dataset> indexed = open_at(folder_.path(), Split::train, "folder");
  ASSERT_EQ(indexed->extent(0)->height, 3);
  LoaderOptions options;
  options.batch = 4;
  const PictureSizes expected = measure_pictures(*plain, {}, options), found = measure_pictures(*indexed, {}, options);
  EXPECT_EQ(found.each, expected.each);
  EXPECT_EQ(found.capacity, expected.capacity);
  const auto part = stratified_sample(*indexed, 4, 7);
  EXPECT_EQ(part, stratified_sample(*plain, 4, 7));
  EXPECT_EQ(measure_pictures(*subset(indexed, part), {}, options).each,
            measure_pictures(*subset(plain, part), {}, options).each);
}

TEST_F(FolderIndexTest, IsMadeBySeveralAtOnce) {
  const std::vector<std::string> expected = true_lines();
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 10; ++i) {
        EXPECT_EQ(lines(scan_folder(folder_.path(), classes(), index(), {.threads = 1}, later())), expected);
        if (i % 3 == 0) fs::remove(index());
      }
    });
}

TEST_F(FolderIndexTest, TellsHowFarItIs) {
  for (int i = 0; i < 600; ++i) folder_.write("a/more" + std::to_string(i), bytes_of("x"));
  std::vector<int64_t> told;
  const DatasetOptions options{.path = folder_.path().string(),
                               .format = "folder",
                               .index = {.threads = 2, .progress = [&](int64_t done, int64_t all) {
                                           EXPECT_EQ(all, 609);
                                           told.push_back(done);
                                         }}};
  open_dataset(options);
  std::sort(told.begin(), told.end());
  EXPECT_EQ(told, (std::vector<int64_t>{256, 512}));
}

}  // namespace
}  // namespace convolt::test
