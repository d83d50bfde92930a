#include "convolt/synth.h"

#include <gmock/gmock.h>

#include <map>
#include <set>

#include "convolt/dataset.h"
#include "convolt/error.h"
#include "data/decode.h"
#include "test_files.h"

namespace convolt::test {
namespace {

using testing::HasSubstr;

SynthOptions small(const std::filesystem::path& output) {
  SynthOptions options;
  options.output = output.string();
  options.train_per_class = 4;
  options.val_per_class = 3;
  options.seed = 7;
  return options;
}

std::map<std::string, Bytes> files_of(const std::filesystem::path& root) {
  std::map<std::string, Bytes> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root))
    if (entry.is_regular_file()) {
      std::ifstream file(entry.path(), std::ios::binary);
      files[entry.path().lexically_relative(root).string()] = Bytes(std::istreambuf_iterator<char>(file), {});
    }
  return files;
}

TEST(Synth, WritesAnImageFolder) {
  const TemporaryFolder folder;
  make_synthetic_dataset(small(folder.path() / "set"));
  const std::string path = (folder.path() / "set").string();
  const auto train = open_dataset({.path = path}), val = open_dataset({.path = path, .split = Split::validation});
  EXPECT_EQ(train->class_names().size(), 8U);
  EXPECT_EQ(val->class_names(), train->class_names());
  EXPECT_EQ(train->size(), 32);
  EXPECT_EQ(val->size(), 24);
  EXPECT_THAT(train->name(0), HasSubstr("000.jpg"));
  std::set<std::pair<int, int>> sizes;
  Bytes target(128 * 128 * 3);
  for (int64_t i = 0; i < train->size(); ++i) {
    const PictureSize size = decode(train->read(i), {}, target, train->name(i));
    EXPECT_GE(std::min(size.width, size.height), 64);
    EXPECT_LE(std::max(size.width, size.height), 128);
    sizes.emplace(size.width, size.height);
  }
  EXPECT_GT(sizes.size(), 20U);
  EXPECT_EQ(files_of(path).size(), 56U);  // and nothing else
}

TEST(Synth, IsAPureFunctionOfTheSeed) {
  const TemporaryFolder folder;
  SynthOptions options = small(folder.path() / "a");
  make_synthetic_dataset(options);
  options.output = (folder.path() / "b").string();
  options.threads = 5;
  make_synthetic_dataset(options);
  options.output = (folder.path() / "c").string();
  options.seed = 8;
  make_synthetic_dataset(options);
  EXPECT_EQ(files_of(folder.path() / "a"), files_of(folder.path() / "b"));
  EXPECT_NE(files_of(folder.path() / "a"), files_of(folder.path() / "c"));
}

TEST(Synth, RefusesWhatMakesNoSense) {
  const TemporaryFolder folder;
  folder.write("full/file", {1});
  const auto refusal = [](const SynthOptions& options) {
    return message_of<UsageError>([&] { make_synthetic_dataset(options); });
  };
  EXPECT_THAT(refusal(small(folder.path() / "full")), HasSubstr("not an empty folder"));
  EXPECT_THAT(refusal(small(folder.path() / "full/file")), HasSubstr("not an empty folder"));
  SynthOptions options = small(folder.path() / "set");
  options.classes = 17;
  EXPECT_THAT(refusal(options), HasSubstr("number of classes is 17, expected 2 to 16"));
  options = small(folder.path() / "set");
  options.max_side = 10;
  EXPECT_THAT(refusal(options), HasSubstr("largest side is 10"));
}

TEST(Synth, AllClassesAreDrawn) {
  const TemporaryFolder folder;
  SynthOptions options = small(folder.path() / "set");
  options.classes = SynthOptions::kMaxClasses;
  options.train_per_class = 1;
  options.val_per_class = 0;
  make_synthetic_dataset(options);
  EXPECT_EQ(open_dataset({.path = options.output})->class_names().size(), 16U);
  EXPECT_EQ(open_dataset({.path = options.output, .split = Split::validation}), nullptr);
}

}  // namespace
}  // namespace convolt::test
