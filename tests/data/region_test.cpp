// A part of a picture has the pixels of the whole, and a bad file is bad whatever part is wanted.
#include <gmock/gmock.h>

#include <random>

#include "convolt/error.h"
#include "data/decode.h"
#include "exif.h"
#include "jpeg_writer.h"

namespace convolt::test {
namespace {

const jpeg_scan_info kRough{3, {0, 1, 2}, 0, 0, 0, 0}, kFirst{1, {0}, 1, 5, 0, 2};  // no others: libjpeg smooths these

const std::vector<JpegKind> kKinds{
    {"4:2:0"},
    {"4:2:2", 2, 1},
    {"4:4:4", 1, 1},
    {"4:4:0", 1, 2},
    {"4:1:1", 4, 1},
    {"4:1:0", 4, 2},
    {"grey", 1, 1, JCS_GRAYSCALE},
    {"CMYK", 1, 1, JCS_CMYK},
    {"YCCK", 2, 2, JCS_YCCK},
    {"progressive", 2, 2, JCS_YCbCr, {}, true},
    {"progressive 4:2:2", 2, 1, JCS_YCbCr, {}, true},
    {"progressive 4:4:4", 1, 1, JCS_YCbCr, {}, true},
    {"restarts", 2, 2, JCS_YCbCr, {}, false, 3},
    {"progressive with restarts", 2, 2, JCS_YCbCr, {}, true, 5},
    {"not interleaved", 2, 2, JCS_YCbCr, {kLuma, kBlue, kRed}},
    {"half progressive", 2, 2, JCS_YCbCr, {kRough, kFirst}},
    {"arithmetic", 2, 2, JCS_YCbCr, {}, false, 0, true},
    {"progressive arithmetic", 2, 2, JCS_YCbCr, {}, true, 0, true},
};
// The last is narrower than libjpeg's smooth upsampling.
const std::vector<PictureSize> kSizes{{97, 131, 3}, {64, 96, 3}, {33, 250, 3}, {241, 17, 3}, {5, 61, 3}, {40, 5, 3}};

class DecodeRegion : public testing::Test {
protected:
  DecodeRegion() { prepare_decoder(); }

  int below(int count) { return static_cast<int>(random_() % static_cast<uint32_t>(count)); }
  // Of any size and place, often small, often at the picture's edges.
  Region any(const PictureSize& size) {
    Region r;
    r.width = 1 + below(below(4) == 0 ? std::min(size.width, 4) : size.width);
    r.height = 1 + below(below(4) == 0 ? std::min(size.height, 4) : size.height);
    r.left = below(4) == 0 ? size.width - r.width : below(size.width - r.width + 1);
    r.top = below(4) == 0 ? size.height - r.height : below(size.height - r.height + 1);
    return r;
  }

  struct Part {
    DecodedRegion decoded;
    Bytes pixels;
    std::string error;
    // The wanted region's pixels, which lie in the part.
    Bytes cut(const Region& r) const {
      Bytes rows;
      for (int y = r.top - decoded.region.top; y < r.top - decoded.region.top + r.height; ++y) {
        const auto row = pixels.begin() + (int64_t{y} * decoded.region.width + r.left - decoded.region.left) * 3;
        rows.insert(rows.end(), row, row + int64_t{r.width} * 3);
      }
      return rows;
    }
  };
  // Without a region: all.
  Part decode_part(const Bytes& file, const Region* region, const DecodeLimits& limits = {}) const {
    const auto choose = [&](const PictureSize& size) {
      return Wanted{region ? *region : Region{0, 0, size.width, size.height}, spacing_};
    };
    Part part;
    RawSample sample;
    sample.bytes = file;
    part.pixels.resize(1 << 18);
    try {
      part.decoded = decode_region(sample, limits, choose, part.pixels, "sample");
      const Region& r = part.decoded.region;
      part.pixels.resize(static_cast<size_t>(int64_t{r.height} * r.width * 3));
    } catch (const DataError& error) {
      part.error = error.what();
    }
    return part;
  }
  static bool holds(const Region& outer, const Region& r) {
    return outer.left <= r.left && outer.top <= r.top && outer.left + outer.width >= r.left + r.width &&
           outer.top + outer.height >= r.top + r.height;
  }
  void expect_parts_of_whole(const Bytes& file, int parts, const std::string& what, const DecodeLimits& limits = {}) {
    const Part whole = decode_part(file, nullptr, limits);
    ASSERT_EQ(whole.error, "") << what;
    RawSample sample;
    sample.bytes = file;
    const PictureSize size = decoded_size(sample, limits);
    for (int i = 0; i < parts; ++i) {
      const Region r = any(size);
      const Part part = decode_part(file, &r, limits);
      const std::string place = what + fmt(r);
      ASSERT_EQ(part.error, "") << place;
      ASSERT_EQ(part.decoded.size, whole.decoded.size) << place;
      const Region needed = covering(part.decoded, r);
      ASSERT_TRUE(holds(part.decoded.region, needed)) << place << " in" << fmt(part.decoded.region);
      ASSERT_TRUE(part.cut(needed) == whole.cut(needed)) << place;
    }
  }
  static std::string fmt(const Region& r) {
    return " [" + std::to_string(r.left) + ", " + std::to_string(r.top) + ": " + std::to_string(r.width) + " x " +
           std::to_string(r.height) + "]";
  }

  std::mt19937 random_{7};
  double spacing_ = 1;
};

TEST_F(DecodeRegion, HasThePixelsOfTheWhole) {
  for (const JpegKind& kind : kKinds)
    for (const PictureSize& size : kSizes)
      expect_parts_of_whole(write_jpeg(kind, size.width, size.height), 60, kind.name);
}

TEST_F(DecodeRegion, HasThePixelsOfTheWholeAtAScale) {
  for (spacing_ = 2; spacing_ <= 8; spacing_ *= 2)
    for (const JpegKind& kind : kKinds)
      for (const PictureSize& size : kSizes)
        expect_parts_of_whole(write_jpeg(kind, size.width, size.height), 20,
                              kind.name + " at 1/" + std::to_string(spacing_));
}

TEST_F(DecodeRegion, IsUprightInAllExifOrientations) {
  for (const double spacing : {1, 2})
    for (const JpegKind& kind : {kKinds[0], kKinds[9]})
      for (const PictureSize& size : {kSizes[0], kSizes[2]})
        for (int orientation = 1; orientation <= 8; ++orientation) {
          spacing_ = spacing;
          expect_parts_of_whole(with_exif(write_jpeg(kind, size.width, size.height), orientation, false), 25,
                                kind.name + " turned " + std::to_string(orientation));
        }
}

TEST_F(DecodeRegion, OfAShrunkPictureIsOfTheShrunkSize) {
  const Bytes file = write_jpeg(kKinds[0], 131, 97);
  for (const int max_side : {66, 44, 20})
    for (const int orientation : {1, 6})
      expect_parts_of_whole(with_exif(file, orientation, true), 10, "shrunk", {.max_side = max_side});
}

TEST_F(DecodeRegion, OfOtherFormatsIsTheWhole) { expect_parts_of_whole(ppm(9, 7, textured(9, 7, 3)), 10, "PPM"); }

TEST_F(DecodeRegion, OfPixelsIsWhatIsWantedUnlessTheyAreShrunk) {
  const RawSample raw{textured(9, 7, 3), 7, 9, 3};
  const Region wanted{1, 2, 3, 4};
  for (const int max_side : {9, 5}) {
    Bytes target(raw.bytes.size());
    const auto decoded = decode_region(
        raw, {.max_side = max_side},
        [&](const PictureSize&) {
          return Wanted{{1, 2, 2, 1}};
        },
        target, "");
    EXPECT_EQ(decoded.region, max_side == 9 ? (Region{1, 2, 2, 1}) : (Region{0, 0, 5, 4}));
  }
  Bytes target(raw.bytes.size());
  decode_region(
      raw, {}, [&](const PictureSize&) { return Wanted{wanted}; }, target, "raw");
  for (int y = 0; y < wanted.height; ++y)
    for (int i = 0; i < 3 * wanted.width; ++i)
      EXPECT_EQ(target[static_cast<size_t>(3 * wanted.width * y + i)],
                raw.bytes[static_cast<size_t>(3 * (9 * (wanted.top + y) + wanted.left) + i)]);
}

// What it is for: blocks beside the region's, and rows beside its rows, are not decoded.
TEST_F(DecodeRegion, HoldsLittleMoreThanIsWanted) {
  for (const JpegKind& kind : {kKinds[0], kKinds[2], kKinds[9]}) {
    const Bytes file = write_jpeg(kind, 250, 241);
    const Region r{100, 90, 40, 50};
    const Region got = decode_part(file, &r).decoded.region;
    EXPECT_LE(got.width, r.width + 2 * 16) << kind.name;
    EXPECT_EQ(got.height, r.height) << kind.name;
  }
}

TEST_F(DecodeRegion, OutsideThePictureIsAMistake) {
  const Bytes file = write_jpeg(kKinds[0], 20, 10);
  for (const Region& r : {Region{-1, 0, 5, 5}, Region{0, 0, 21, 5}, Region{0, 8, 5, 3}, Region{3, 3, 0, 1}})
    EXPECT_THROW(decode_part(file, &r), UsageError) << fmt(r);
}

// Cut anywhere: refused, with the same words, whatever part is wanted, and be it the first row.
TEST_F(DecodeRegion, ACutFileIsBadInEveryPart) {
  for (const JpegKind& kind : kKinds) {
    const Bytes file = write_jpeg(kind, 131, 97);
    const Region corner{0, 0, 16, 1};
    for (size_t kept = 100; kept + 2 < file.size(); kept += 1 + file.size() / 40) {
      const Bytes cut(file.begin(), file.begin() + static_cast<int64_t>(kept));
      const std::string error = decode_part(cut, nullptr).error;
      const Region r = any({97, 131, 3});
      EXPECT_NE(error, "") << kind.name << " " << kept;
      EXPECT_EQ(decode_part(cut, &r).error, error) << kind.name << " " << kept << fmt(r);
      EXPECT_EQ(decode_part(cut, &corner).error, error) << kind.name << " " << kept;
    }
    const Bytes no_end(file.begin(), file.end() - 2);
    EXPECT_EQ(decode_part(no_end, &corner).error, decode_part(no_end, nullptr).error) << kind.name;
  }
}

// Once it is known that the whole can be decoded, nothing behind a part is read.
TEST_F(DecodeRegion, OfASoundFileIsReadNoFurther) {
  const DecodeLimits sound{.known_sound = true};
  const PictureSize size{97, 131, 3};
  const Region above{8, 8, 40, 20}, below{8, 8, 40, 80};
  for (const size_t k : {0, 1, 2, 6, 8, 12}) {  // those with a single scan
    const JpegKind& kind = kKinds[k];
    const Bytes file = write_jpeg(kind, size.width, size.height);
    const Bytes cut(file.begin(), file.begin() + static_cast<int64_t>(file.size() * 2 / 3));
    const Part whole = decode_part(file, nullptr), part = decode_part(cut, &above, sound);
    ASSERT_EQ(part.error, "") << kind.name;
    EXPECT_TRUE(part.cut(above) == whole.cut(above)) << kind.name;
    EXPECT_NE(decode_part(cut, &above).error, "") << kind.name;
    EXPECT_NE(decode_part(cut, &below, sound).error, "") << kind.name;
    EXPECT_NE(decode_part(cut, nullptr, sound).error, "") << kind.name;
  }
}

TEST_F(DecodeRegion, AChangedFileIsAsGoodOrBadInEveryPart) {
  int good = 0, bad = 0;
  for (const JpegKind& kind : kKinds)
    for (int i = 0; i < 150; ++i) {
      Bytes file = write_jpeg(kind, 131, 97);
      for (int changes = 1 + below(3); changes > 0; --changes)
        file[2 + static_cast<size_t>(below(static_cast<int>(file.size()) - 2))] = static_cast<uint8_t>(random_());
      const Part whole = decode_part(file, nullptr);
      const PictureSize& size = whole.decoded.size;
      const Region r = whole.error.empty() ? any(size) : Region{0, 0, 1, 1};
      const Part part = decode_part(file, &r);
      ASSERT_EQ(part.error, whole.error) << kind.name << " " << i << fmt(r);
      (whole.error.empty() ? good : bad) += 1;
      if (!whole.error.empty()) continue;
      ASSERT_TRUE(part.cut(r) == whole.cut(r)) << kind.name << " " << i << fmt(r);
      const Part again = decode_part(file, &r, {.known_sound = true});
      ASSERT_EQ(again.error, "") << kind.name << " " << i << fmt(r);
      ASSERT_TRUE(again.cut(r) == whole.cut(r)) << kind.name << " " << i << fmt(r);
    }
  EXPECT_GT(good, 200);
  EXPECT_GT(bad, 100);
}

}  // namespace
}  // namespace convolt::test
