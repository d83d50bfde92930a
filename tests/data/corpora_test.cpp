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
  for (const char* known : {"PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM", "GIF"})
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

  // The largest difference of a channel at 16 places from Pillow's, as golden/make_pillow_colours.py writes them; -1
  // where the picture is of another size.
  int difference(const PictureSize& size, int width, int height, const std::string& colours) const {
    if (size.width != width || size.height != height) return -1;
    int most = 0;
    for (size_t k = 0; k < 16; ++k) {
      const auto i = static_cast<int64_t>(k % 4), j = static_cast<int64_t>(k / 4);
      const int64_t at = (2 * j + 1) * height / 8 * width + (2 * i + 1) * width / 8;
      for (size_t c = 0; c < 3; ++c) {
        const int expected = std::stoi(colours.substr(6 * k + 2 * c, 2), nullptr, 16);
        most = std::max(most, std::abs(expected - target_[static_cast<size_t>(at) * 3 + c]));
      }
    }
    return most;
  }

  // A part of the picture, of which target_ holds the whole: the same pixels, or refused with the same words.
  void expect_same_part(const RawSample& sample, const std::string& name, const std::string& refusal) {
    Region wanted;
    const auto middle = [&](const PictureSize& size) {
      wanted = {size.width / 3, size.height / 4, (size.width + 2) / 3, (size.height + 1) / 2};
      return Wanted{wanted};
    };
    try {
      const DecodedRegion decoded = decode_region(sample, {.max_pixels = kMaxPixels}, middle, part_, name);
      const PictureSize& size = decoded.size;
      const Region& part = decoded.region;
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

// Of these Pillow 9.4 makes something else.
constexpr const char* kOtherColours[] = {
    "/rgb16.bmp",
    "/rgb16-565.bmp",
    "_R5_G5_B5",  // OpenCV leaves the lower bits 0: 7 levels darker at most
    "/pal4rle",   // Pillow takes a wrong turn (pal4rle.bmp.png is right)
    "/pal8badindex.bmp",
    "/mmap_error.bmp",
    "/invalid_palette_index.png",  // no colour is right
    "/lab",                        // Pillow shows L, a and b as they are
    "/hpredict",
    "_RGBa.tiff",                // multiplied by alpha, which Pillow undoes
    "tiff-5026894169374720.tif"  // JPEG in a TIFF: libtiff's own way from YCbCr, 4 levels
};
bool has_other_colours(const std::string& name) {
  if (name.find("/reference/") != name.npos) return false;  // PNGs of the same names
  return std::ranges::any_of(kOtherColours, [&](const char* part) { return name.find(part) != name.npos; });
}

TEST_F(Corpora, ColoursAreThoseOfPillow) {
  std::istringstream lines(read_gzip(fs::path(CONVOLT_SOURCE_DIR) / "tests/data/golden/pillow_colours.txt.gz"));
  int compared = 0;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream columns(line);
    std::string name, width, height, colours;
    for (std::string* field : {&name, &width, &height, &colours}) std::getline(columns, *field, '\t');
    const PictureSize size = decode_file(name);
    if (size.width == 0) continue;
    const int most = difference(size, std::stoi(width), std::stoi(height), colours);
    const bool close = most >= 0 && most <= 2;
    EXPECT_EQ(close, !has_other_colours(name)) << name << ": " << most;
    compared += close ? 1 : 0;
  }
  EXPECT_GE(compared, 1350);
}

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
