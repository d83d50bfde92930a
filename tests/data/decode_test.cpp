#include "data/decode.h"

#include <gmock/gmock.h>

#include <array>
#include <opencv2/imgcodecs.hpp>

#include "convolt/error.h"
#include "exif.h"
#include "test_files.h"

namespace convolt::test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

struct Decoded {
  PictureSize size;
  Bytes pixels;
};

Decoded decode_bytes(const Bytes& file, const DecodeLimits& limits = {}) {
  prepare_decoder();
  RawSample sample;
  sample.bytes = file;
  Decoded result;
  result.pixels.resize(1 << 22);
  result.size = decode(sample, limits, result.pixels, "sample");
  result.pixels.resize(static_cast<size_t>(result.size.bytes()));
  return result;
}

std::string decode_refusal(const Bytes& file, const DecodeLimits& limits = {}) {
  return message_of<DataError>([&] { decode_bytes(file, limits); });
}

Bytes encode(const std::string& extension, const cv::Mat& picture, const std::vector<int>& options = {}) {
  Bytes bytes;
  cv::imencode(extension, picture, bytes, options);
  return bytes;
}

// Smooth, so that JPEG keeps it; BGR.
cv::Mat ramp(int width, int height) {
  cv::Mat picture(height, width, CV_8UC3);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      picture.at<cv::Vec3b>(y, x) =
          cv::Vec3b(static_cast<uint8_t>(40 + 120 * x / width), static_cast<uint8_t>(200 - 120 * y / height), 90);
  return picture;
}

TEST(Decode, LosslessFormatsAreExactRgb) {
  const cv::Mat picture = ramp(5, 3);
  Bytes expected;
  for (int y = 0; y < 3; ++y)
    for (int x = 0; x < 5; ++x)
      for (int c = 2; c >= 0; --c) expected.push_back(picture.at<cv::Vec3b>(y, x)[c]);
  for (const char* extension : {".png", ".bmp", ".tiff", ".ppm"}) {
    const Decoded decoded = decode_bytes(encode(extension, picture));
    EXPECT_EQ(decoded.size, (PictureSize{3, 5, 3})) << extension;
    EXPECT_EQ(decoded.pixels, expected) << extension;
  }
}

TEST(Decode, GreyAlphaAndSixteenBitsBecomeRgb) {
  EXPECT_EQ(decode_bytes(encode(".png", cv::Mat(1, 1, CV_8UC1, cv::Scalar(77)))).pixels, (Bytes{77, 77, 77}));
  EXPECT_EQ(decode_bytes(encode(".png", cv::Mat(1, 1, CV_8UC4, cv::Scalar(1, 2, 3, 9)))).pixels, (Bytes{3, 2, 1}));
  EXPECT_EQ(decode_bytes(encode(".png", cv::Mat(1, 1, CV_16UC3, cv::Scalar(256, 512, 769)))).pixels, (Bytes{3, 2, 1}));
  EXPECT_EQ(decode_bytes(encode(".png", cv::Mat(1, 1, CV_16UC1, cv::Scalar(0x1234)))).pixels,
            (Bytes{0x12, 0x12, 0x12}));
  EXPECT_EQ(decode_bytes(encode(".jpg", cv::Mat(1, 1, CV_8UC1, cv::Scalar(77)))).pixels, (Bytes{77, 77, 77}));
  EXPECT_EQ(decode_bytes(ppm(1, 1, {10, 20, 30})).pixels, (Bytes{10, 20, 30}));
}

// 3 x 2 blocks of 24 pixels with their own grey value, so that a JPEG tells where each went.
TEST(Decode, AllExifOrientationsAreUpright) {
  constexpr int kBlock = 24;
  const std::array<std::array<int, 3>, 2> upright{{{10, 50, 90}, {130, 170, 210}}};
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const bool turned = orientation >= 5;
    const int height = turned ? 3 : 2, width = turned ? 2 : 3;
    cv::Mat stored(height * kBlock, width * kBlock, CV_8UC3);
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) {
        // Where the stored block (x, y) is seen: Exif 2.3, "0th row, 0th column" of tag 274.
        const std::array<std::array<int, 2>, 9> seen{
            {{}, {x, y}, {2 - x, y}, {2 - x, 1 - y}, {x, 1 - y}, {y, x}, {2 - y, x}, {2 - y, 1 - x}, {y, 1 - x}}};
        const auto [column, row] = seen[static_cast<size_t>(orientation)];
        stored(cv::Rect(x * kBlock, y * kBlock, kBlock, kBlock)) =
            cv::Scalar::all(upright[static_cast<size_t>(row)][static_cast<size_t>(column)]);
      }
    const Bytes file = with_exif(encode(".jpg", stored), orientation, false);
    for (const int max_side : {72, 36, 24}) {  // as it is, by the DCT, by averaging
      const Decoded decoded = decode_bytes(file, {.max_side = max_side});
      const int block = max_side / 3;
      ASSERT_EQ(decoded.size, (PictureSize{2 * block, max_side, 3}));
      for (int row = 0; row < 2; ++row)
        for (int column = 0; column < 3; ++column) {
          const auto at = static_cast<size_t>(((row * block + block / 2) * max_side + column * block + block / 2) * 3);
          EXPECT_NEAR(decoded.pixels[at], upright[static_cast<size_t>(row)][static_cast<size_t>(column)], 12)
              << "orientation " << orientation << " block " << column << "," << row << " side " << max_side;
        }
    }
  }
}

TEST(Decode, ShrinkFactorIsTheSmallestThatFits) {
  EXPECT_EQ(shrink_factor(1, 100, {.max_side = 100}), 1);
  EXPECT_EQ(shrink_factor(101, 7, {.max_side = 100}), 2);
  EXPECT_EQ(shrink_factor(200, 7, {.max_side = 100}), 2);
  EXPECT_EQ(shrink_factor(201, 7, {.max_side = 100}), 3);
  EXPECT_EQ(shrink_factor(7, 1, {.max_side = 100}), 1);
  // A strip keeps the pixels of its shorter side.
  const DecodeLimits kept{.max_side = 100, .min_side = 10};
  EXPECT_EQ(shrink_factor(500, 1, kept), 1);
  EXPECT_EQ(shrink_factor(25, 500, kept), 2);
  EXPECT_EQ(shrink_factor(50, 500, kept), 5);
  EXPECT_EQ(shrink_factor(500, 500, kept), 5);
}

TEST(Decode, ShrunkPicturesHaveTheSizeThatTheHeaderTells) {
  const cv::Mat picture = ramp(101, 67);
  for (const char* extension : {".jpg", ".png", ".bmp"})
    for (int factor = 1; factor <= 12; ++factor) {
      const DecodeLimits limits{.max_side = (101 + factor - 1) / factor};
      const Bytes file = encode(extension, picture);
      const Decoded decoded = decode_bytes(file, limits);
      const int f = shrink_factor(101, 101, limits);
      EXPECT_EQ(decoded.size, (PictureSize{(67 + f - 1) / f, (101 + f - 1) / f, 3})) << extension << factor;
      EXPECT_EQ(decoded.size, decoded_size(read_picture_header(file), limits));
      const size_t middle =
          static_cast<size_t>((decoded.size.height / 2 * decoded.size.width + decoded.size.width / 2) * 3);
      EXPECT_NEAR(decoded.pixels[middle], 90, 8) << extension << factor;
      EXPECT_NEAR(decoded.pixels[middle + 2], 100, 14) << extension << factor;
    }
}

TEST(Decode, AveragingIsExact) {
  Bytes pixels;
  for (int i = 0; i < 4 * 2; ++i) pixels.insert(pixels.end(), 3, static_cast<uint8_t>(i * 10));
  EXPECT_EQ(decode_bytes(ppm(4, 2, pixels), {.max_side = 2}).pixels, (Bytes{25, 25, 25, 45, 45, 45}));
}

TEST(Decode, RawPixelsKeepTheirChannels) {
  const RawSample sample{{1, 3, 5, 7}, 2, 2, 1};
  Bytes target(4);
  EXPECT_EQ(decode(sample, {}, target, "raw"), (PictureSize{2, 2, 1}));
  EXPECT_EQ(target, sample.bytes);
  EXPECT_EQ(decode(sample, {.max_side = 1}, target, "raw"), (PictureSize{1, 1, 1}));
  EXPECT_EQ(target[0], 4);
  EXPECT_THAT(message_of<DataError>([&] {
                decode(RawSample{{1, 2, 3}, 2, 2, 1}, {}, target, "raw");
              }),
              HasSubstr("raw: the sample has 3 bytes"));
}

TEST(Decode, HugeHeadersAreRefusedBeforeDecoding) {
  EXPECT_THAT(decode_refusal(encode(".png", ramp(100, 100)), {.max_pixels = 9999}),
              HasSubstr("sample: the picture declares 100 x 100 pixels: expected at most 9999"));
  Bytes png = encode(".png", ramp(4, 4));
  png[18] = 0x30, png[22] = 0x30;  // 12292 x 12292 in a hundred bytes
  EXPECT_THAT(message_of<DataError>([&] { decode_bytes(png); }), StartsWith("sample: "));
}

TEST(Decode, NoRoomIsAnError) {
  RawSample sample;
  sample.bytes = encode(".png", ramp(10, 10));
  Bytes target(299);
  EXPECT_THAT(message_of<DataError>([&] { decode(sample, {}, target, "s"); }),
              HasSubstr("needs 300 bytes and there is room for 299"));
}

// Files cut anywhere before their last bytes are refused, as Pillow does; only a missing end marker is forgiven.
TEST(Decode, CutFilesAreBadPictures) {
  const cv::Mat noise(64, 64, CV_8UC3);
  cv::theRNG().state = 7;
  cv::randu(noise, 0, 256);
  const std::vector<std::pair<std::string, std::vector<int>>> kinds{{".jpg", {}},
                                                                    {".jpg", {cv::IMWRITE_JPEG_PROGRESSIVE, 1}},
                                                                    {".jpg", {cv::IMWRITE_JPEG_RST_INTERVAL, 2}},
                                                                    {".png", {}},
                                                                    {".bmp", {}},
                                                                    {".webp", {}},
                                                                    {".ppm", {}}};
  for (const auto& [extension, options] : kinds) {
    const Bytes whole = encode(extension, noise, options);
    EXPECT_EQ(decode_bytes(whole).size.width, 64) << extension;
    for (const double part : {0.1, 0.3, 0.5, 0.8, 0.95, 0.99}) {
      const auto kept = static_cast<int64_t>(static_cast<double>(whole.size()) * part);
      EXPECT_THAT(decode_refusal(Bytes(whole.begin(), whole.begin() + kept)), StartsWith("sample: "))
          << extension << part;
    }
  }
  const Bytes jpeg = encode(".jpg", noise);
  EXPECT_EQ(decode_bytes(Bytes(jpeg.begin(), jpeg.end() - 2)).pixels, decode_bytes(jpeg).pixels);
}

TEST(Decode, ChangedPngDataIsABadPicture) {
  Bytes png = encode(".png", ramp(64, 64));
  png[png.size() / 2] ^= 0x40;
  EXPECT_THAT(decode_refusal(png), HasSubstr("the PNG is broken"));
}

TEST(Decode, ATimeLimitOfNothingStopsAJpeg) {
  EXPECT_THAT(decode_refusal(encode(".jpg", ramp(64, 64)), {.max_seconds = -1}), HasSubstr("takes too long"));
}

}  // namespace
}  // namespace convolt::test
