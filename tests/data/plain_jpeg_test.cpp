// Which files may go to a device decoder.
#include "data/plain_jpeg.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <iterator>
#include <random>

#include "convolt/error.h"
#include "data/decode.h"
#include "exif.h"
#include "jpeg_writer.h"

namespace convolt::test {
namespace {

using testing::AnyOf;
using testing::HasSubstr;
using testing::Not;

// Where the segment with that marker begins; the first of several.
int64_t find(const Bytes& file, uint8_t marker) {
  const Bytes both{0xFF, marker};
  return std::search(file.begin(), file.end(), both.begin(), both.end()) - file.begin();
}
Bytes with(Bytes file, int64_t at, uint8_t value) {
  file[static_cast<size_t>(at)] = value;
  return file;
}
Bytes inserted(const Bytes& file, int64_t at, const Bytes& more) {
  return Bytes(file.begin(), file.begin() + at) + more + Bytes(file.begin() + at, file.end());
}
// All segments with that marker.
Bytes without(Bytes file, uint8_t marker) {
  for (int64_t at = find(file, marker); at < static_cast<int64_t>(file.size()); at = find(file, marker)) {
    const int64_t length = file[static_cast<size_t>(at) + 2] << 8 | file[static_cast<size_t>(at) + 3];
    file.erase(file.begin() + at, file.begin() + at + 2 + length);
  }
  return file;
}

TEST(PlainJpeg, SequentialOnesOfTheUsualColours) {
  for (const JpegKind& kind :
       {JpegKind{"4:2:0"}, JpegKind{"4:2:2", 2, 1}, JpegKind{"4:4:4", 1, 1}, JpegKind{"grey", 1, 1, JCS_GRAYSCALE},
        JpegKind{"restarts", 2, 2, JCS_YCbCr, {}, false, 3}})
    for (const int side : {1, 8, 17, 200}) EXPECT_TRUE(is_plain_jpeg(write_jpeg(kind, side, 30))) << kind.name << side;
  const Bytes file = write_jpeg({"4:2:0"}, 40, 30);
  EXPECT_TRUE(is_plain_jpeg(with_exif(file, 6, true))) << "who turns it is another question";
  EXPECT_TRUE(is_plain_jpeg(file + bytes_of("behind its end"))) << "no decoder looks there";
  EXPECT_TRUE(is_plain_jpeg(with(file, find(file, 0xC0) + 1, 0xC1))) << "extended";
}

TEST(PlainJpeg, NotThoseThatDecodersDifferAbout) {
  for (const JpegKind& kind :
       {JpegKind{"4:4:0", 1, 2}, JpegKind{"4:1:1", 4, 1}, JpegKind{"4:1:0", 4, 2}, JpegKind{"CMYK", 1, 1, JCS_CMYK},
        JpegKind{"YCCK", 2, 2, JCS_YCCK}, JpegKind{"progressive", 2, 2, JCS_YCbCr, {}, true},
        JpegKind{"not interleaved", 2, 2, JCS_YCbCr, {kLuma, kBlue, kRed}},
        JpegKind{"arithmetic", 2, 2, JCS_YCbCr, {}, false, 0, true}})
    EXPECT_FALSE(is_plain_jpeg(write_jpeg(kind, 40, 30))) << kind.name;
  const Bytes file = write_jpeg({"4:2:0"}, 40, 30);
  const int64_t frame = find(file, 0xC0);
  EXPECT_FALSE(is_plain_jpeg(with(file, frame + 4, 12))) << "bits a sample";
  EXPECT_FALSE(is_plain_jpeg(with(file, frame + 10, 'R'))) << "the first component";
  EXPECT_FALSE(is_plain_jpeg(with(file, frame + 13, 'G'))) << "the second";
  EXPECT_FALSE(is_plain_jpeg(with(file, frame + 16, 'B'))) << "the third";
  EXPECT_FALSE(is_plain_jpeg(with(file, frame + 14, 0x21))) << "chroma of its own sampling";
  EXPECT_FALSE(is_plain_jpeg(with(file, frame + 17, 0x21)));
  EXPECT_FALSE(is_plain_jpeg(with(with(file, frame + 5, 200), frame + 7, 200))) << "51240 x 51240 in 2 kB";
  EXPECT_FALSE(is_plain_jpeg(inserted(file, frame, Bytes(file.begin() + frame, file.begin() + frame + 19))))
      << "two frames";
  EXPECT_FALSE(is_plain_jpeg(without(file, 0xC4))) << "codes from nowhere";
  EXPECT_FALSE(is_plain_jpeg(without(file, 0xDB))) << "steps from nowhere";
  EXPECT_FALSE(is_plain_jpeg(with(file, find(file, 0xDA) + 4, 1))) << "a scan of one that lists three";
  const Bytes adobe = Bytes{0xFF, 0xEE, 0, 14} + bytes_of("Adobe") + Bytes{0, 100, 0, 0, 0, 0};
  EXPECT_TRUE(is_plain_jpeg(inserted(file, 2, adobe + Bytes{1}))) << "Adobe's YCbCr";
  EXPECT_FALSE(is_plain_jpeg(inserted(file, 2, adobe + Bytes{0}))) << "Adobe's RGB";
  const Bytes grey = write_jpeg({"grey", 1, 1, JCS_GRAYSCALE}, 40, 30);
  EXPECT_FALSE(is_plain_jpeg(with(grey, find(grey, 0xC0) + 11, 0x22))) << "grey of odd sampling";
}

TEST(PlainJpeg, NotThoseThatEndEarlyOrGoOn) {
  for (const JpegKind& kind : {JpegKind{"4:2:0"}, JpegKind{"restarts", 2, 2, JCS_YCbCr, {}, false, 3}}) {
    const Bytes file = write_jpeg(kind, 40, 30);
    for (size_t size = 0; size < file.size(); ++size)
      EXPECT_FALSE(is_plain_jpeg(std::span(file).first(size))) << kind.name << " of " << size << " bytes";
  }
  const Bytes file = write_jpeg({"4:2:0"}, 40, 30);
  const int64_t codes = find(file, 0xDA) + 14;
  for (const uint8_t marker : {0xD0, 0xDA, 0xC4, 0xDC, 0xE0, 0x01, 0xFF})
    EXPECT_FALSE(is_plain_jpeg(inserted(file, codes + 5, {0xFF, marker}))) << int{marker};
  EXPECT_TRUE(is_plain_jpeg(inserted(file, codes + 5, {0xFF, 0}))) << "a byte of codes";
  EXPECT_FALSE(is_plain_jpeg(inserted(file, 2, {0xFF, 0xDC, 0, 4, 0, 30}))) << "lines counted afterwards";
  EXPECT_FALSE(is_plain_jpeg(inserted(file, 2, {0xFF, 0xE0, 0, 1}))) << "a length below 2";
  EXPECT_FALSE(is_plain_jpeg(inserted(file, 2, {0, 0}))) << "bytes between segments";
}

// Nothing outside is read, which AddressSanitizer would tell; and what the CPU's decoder refuses, since it is not all
// there, never goes elsewhere.
TEST(PlainJpeg, OfDamagedFilesNoneIsPlainThatTheCpuFindsTooShort) {
  std::mt19937 random(7);
  const Bytes whole = write_jpeg({"4:2:0"}, 40, 30);
  Bytes pixels(1 << 22);
  int plain = 0, refused = 0;
  for (int i = 0; i < 2000; ++i) {
    RawSample sample;
    sample.bytes = whole;
    for (int k = 0; k < 3; ++k) sample.bytes[random() % whole.size()] = static_cast<uint8_t>(random());
    if (i % 2 == 0) sample.bytes.resize(random() % whole.size());
    sample.bytes.shrink_to_fit();
    std::string reason;
    try {
      decode(sample, {}, pixels, "x");
    } catch (const DataError& e) {
      reason = e.what();
    }
    refused += reason.empty() ? 0 : 1;
    if (!is_plain_jpeg(sample.bytes)) continue;
    ++plain;
    EXPECT_THAT(reason, Not(AnyOf(HasSubstr("ends before"), HasSubstr("too short"), HasSubstr("two different sizes"),
                                  HasSubstr("not a picture"))));
  }
  EXPECT_GT(plain, 300);
  EXPECT_GT(refused, 300);
}

}  // namespace
}  // namespace convolt::test
