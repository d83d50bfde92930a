// The index of archives, shards and lists: a data set opened by it is the one that is opened without.
#include "data/archive_index.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include "archives.h"
#include "convolt/error.h"
#include "data/loader_setup.h"
#include "loader_fixture.h"
#include "support/cache_home.h"

namespace convolt::test {
namespace {

namespace fs = std::filesystem;

// As long after the last change as nothing is unsettled.
int64_t later() { return clock_now() + 10'000'000'000; }

struct Form {
  std::string file;  // that is opened
  std::function<void(const TemporaryFolder&, const std::vector<Packed>&)> write;
  std::unique_ptr<Dataset> (*open)(const fs::path&, Split, const IndexOptions&, int64_t);
  bool is_list = false;
};

std::string list_of(const TemporaryFolder& folder, const std::vector<Packed>& set) {
  std::string text = "path,label,split\n";
  for (const Packed& m : set) {
    folder.write(m.name, m.bytes);
    const std::string split = m.name.substr(0, m.name.find('/')), below = m.name.substr(split.size() + 1);
    text += m.name + "," + below.substr(0, below.find('/')) + "," + split + "\n";
  }
  return text;
}

const std::vector<Form>& forms() {
  static const std::vector<Form> forms{
      {"set.tar", [](const auto& folder, const auto& set) { folder.write("set.tar", make_tar(set)); }, open_tar},
      {"set.tar.gz",
       [](const auto& folder, const auto& set) { folder.write("set.tar.gz", make_tar(set, "pax", "gzip")); }, open_tar},
      {"set.zip", [](const auto& folder, const auto& set) { write_zip(folder.path() / "set.zip", set); }, open_zip},
      {"shards",
       [](const auto& folder, const auto& set) {
         const auto middle = set.begin() + 5;
         folder.write("shards/0.tar", make_tar({set.begin(), middle}));
         folder.write("shards/1.tar", make_tar({middle, set.end()}));
       },
       open_tar},
      {"set.csv", [](const auto& folder, const auto& set) { folder.write("set.csv", bytes_of(list_of(folder, set))); },
       open_manifest, true}};
  return forms;
}

std::vector<Packed> pictures() {
  std::vector<Packed> set;
  for (int i = 0; i < 12; ++i)
    set.push_back({(i % 4 == 3 ? "val/" : "train/") + std::string(i % 2 == 0 || i == 3 ? "a/" : "b/") +
                       std::to_string(i) + ".ppm",
                   numbered_ppm(4 + i, 3 + i % 3, i)});
  set[4].bytes = bytes_of("no picture");
  return set;
}

// "name label height x width" of each sample, as extent() says or, where it says nothing, as the header does.
std::vector<std::string> lines(const Dataset& set) {
  std::vector<std::string> all;
  for (int64_t i = 0; i < set.size(); ++i) {
    PictureExtent extent;
    if (const auto known = set.extent(i)) {
      extent = *known;
    } else {
      try {
        const PictureHeader header = read_picture_header(set.read(i).content());
        extent = {header.height, header.width};
      } catch (const DataError&) {
      }
    }
    all.push_back(set.name(i) + " " + std::to_string(set.label(i)) + " " + std::to_string(extent.height) + "x" +
                  std::to_string(extent.width));
  }
  return all;
}

class IndexedSetTest : public LoaderTest {
protected:
  static std::unique_ptr<Dataset> open(const Form& form, const TemporaryFolder& folder, Split split = Split::train,
                                       bool use = true, int64_t now = later()) {
    return form.open(folder.path() / form.file, split, {.use = use, .threads = 2}, now);
  }
  fs::path index_folder() const { return cache_.folder().path("convolt/index"); }
  std::vector<fs::path> indexes() const {
    std::vector<fs::path> all;
    if (fs::exists(index_folder()))
      for (const auto& entry : fs::directory_iterator(index_folder())) all.push_back(entry.path());
    return all;
  }
  std::vector<ino_t> inodes() const {
    std::vector<ino_t> all;
    for (const fs::path& path : indexes()) {
      struct stat status {};
      if (stat(path.c_str(), &status) == 0) all.push_back(status.st_ino);
    }
    std::sort(all.begin(), all.end());
    return all;
  }
  // That both parts are as they are without an index, and once more without making it again.
  void expect_true(const Form& form, const TemporaryFolder& folder) const {
    std::vector<ino_t> made;
    for (int start = 0; start < 2; ++start) {
      for (const Split split : {Split::train, Split::validation}) {
        const auto without = open(form, folder, split, false), with = open(form, folder, split);
        EXPECT_FALSE(without->extent(0));
        EXPECT_TRUE(with->extent(0));
        EXPECT_EQ(lines(*with), lines(*without)) << form.file;
        EXPECT_EQ(with->class_names(), without->class_names());
        if (start == 1) {
          EXPECT_EQ(inodes(), made) << form.file << ": made again although nothing changed";
        }
        for (int64_t i = 0; i < with->size(); ++i) EXPECT_EQ(with->read(i).bytes, without->read(i).bytes);
      }
      if (start == 0) made = inodes();
    }
    EXPECT_EQ(made.size(), form.is_list || form.file == "shards" ? 2U : 1U);
  }
  // Puts what `change` makes of its parts in the place of an index.
  template <class Change>
  static void rewrite(const fs::path& path, const Change& change) {
    const PictureIndex old = PictureIndex::read(path);
    PictureIndex::Parts parts;
    const auto copy = [&](const auto& items, auto& to) {
      for (const auto& item : items) {
        to.push_back(item);
        parts.set_name(to.back(), old.name(item));
      }
    };
    copy(old.folders(), parts.folders);
    copy(old.files(), parts.files);
    copy(old.members(), parts.members);
    change(parts);
    PictureIndex(std::move(parts)).write(path);
  }

  CacheHome cache_;
};

TEST_P(IndexedSetTest, IsTheSetWithoutAnIndex) {
  for (const Form& form : forms()) {
    const TemporaryFolder folder;
    form.write(folder, pictures());
    expect_true(form, folder);
    fs::remove_all(index_folder());
  }
}

TEST_P(IndexedSetTest, GivesTheSameBatches) {
  for (const Form& form : forms()) {
    const TemporaryFolder folder;
    form.write(folder, pictures());
    const LoaderOptions o = options(4, 2);
    const auto batches = [&](bool use) {
      const auto set = open(form, folder, Split::train, use);
      EXPECT_EQ(measure_pictures(*set, decode_limits(o), o).each,
                measure_pictures(*open(form, folder, Split::train, false), decode_limits(o), o).each);
      return hash_of(take(*Loader::create(context(), *set, o), o.batch, 6));
    };
    const uint64_t expected = batches(false);
    for (int start = 0; start < 2; ++start) EXPECT_EQ(batches(true), expected) << form.file << ", " << start;
  }
}

// What it says is believed, so neither the listing nor a header has been read.
TEST_P(IndexedSetTest, IsUsed) {
  for (const Form& form : forms()) {
    const TemporaryFolder folder;
    form.write(folder, pictures());
    open(form, folder);
    for (const fs::path& index : indexes())
      rewrite(index, [&](PictureIndex::Parts& parts) {
        for (IndexedFile& f : parts.files) f.height = f.height > 0 ? 77 : 0;
        for (IndexedMember& m : parts.members) {
          m.height = m.height > 0 ? 77 : m.height;
          if (m.name_bytes > 4) parts.text[m.name + m.name_bytes - 5] = 'z';
        }
      });
    const auto set = open(form, folder);
    EXPECT_EQ(set->extent(0)->height, 77) << form.file << ": a header was read again";
    EXPECT_NE(fs::path(set->name(0)).stem().string().ends_with('z'), form.is_list) << "it was listed again";
    fs::remove_all(index_folder());
  }
}

TEST_P(IndexedSetTest, SeesWhatHasChanged) {
  for (const Form& form : forms()) {
    const TemporaryFolder folder;
    auto set = pictures();
    form.write(folder, set);
    expect_true(form, folder);
    std::swap(set[0].bytes, set[6].bytes);
    form.write(folder, set);  // of the same length
    expect_true(form, folder);
    set.erase(set.begin() + 2);
    form.write(folder, set);
    expect_true(form, folder);
    fs::remove_all(index_folder());
  }
}

TEST_P(IndexedSetTest, OnlyWhatNobodyLookedAtIsMeasured) {
  const TemporaryFolder folder;
  const Form& tar = forms()[0];
  tar.write(folder, pictures());
  open(tar, folder);
  rewrite(indexes().at(0), [](auto& parts) {
    for (IndexedMember& m : parts.members) {
      EXPECT_EQ(m.height < 0, parts.text.substr(m.name, 4) == "val/");
      if (m.height > 0) m.height = 77;
    }
  });
  EXPECT_EQ(open(tar, folder, Split::validation)->extent(0)->height, 3);
  EXPECT_EQ(open(tar, folder)->extent(0)->height, 77);
  const PictureIndex index = PictureIndex::read(indexes().at(0));
  for (const IndexedMember& m : index.members()) EXPECT_GE(m.height, 0) << "not kept";
}

TEST_P(IndexedSetTest, OfAListTellsFilesApart) {
  const TemporaryFolder folder;
  for (const char* name : {"1.ppm", "2.ppm"}) folder.write(name, numbered_ppm(name[0] - '0', 5, 1));
  const std::string absolute = (folder.path() / "1.ppm").string();
  const auto list = folder.write(
      "l.csv", bytes_of("path,label\n2.ppm,a\n1.ppm,a\ngone.ppm,b\n2.ppm,b\n" + absolute + ",b\n./2.ppm,a\n"));
  const auto widths = [&] {
    std::vector<int> all;
    const auto set = open_manifest(list, Split::train, {}, later());
    for (int64_t i = 0; i < set->size(); ++i) all.push_back(set->extent(i)->width);
    EXPECT_EQ(set->name(4), absolute);
    return all;
  };
  for (int start = 0; start < 2; ++start) EXPECT_EQ(widths(), (std::vector{2, 1, 0, 2, 1, 2}));
  folder.write("gone.ppm", numbered_ppm(6, 5, 1));
  EXPECT_EQ(widths(), (std::vector{2, 1, 6, 2, 1, 2}));
}

// Lines that come, go and change places: the index has the files that are listed, and is made anew only for others.
TEST_P(IndexedSetTest, OfAListHasTheFilesThatAreListed) {
  using Names = std::vector<std::string>;
  const TemporaryFolder folder;
  for (const char* name : {"1", "2", "3"}) folder.write(name, numbered_ppm(name[0] - '0', 5, 1));
  const auto in_index = [&](const Names& listed) {
    std::string text = "path,label\n";
    for (const std::string& name : listed) text += name + ",a\n";
    const auto set = open_manifest(folder.write("l.csv", bytes_of(text)), Split::train, {}, later());
    EXPECT_EQ(set->size(), static_cast<int64_t>(listed.size()));
    for (size_t i = 0; i < listed.size(); ++i) {
      EXPECT_EQ(set->name(static_cast<int64_t>(i)), (folder.path() / listed[i]).string());
      EXPECT_EQ(set->extent(static_cast<int64_t>(i))->width, listed[i][0] - '0');
    }
    Names found;
    const PictureIndex index = PictureIndex::read(indexes().at(0));
    for (const IndexedFile& file : index.files()) found.emplace_back(index.name(file));
    return found;
  };
  EXPECT_EQ(in_index({"1", "2"}), (Names{"1", "2"}));
  const auto made = inodes();
  EXPECT_EQ(in_index({"2", "1", "2"}), (Names{"1", "2"}));
  EXPECT_EQ(inodes(), made) << "made again for the same files";
  EXPECT_EQ(in_index({"3", "2", "1"}), (Names{"1", "2", "3"}));
  EXPECT_EQ(in_index({"3", "1"}), (Names{"1", "3"}));
  EXPECT_EQ(in_index({"2", "1"}), (Names{"1", "2"}));
}

TEST_P(IndexedSetTest, IsNotKeptOfWhatHasJustChanged) {
  const TemporaryFolder folder;
  for (const Form& form : forms()) {
    form.write(folder, pictures());
    const auto set = open(form, folder, Split::train, true, clock_now());
    if (form.is_list) {
      const PictureIndex index = PictureIndex::read(indexes().at(0));
      for (const IndexedFile& f : index.files()) EXPECT_EQ(f.changed, kUnsettled);
    } else {
      EXPECT_FALSE(set->extent(0));
      EXPECT_TRUE(indexes().empty()) << form.file;
    }
  }
}

TEST_P(IndexedSetTest, OfAnyDamageIsMadeAgain) {
  for (const Form& form : forms()) {
    const TemporaryFolder folder;
    form.write(folder, pictures());
    expect_true(form, folder);
    for (const fs::path& path : indexes()) {
      const std::string good = contents(path);
      for (size_t at = 0; at < good.size(); at += 7) {
        Bytes bad = bytes_of(good);
        bad[at] ^= 4;
        EXPECT_THROW(PictureIndex::parse(bad, "i"), FormatError) << at;
      }
      std::string bad = good;
      bad[good.size() / 2] = static_cast<char>(bad[good.size() / 2] ^ 1);
      for (const std::string& content : {bad, good.substr(0, good.size() - 1), good + "x", std::string()}) {
        put_contents(path, content);
        expect_true(form, folder);
      }
    }
    fs::remove_all(index_folder());
  }
}

TEST_P(IndexedSetTest, ThatMakesNoSenseIsMadeAgain) {
  const TemporaryFolder folder;
  const Form& tar = forms()[0];
  tar.write(folder, pictures());
  expect_true(tar, folder);
  const std::string good = contents(indexes().at(0));
  for (void (*const change)(IndexedMember&) :
       {+[](IndexedMember& m) { m.kind = 6; }, +[](IndexedMember& m) { m.label = kMostClasses; },
        +[](IndexedMember& m) { m.label = -2; }, +[](IndexedMember& m) { m.bytes = -1; },
        +[](IndexedMember& m) { m.place = INT64_MAX; }, +[](IndexedMember& m) { m.height = 0; },
        +[](IndexedMember& m) { m.width = -1; }, +[](IndexedMember& m) { m.name_bytes = 0; },
        +[](IndexedMember& m) { m.name += 1'000'000; }}) {
    put_contents(indexes().at(0), good);
    rewrite(indexes()[0], [&](auto& parts) { change(parts.members[1]); });
    EXPECT_THROW(members_of(PictureIndex::read(indexes()[0]), "i"), FormatError);
    expect_true(tar, folder);
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, IndexedSetTest, testing::Values(Device::cpu()), device_name);

}  // namespace
}  // namespace convolt::test
