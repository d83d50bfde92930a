// What is decoded for one epoch gives the batch that the whole picture gives.
#include "data/view.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "augment/batch.h"
#include "augment/policy.h"
#include "exif.h"
#include "jpeg_writer.h"

namespace convolt::test {
namespace {

constexpr uint64_t kSeed = 3;

AugmentOptions options_of(AugmentOptions::Geometry geometry, float rotate) {
  AugmentOptions o;
  o.geometry = geometry;
  o.height = 40;
  o.width = 36;
  o.crop_padding = 7;
  o.scale = {0.1F, 1};
  o.hflip = o.vflip = 0.5F;
  o.rotate = rotate;
  o.contrast = 0.5F;
  return o;
}

AugmentSample whole_of(const RawSample& file, const AugmentOptions& o, uint32_t epoch) {
  AugmentSample sample;
  sample.picture.resize(1 << 18);
  const PictureSize size = decode(file, {}, sample.picture, "file");
  sample.picture.resize(static_cast<size_t>(size.bytes()));
  sample.record = make_record(o, size.height, size.width, 3, kSeed, epoch, 9);
  return sample;
}

AugmentSample part_of(const RawSample& file, const AugmentOptions& o, uint32_t epoch) {
  AugmentSample sample;
  sample.picture.resize(1 << 18);
  const View view = decode_view(file, o, {kSeed, epoch, 9}, {.full_decode = true}, sample.picture, "file");
  sample.picture.resize(static_cast<size_t>(view.bytes));  // the end, so that a read beyond it is found
  sample.record = view.record;
  return sample;
}

class ViewTest : public testing::TestWithParam<Device> {
protected:
  void SetUp() override {
    if (GetParam().is_cuda() && cuda_device_count() == 0) GTEST_SKIP() << cuda_unavailable_reason();
  }
  std::vector<double> show(const std::vector<AugmentSample>& samples, const AugmentOptions& o) const {
    AugmentOutput output{o.height, o.width, o.channels};
    output.fill = {0.2, 0.4, 0.6};
    output.interpolation = o.interpolation;
    output.border = o.border;
    return augmented(context_of(GetParam()), DType::f32, samples, output);
  }
  // Three epochs of a picture. How many showed a part of it?
  int expect_same(const RawSample& file, const AugmentOptions& o, const std::string& what) const {
    std::vector<AugmentSample> wholes, parts;
    int smaller = 0;
    for (uint32_t epoch = 0; epoch < 3; ++epoch) {
      wholes.push_back(whole_of(file, o, epoch));
      parts.push_back(part_of(file, o, epoch));
      smaller += parts.back().picture.size() < wholes.back().picture.size() ? 1 : 0;
    }
    EXPECT_TRUE(show(parts, o) == show(wholes, o)) << what;
    return smaller;
  }
};

TEST_P(ViewTest, APartShowsWhatTheWholePictureShows) {
  prepare_decoder();
  using Geometry = AugmentOptions::Geometry;
  using Border = AugmentOptions::Border;
  using Interpolation = AugmentOptions::Interpolation;
  int parts = 0;
  for (const int orientation : {1, 8}) {
    RawSample file;
    file.bytes = with_exif(write_jpeg({.name = ""}, 163, 201), orientation, false);
    for (const auto geometry : {Geometry::random_resized_crop, Geometry::crop_with_padding})
      for (const float rotate : {0.F, 40.F})
        for (const auto border : {Border::constant, Border::edge, Border::reflect})
          for (const auto interpolation : {Interpolation::nearest, Interpolation::bilinear, Interpolation::bicubic}) {
            AugmentOptions o = options_of(geometry, rotate);
            o.border = border;
            o.interpolation = interpolation;
            parts += expect_same(file, o, "rotate " + std::to_string(rotate));
          }
  }
  EXPECT_GT(parts, 50);  // of 108 random crops
}

// Pixels that a data set has in memory: the same record and bytes as decoded, without decoding.
TEST(ViewInPlace, IsWhatDecodingWrites) {
  std::vector<uint8_t> pixels(31 * 23 * 3);
  for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<uint8_t>(7 * i + i / 93);
  const AugmentOptions o = options_of(AugmentOptions::Geometry::random_resized_crop, 0);
  for (const int channels : {1, 3}) {
    RawSample sample{.height = 23, .width = 31, .channels = channels};
    sample.kept = std::span(pixels).first(static_cast<size_t>(31 * 23 * channels));
    for (uint32_t epoch = 0; epoch < 20; ++epoch) {
      const ViewKey key{kSeed, epoch, 9};
      std::vector<uint8_t> decoded(pixels.size()), copied(pixels.size());
      const View view = decode_view(sample, o, key, {}, decoded, "sample");
      PixelRows rows;
      const std::optional<View> in_place = view_in_place(sample, o, key, {}, rows, "sample");
      ASSERT_TRUE(in_place);
      copy_rows(rows, copied.data());
      EXPECT_EQ(rows.count * rows.bytes, view.bytes);
      EXPECT_TRUE(copied == decoded);
      EXPECT_EQ(in_place->bytes, view.bytes);
      EXPECT_EQ(in_place->record.offset, view.record.offset);
      EXPECT_EQ(in_place->record.stride, view.record.stride);
      EXPECT_TRUE(std::ranges::equal(in_place->record.map, view.record.map));
      EXPECT_TRUE(std::ranges::equal(in_place->record.box, view.record.box));
    }
  }
}

TEST(ViewInPlace, IsNotWhereSomethingIsLeftToDo) {
  const AugmentOptions o = options_of(AugmentOptions::Geometry::random_resized_crop, 0);
  std::vector<uint8_t> pixels(12);
  RawSample sample{.height = 2, .width = 2, .channels = 3};
  PixelRows rows;
  sample.bytes = pixels;  // they end with the sample
  EXPECT_FALSE(view_in_place(sample, o, {}, {}, rows, "sample"));
  sample.kept = pixels;
  EXPECT_TRUE(view_in_place(sample, o, {}, {}, rows, "sample"));
  EXPECT_FALSE(view_in_place(sample, o, {}, {.max_side = 1}, rows, "sample"));
  sample.width = 3;
  try {
    view_in_place(sample, o, {}, {}, rows, "sample");
    ADD_FAILURE() << "12 bytes are no 2 x 3 pixels";
  } catch (const DataError& error) {
    EXPECT_STREQ(error.what(), "sample: the sample has 12 bytes of pixels: expected 2 x 3 x 3");
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, ViewTest, testing::Values(Device::cpu(), Device::cuda()),
                         [](const auto& param) { return param.param.is_cuda() ? "cuda" : "cpu"; });

}  // namespace
}  // namespace convolt::test
