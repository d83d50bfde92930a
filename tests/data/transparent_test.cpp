// What shows through transparent pixels, and of several pictures in a file the first.
#include <gmock/gmock.h>

#include <cmath>
#include <opencv2/imgcodecs.hpp>

#include "convolt/error.h"
#include "data/decode.h"
#include "gif_writer.h"
#include "test_files.h"

namespace convolt::test {
namespace {

using testing::HasSubstr;

// u8 [height, width, 3].
struct Shown {
  PictureSize size;
  Bytes pixels;
};

Shown show(const Bytes& file, const DecodeLimits& limits = {}) {
  RawSample sample;
  sample.bytes = file;
  Shown shown;
  shown.size = decoded_size(sample, limits);
  shown.pixels.resize(static_cast<size_t>(shown.size.bytes()));
  decode(sample, limits, shown.pixels, "sample");
  return shown;
}
std::string refusal_of(const Bytes& file) {
  try {
    show(file);
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

Bytes colours_of(const Bytes& indices) {
  Bytes rgb;
  for (const uint8_t index : indices) rgb.insert(rgb.end(), kGifColours[index], kGifColours[index] + 3);
  return rgb;
}

TEST(Gif, TheFirstPictureIsShown) {
  const Bytes indices{0, 1, 2, 3, 3, 2};
  const Shown shown = show(gif(3, 2, {{0, 0, 3, 2, indices}, {0, 0, 3, 2, Bytes(6, 1)}}));
  EXPECT_EQ(shown.size, (PictureSize{2, 3, 3}));
  EXPECT_EQ(shown.pixels, colours_of(indices));
}

TEST(Gif, InterlacedRowsFindTheirPlace) {
  Bytes rows, stored;
  for (uint8_t y = 0; y < 11; ++y) rows = rows + Bytes{static_cast<uint8_t>(y % 4), static_cast<uint8_t>(y / 4)};
  for (const size_t y : {0, 8, 4, 2, 6, 10, 1, 3, 5, 7, 9}) stored = stored + Bytes{rows[2 * y], rows[2 * y + 1]};
  EXPECT_EQ(show(gif(2, 11, {{0, 0, 2, 11, stored, true}})).pixels, colours_of(rows));
}

TEST(Gif, WhatAPictureDoesNotCoverIsTransparent) {
  const Bytes file = gif(3, 1, {{1, 0, 1, 1, {3}}});
  EXPECT_EQ(show(file).pixels, colours_of({0, 3, 0}));
  EXPECT_EQ(show(file, {.background = Background{1, 2, 3}}).pixels, (Bytes{1, 2, 3, 70, 80, 250, 1, 2, 3}));
  const Bytes with_hole = gif(3, 1, {{0, 0, 2, 1, {2, 3}, false, 2}});
  EXPECT_EQ(show(with_hole).pixels, colours_of({2, 3, 2}));
  EXPECT_EQ(show(with_hole, {.background = Background{9, 9, 9}}).pixels, (Bytes{9, 9, 9, 70, 80, 250, 9, 9, 9}));
}

TEST(Gif, BrokenOnesAreBadPictures) {
  const Bytes whole = gif(3, 2, {{0, 0, 3, 2, Bytes(6, 1)}});
  EXPECT_EQ(refusal_of(whole), "");
  for (size_t kept = 6; kept + 3 < whole.size(); ++kept)
    EXPECT_NE(refusal_of(Bytes(whole.begin(), whole.begin() + static_cast<int64_t>(kept))), "")
        << kept << " of " << whole.size();
  EXPECT_THAT(refusal_of(gif(3, 2, {})), HasSubstr("the GIF has no picture"));
  EXPECT_THAT(refusal_of(gif(30000, 3000, {{0, 0, 1, 1, {1}}})), HasSubstr("too short for the size"));
}

// A lossless WebP of one chunk as a frame of an animation.
Bytes chunk(const std::string& name, const Bytes& content) {
  return bytes_of(name) + little(static_cast<uint32_t>(content.size()), 4) + content + Bytes(content.size() % 2, 0);
}
Bytes lossless(const cv::Mat& picture) {
  Bytes file;
  cv::imencode(".webp", picture, file, {cv::IMWRITE_WEBP_QUALITY, 101});
  return file;
}
Bytes webp_frame(const cv::Mat& picture, uint32_t left, uint32_t top) {
  const Bytes file = lossless(picture);
  const auto width = static_cast<uint32_t>(picture.cols), height = static_cast<uint32_t>(picture.rows);
  const Bytes head = little(left / 2, 3) + little(top / 2, 3) + little(width - 1, 3) + little(height - 1, 3) +
                     little(40, 3) + Bytes{0};
  return chunk("ANMF", head + Bytes(file.begin() + 12, file.end()));
}

TEST(WebP, OfAnAnimationTheFirstPictureIsShown) {
  const cv::Mat first(2, 4, CV_8UC3, cv::Scalar(30, 20, 10)), second(2, 4, CV_8UC3, cv::Scalar(1, 2, 3));
  const Bytes body = bytes_of("WEBP") + chunk("VP8X", Bytes{0x12, 0, 0, 0} + little(3, 3) + little(3, 3)) +
                     chunk("ANIM", Bytes(6, 0)) + webp_frame(first, 0, 2) + webp_frame(second, 0, 0);
  const Bytes file = bytes_of("RIFF") + little(static_cast<uint32_t>(body.size()), 4) + body;
  Bytes expected(2 * 4 * 3, 0);
  for (int i = 0; i < 8; ++i) expected = expected + Bytes{10, 20, 30};
  EXPECT_EQ(show(file).pixels, expected);
  EXPECT_EQ(show(file, {.background = Background{7, 8, 9}}).pixels[0], 7);
  EXPECT_THAT(refusal_of(Bytes(file.begin(), file.begin() + 80)), HasSubstr("the WebP is broken"));
}

// Every alpha over every tenth level.
cv::Mat translucent(int type) {
  cv::Mat picture(256, 26, type);
  for (int alpha = 0; alpha < 256; ++alpha)
    for (int i = 0; i < 26; ++i) {
      const int level = 10 * i;
      if (picture.depth() == CV_8U)
        picture.at<cv::Vec4b>(alpha, i) = {static_cast<uint8_t>(level), static_cast<uint8_t>(255 - level), 5,
                                           static_cast<uint8_t>(alpha)};
      else
        picture.at<cv::Vec4w>(alpha, i) = {static_cast<uint16_t>(level * 257),
                                           static_cast<uint16_t>((255 - level) * 257), 5 * 257,
                                           static_cast<uint16_t>(alpha * 257)};
    }
  return picture;
}

TEST(Background, ShowsThroughByAlpha) {
  Bytes png, deep_png;
  cv::imencode(".png", translucent(CV_8UC4), png);
  cv::imencode(".png", translucent(CV_16UC4), deep_png);
  const Background behind{250, 100, 0};
  for (const Bytes& file : {png, deep_png, lossless(translucent(CV_8UC4))}) {
    const Shown shown = show(file, {.background = behind});
    ASSERT_EQ(shown.size, (PictureSize{256, 26, 3}));
    for (int alpha = 0; alpha < 256; ++alpha)
      for (int i = 0; i < 26; ++i) {
        const int own[] = {5, 255 - 10 * i, 10 * i};
        for (size_t c = 0; c < 3; ++c) {
          // Lossless WebP may change the colours of what is quite transparent.
          const double part = alpha / 255.0, expected = own[c] * part + behind[c] * (1 - part);
          EXPECT_EQ(shown.pixels[static_cast<size_t>(alpha * 26 + i) * 3 + c], std::lround(expected));
        }
      }
  }
  EXPECT_EQ(show(png).pixels[3 * (26 * 7 + 2) + 1], 255 - 20);  // without one: the pixels' own colours
}

TEST(Background, IsNotSeenWhereNothingIsTransparent) {
  Bytes png;
  cv::imencode(".png", cv::Mat(2, 2, CV_8UC1, cv::Scalar(77)), png);
  EXPECT_EQ(show(png, {.background = Background{1, 2, 3}}).pixels, Bytes(12, 77));
}

TEST(Pnm, LevelsAreOfTheWhiteThatItDeclares) {
  const Bytes file = bytes_of("P6 2 1 1000\n") + Bytes{0x03, 0xE8, 0x01, 0xF4, 0, 0, 0, 4, 0, 100, 0x02, 0xEE};
  EXPECT_EQ(show(file).pixels, (Bytes{255, 128, 0, 1, 26, 191}));
}

}  // namespace
}  // namespace convolt::test
