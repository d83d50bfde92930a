#include "data/picture_header.h"

#include <gmock/gmock.h>

#include <cstring>
#include <opencv2/imgcodecs.hpp>

#include "convolt/error.h"
#include "core/philox.h"
#include "data/sources.h"
#include "exif.h"
#include "test_files.h"

namespace convolt::test {
namespace {

using testing::HasSubstr;

Bytes encode(const std::string& extension, int width, int height, int type) {
  const cv::Mat picture(height, width, type, cv::Scalar(10, 100, 200, 255));
  Bytes bytes;
  cv::imencode(extension, picture, bytes);
  return bytes;
}

struct Made {
  std::string extension;
  int type;
  PictureFormat format;
  int channels;
};

class MadePicture : public testing::TestWithParam<Made> {};

TEST_P(MadePicture, HeaderIsRead) {
  const Made made = GetParam();
  for (const auto& [width, height] : {std::pair{1, 1}, {7, 5}, {300, 2}, {2, 300}}) {
    const Bytes bytes = encode(made.extension, width, height, made.type);
    const PictureHeader header = read_picture_header(bytes);
    EXPECT_EQ(header.format, made.format);
    EXPECT_EQ(header.width, width);
    EXPECT_EQ(header.height, height);
    EXPECT_EQ(header.channels, made.channels);
    EXPECT_EQ(header.orientation, 1);
  }
}

// Every prefix, and every file with one byte changed, gives a header or a DataError; sanitizers watch the reads.
TEST_P(MadePicture, SurvivesCutsAndChanges) {
  const Bytes bytes = encode(GetParam().extension, 9, 4, GetParam().type);
  int refused = 0;
  const auto try_one = [&](const Bytes& changed) {
    try {
      const PictureHeader header = read_picture_header(changed);
      EXPECT_GE(header.width, 1);
      EXPECT_LE(header.width, kMaxPictureSide);
      EXPECT_GE(header.height, 1);
      EXPECT_LE(header.height, kMaxPictureSide);
    } catch (const DataError&) {
      ++refused;
    }
  };
  for (size_t n = 0; n < std::min<size_t>(bytes.size(), 700); ++n) {
    try_one(Bytes(bytes.begin(), bytes.begin() + static_cast<int64_t>(n)));
    for (const int value : {0x00, 0x7F, 0x80, 0xFF}) {
      Bytes changed = bytes;
      changed[n] = static_cast<uint8_t>(value);
      try_one(changed);
    }
  }
  EXPECT_GT(refused, 10);
}

INSTANTIATE_TEST_SUITE_P(
    Formats, MadePicture,
    testing::Values(Made{".jpg", CV_8UC3, PictureFormat::jpeg, 3}, Made{".jpg", CV_8UC1, PictureFormat::jpeg, 1},
                    Made{".png", CV_8UC1, PictureFormat::png, 1}, Made{".png", CV_8UC3, PictureFormat::png, 3},
                    Made{".png", CV_8UC4, PictureFormat::png, 4}, Made{".png", CV_16UC3, PictureFormat::png, 3},
                    Made{".bmp", CV_8UC3, PictureFormat::bmp, 3}, Made{".bmp", CV_8UC1, PictureFormat::bmp, 1},
                    Made{".webp", CV_8UC3, PictureFormat::webp, 3}, Made{".tiff", CV_8UC3, PictureFormat::tiff, 3},
                    Made{".tiff", CV_8UC1, PictureFormat::tiff, 1}, Made{".ppm", CV_8UC3, PictureFormat::pnm, 3},
                    Made{".pgm", CV_8UC1, PictureFormat::pnm, 1}));

TEST(PictureHeader, LiteralPnm) {
  const PictureHeader header = read_picture_header(bytes_of("P1 # two\n# lines\n 3\t2 1 0 1 0 1 0"));
  EXPECT_EQ(header.width, 3);
  EXPECT_EQ(header.height, 2);
  EXPECT_THAT(message_of<DataError>([] { read_picture_header(bytes_of("P5 2 2 255\nabc")); }),
              HasSubstr("ends before its picture does"));
  EXPECT_EQ(read_picture_header(bytes_of("P5 2 2 255\nabcd")).width, 2);
  EXPECT_THAT(message_of<DataError>([] { read_picture_header(bytes_of("P6 99999999999 1 255\n")); }),
              HasSubstr("too large"));
  EXPECT_THAT(message_of<DataError>([] { read_picture_header(bytes_of("P6 x")); }), HasSubstr("not a number"));
  EXPECT_THAT(message_of<DataError>([] { read_picture_header(bytes_of("P6 #" + std::string(9000, 'c'))); }),
              HasSubstr("longer than 4096"));
}

TEST(PictureHeader, BmpOfAnotherOrderOfColours) {
  const auto bmp = [](const Bytes& masks) {
    return bytes_of("BM") + Bytes(8, 0) +
           Bytes{66, 0, 0, 0, 40, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 32, 0, 3, 0, 0, 0} + Bytes(20, 0) + masks +
           Bytes(4, 7);
  };
  EXPECT_EQ(read_picture_header(bmp({0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0, 0})).channels, 4);
  EXPECT_THAT(message_of<DataError>([&] {
                read_picture_header(bmp({255, 0, 0, 0, 0, 255, 0, 0, 0, 0, 255, 0}));
              }),
              HasSubstr("another order than blue, green, red"));
}

TEST(PictureHeader, LiteralTopDownBmp) {
  Bytes bmp = bytes_of("BM") + Bytes(12, 0) + Bytes{40, 0, 0, 0, 2, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 1, 0, 24, 0} +
              Bytes(24, 0);
  bmp[10] = 54;
  const Bytes row(8, 1);
  EXPECT_EQ(read_picture_header(bmp + row).height, 1);
  EXPECT_THAT(message_of<DataError>([&] { read_picture_header(bmp); }), HasSubstr("ends before its picture does"));
}

TEST(PictureHeader, WhatIsRefused) {
  const auto reason = [](const Bytes& bytes) { return message_of<DataError>([&] { read_picture_header(bytes); }); };
  EXPECT_THAT(reason({}), HasSubstr("not a picture"));
  EXPECT_THAT(reason(bytes_of("hello, this is a text")), HasSubstr("not a picture"));
  EXPECT_THAT(reason(bytes_of("GIF89a\1\0\1\0")), HasSubstr("ends within its header"));
  Bytes png = encode(".png", 3, 3, CV_8UC3);
  png[16] = 0x7F;  // a width of 2 billion
  EXPECT_THAT(reason(png), HasSubstr("impossible size"));
  EXPECT_THAT(reason(bytes_of("RIFF\0\0\0\0WEBPVP8X\x0A\0\0\0") + Bytes(10, 2)), HasSubstr("not a picture"));
}

TEST(PictureHeader, OfAnExtendedWebpIsItsCanvas) {
  for (const uint8_t flags : {16, 18}) {  // with alpha, and animated too
    const Bytes webp = bytes_of("RIFF____WEBPVP8X") + Bytes{10, 0, 0, 0, flags, 0, 0, 0, 4, 0, 0, 4, 0, 0};
    const PictureHeader header = read_picture_header(webp);
    EXPECT_EQ(header.width, 5);
    EXPECT_EQ(header.channels, 4);
  }
}

// A screen of 2 x 3 with a table of 2 colours, a comment, and a picture of 4 x 1 at (1, 1).
TEST(PictureHeader, OfAGifIsTheScreenAndItsFirstPicture) {
  const Bytes screen = bytes_of("GIF89a") + Bytes{2, 0, 3, 0, 0x80, 0, 0} + Bytes(6, 9);
  const Bytes comment{0x21, 0xFE, 2, 'h', 'i', 1, '!', 0};
  const PictureHeader header = read_picture_header(screen + comment + Bytes{0x2C, 1, 0, 1, 0, 4, 0, 1, 0});
  EXPECT_EQ(header.format, PictureFormat::gif);
  EXPECT_EQ(header.width, 5);
  EXPECT_EQ(header.height, 3);
  const auto reason = [&](const Bytes& rest) {
    return message_of<DataError>([&] { read_picture_header(screen + rest); });
  };
  EXPECT_THAT(reason(comment), HasSubstr("ends within its header"));
  EXPECT_THAT(reason({0x3B}), HasSubstr("the GIF has no picture"));
  EXPECT_THAT(reason({0x00}), HasSubstr("a block of an unknown kind"));
}

TEST(PictureHeader, AllExifOrientationsInBothByteOrders) {
  const Bytes jpeg = encode(".jpg", 6, 4, CV_8UC3);
  for (int orientation = 1; orientation <= 8; ++orientation)
    for (const bool big : {false, true}) {
      const PictureHeader header = read_picture_header(with_exif(jpeg, orientation, big));
      EXPECT_EQ(header.orientation, orientation);
      EXPECT_EQ(header.width, orientation >= 5 ? 4 : 6);
      EXPECT_EQ(header.height, orientation >= 5 ? 6 : 4);
      EXPECT_EQ(header.stored_width(), 6);
      EXPECT_EQ(header.stored_height(), 4);
    }
  EXPECT_EQ(read_picture_header(with_exif(jpeg, 0, false)).orientation, 1);
  EXPECT_EQ(read_picture_header(with_exif(jpeg, 9, true)).orientation, 1);
}

// A frame header behind 200 kB of other segments is found without reading them.
TEST(PictureHeader, DeepFrameHeaderNeedsFewReads) {
  const TemporaryFolder folder;
  Bytes segment{0xFF, 0xE2, 0xFF, 0xFF};
  segment.resize(2 + 65535, 0xFF);
  const Bytes jpeg = encode(".jpg", 6, 4, CV_8UC3);
  const Bytes deep = Bytes{0xFF, 0xD8} + segment + segment + segment + Bytes(jpeg.begin() + 2, jpeg.end());
  const InputFile file(folder.write("deep.jpg", deep));
  size_t bytes_read = 0;
  PictureBytes bytes([&](int64_t offset, std::span<uint8_t> into) {
    const size_t got = file.read(offset, into);
    bytes_read += got;
    return got;
  });
  EXPECT_EQ(read_picture_header(bytes).width, 6);
  EXPECT_LT(bytes_read, 6 * 4096U);
}

// Random bytes behind each magic number.
TEST(PictureHeader, SurvivesNoise) {
  const std::vector<Bytes> magics{
      {0xFF, 0xD8, 0xFF},
      {0xFF, 0xD8, 0xFF, 0xE1, 0, 60, 'E', 'x', 'i', 'f', 0, 0, 'I', 'I', 42, 0, 8, 0, 0, 0},
      {0x89, 'P', 'N', 'G', 13, 10, 26, 10},
      bytes_of("BM"),
      bytes_of("P6 "),
      {'I', 'I', 42, 0, 8, 0, 0, 0},
      {'M', 'M', 0, 42, 0, 0, 0, 8},
      bytes_of("RIFF1234WEBPVP8 "),
      bytes_of("RIFF1234WEBPVP8L")};
  int refused = 0;
  for (uint64_t i = 0; i < 2000; ++i)
    for (const Bytes& magic : magics) {
      Bytes bytes = magic;
      for (uint64_t k = 0; k < 64; ++k) bytes.push_back(static_cast<uint8_t>(philox(i, k, magic.size()).v[0]));
      try {
        EXPECT_GE(read_picture_header(bytes).width, 1);
      } catch (const DataError&) {
        ++refused;
      }
    }
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace convolt::test
