// 3,407 odd, broken and hostile picture files, if they are there: CONVOLT_TEST_DATA names the folder that has corpora/.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <zlib.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <map>
#include <sstream>

#include "convolt/dataset.h"
#include "convolt/error.h"
#include "data/decode.h"
#include "test_files.h"

namespace convolt::test {
namespace {

namespace fs = std::filesystem;

std::string read_gzip(const fs::path& path) {
  std::string text;
  char chunk[1 << 16];
  const gzFile file = gzopen(path.c_str(), "rb");
  for (int got = 0; (got = gzread(file, chunk, sizeof chunk)) > 0;) text.append(chunk, static_cast<size_t>(got));
  gzclose(file);
  return text;
}

// What Pillow 9.4 made of a file.
struct Entry {
  std::string status, format;
  int width = 0, height = 0;
};

std::map<std::string, Entry> read_manifest(const fs::path& path) {
  std::map<std::string, Entry> entries;
  std::istringstream lines(read_gzip(path));
  std::string line;
  std::getline(lines, line);  // path repository repo_path bytes sha256 in_small pil940_status format width height ...
  while (std::getline(lines, line)) {
    std::vector<std::string> fields;
    std::istringstream columns(line);
    for (std::string field; std::getline(columns, field, '\t');) fields.push_back(field);
    fields.resize(12);
    entries[fields[0]] = {fields[6], fields[7], std::atoi(fields[8].c_str()), std::atoi(fields[9].c_str())};
  }
  return entries;
}

bool is_supported(const std::string& format) {
  for (const char* known : {"PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM"})
    if (format == known) return true;
  return false;
}

int64_t peak_memory() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

class Corpora : public testing::Test {
protected:
  void SetUp() override {
    const char* data = std::getenv("CONVOLT_TEST_DATA");
    if (data == nullptr) GTEST_SKIP() << "CONVOLT_TEST_DATA is not set: the corpora of broken pictures are not tried";
    const fs::path corpora = fs::path(data) / "corpora";
    const std::string unpack =
        "tar -C '" + folder_.path().string() + "' -xJf '" + (corpora / "corpora_shared.tar.xz").string() + "'";
    ASSERT_EQ(std::system(unpack.c_str()), 0) << unpack;
    manifest_ = read_manifest(corpora / "MANIFEST.tsv.gz");
    prepare_decoder();
  }

  // Empty size: refused with a DataError.
  PictureSize decode_file(const std::string& name) {
    std::ifstream file(folder_.path() / name, std::ios::binary);
    RawSample sample;
    sample.bytes.assign(std::istreambuf_iterator<char>(file), {});
    const double start = thread_seconds();
    PictureSize size;
    std::string refusal;
    try {
      size = decode(sample, {.max_pixels = kMaxPixels}, target_, name);
    } catch (const DataError& error) {
      refusal = error.what();
      EXPECT_TRUE(refusal.starts_with(name)) << refusal;
    }
    EXPECT_LT(thread_seconds() - start, 10) << name;
    if (is_jpeg(sample.bytes)) expect_same_part(sample, name, refusal);
    return size;
  }

  static bool is_jpeg(const Bytes& file) { return file.size() > 1 && file[0] == 0xFF && file[1] == 0xD8; }

  // A part of the picture, of which target_ holds the whole: the same pixels, or refused with the same words.
  void expect_same_part(const RawSample& sample, const std::string& name, const std::string& refusal) {
    Region wanted;
    const auto middle = [&](const PictureSize& size) {
      wanted = {size.width / 3, size.height / 4, (size.width + 2) / 3, (size.height + 1) / 2};
      return wanted;
    };
    try {
      const auto [size, part] = decode_region(sample, {.max_pixels = kMaxPixels}, middle, part_, name);
      EXPECT_EQ(refusal, "");
      for (int y = wanted.top; y < wanted.top + wanted.height; ++y) {
        const int64_t row = (int64_t{y - part.top} * part.width + wanted.left - part.left) * 3;
        const int64_t whole_row = (int64_t{y} * size.width + wanted.left) * 3;
        ASSERT_TRUE(std::equal(&part_[static_cast<size_t>(row)],
                               &part_[static_cast<size_t>(row)] + int64_t{wanted.width} * 3,
                               &target_[static_cast<size_t>(whole_row)]))
            << name << " row " << y;
      }
    } catch (const DataError& error) {
      EXPECT_EQ(error.what(), refusal);
    }
  }

  static constexpr int64_t kMaxPixels = 40'000'000;
  TemporaryFolder folder_;
  std::map<std::string, Entry> manifest_;
  Bytes target_ = Bytes(3 * kMaxPixels), part_ = Bytes(3 * kMaxPixels);
};

TEST_F(Corpora, DecodeAgreesWithPillowAndNothingCrashes) {
  ASSERT_GT(manifest_.size(), 3000U);
  const int64_t memory = peak_memory();
  int good = 0, both_good = 0, bad = 0, both_bad = 0, other = 0;
  for (const auto& [name, entry] : manifest_) {
    const PictureSize size = decode_file(name);
    const bool decoded = size.width > 0;
    if (entry.status != "ok") {
      ++bad;
      both_bad += decoded ? 0 : 1;
      // A picture that opens and then fails to load is a cut one.
      const bool cut = entry.format == "JPEG" || entry.format == "PNG";
      EXPECT_FALSE(cut && decoded) << name;
    } else if (is_supported(entry.format)) {
      ++good;
      both_good += decoded ? 1 : 0;
      const bool same = size.width == entry.width && size.height == entry.height;
      const bool turned = size.width == entry.height && size.height == entry.width;
      EXPECT_TRUE(!decoded || same || turned) << name << ": " << size.width << " x " << size.height;
    } else {
      ++other;
      EXPECT_FALSE(decoded) << name << " is a " << entry.format;
    }
  }
  std::cout << "Pillow decodes " << good << ", we " << both_good << " of them; Pillow refuses " << bad << ", we "
            << both_bad << " of them; " << other << " are of formats that are not supported\n";
  EXPECT_GE(both_good, good - 30);
  EXPECT_GE(both_bad, bad - 25);
  EXPECT_LT(peak_memory() - memory, int64_t{1} << 30);
}

class RealSets : public testing::Test {
protected:
  void SetUp() override {
    const char* data = std::getenv("CONVOLT_TEST_DATA");
    if (data == nullptr) GTEST_SKIP() << "CONVOLT_TEST_DATA is not set: the real data sets are not opened";
    data_ = data;
  }
  std::vector<int> labels_per_class(const Dataset& dataset) {
    std::vector<int> counts(dataset.class_names().size());
    for (int64_t i = 0; i < dataset.size(); ++i) ++counts[static_cast<size_t>(dataset.label(i))];
    return counts;
  }
  fs::path data_;
};

TEST_F(RealSets, FashionMnist) {
  const std::string path = (data_ / "fashion_mnist").string();
  EXPECT_EQ(labels_per_class(*open_dataset({.path = path})), std::vector<int>(10, 6000));
  EXPECT_EQ(labels_per_class(*open_dataset({.path = path, .split = Split::validation})), std::vector<int>(10, 1000));
}

TEST_F(RealSets, CifarRecords) {
  const auto set = open_dataset({.path = (data_ / "cifar10_oracle" / "test_batch_first1017.bin").string()});
  EXPECT_EQ(set->size(), 1017);
  EXPECT_EQ(set->label(0), 3);  // a cat, two ships and an aeroplane begin the official test set
  EXPECT_EQ(set->label(1), 8);
  EXPECT_EQ(set->label(3), 0);
}

}  // namespace
}  // namespace convolt::test
