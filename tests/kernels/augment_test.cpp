// What the augment kernel makes of small pictures, by hand and beside Pillow and torchvision.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/augment_fixture.h"

namespace convolt::test {
namespace {

TEST_P(AugmentTest, ScaleOneCopiesExactly) {
  for (const int channels : {1, 3}) {
    const AugmentSample sample = golden_sample(150, 5, channels);
    const std::vector<int> pixels(sample.picture.begin(), sample.picture.end());
    expect_near(show({sample}, {5, 150, channels}), stored(pixels), 0, 0, "copy");
  }
}

TEST_P(AugmentTest, Mirrors) {
  AugmentSample sample = plain_sample({1, 2, 3, 4, 5, 6}, 2, 3, 1);
  SampleRecord& r = sample.record;
  r.map[0] = -1;
  r.map[2] = 3;
  expect_near(show({sample}, {2, 3, 1}), stored({3, 2, 1, 6, 5, 4}), 0, 0, "horizontally");
  r.map[4] = -1;
  r.map[5] = 2;
  expect_near(show({sample}, {2, 3, 1}), stored({6, 5, 4, 3, 2, 1}), 0, 0, "both ways");
}

// A view moves the output's window first, and mirrors what it shows.
TEST_P(AugmentTest, ViewsOfAPicture) {
  const AugmentSample sample = plain_sample({10, 20, 30, 40, 50, 60, 70, 80, 90}, 3, 3, 1);
  AugmentOutput output{3, 3, 1};
  output.border = AugmentOptions::Border::reflect;
  const auto view = [&](int x, int y, int mirrored) {
    StepInput input;
    input.view_x = x;
    input.view_y = y;
    input.view_mirrored = mirrored;
    return augmented(ctx(), dtype(), {sample}, output, input);
  };
  expect_near(view(0, 0, 1), stored({30, 20, 10, 60, 50, 40, 90, 80, 70}), 0, 0, "mirrored");
  expect_near(view(-1, -1, 0), stored({50, 40, 50, 20, 10, 20, 50, 40, 50}), 0, 0, "to the lower right");
  expect_near(view(1, 0, 0), stored({20, 30, 20, 50, 60, 50, 80, 90, 80}), 0, 0, "to the left");
  expect_near(view(1, 1, 1), stored({50, 60, 50, 80, 90, 80, 50, 60, 50}), 0, 0, "to the upper left, mirrored");
}

// 4 x 3 pixels, in crops of 2 x 2: of the picture, then of its mirror image. The record's part begins at column 1.
TEST_P(AugmentTest, CropsAtTheEdgesOfAPicture) {
  AugmentSample sample = plain_sample({10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120}, 3, 4, 1);
  sample.record.map[2] = 1;
  const auto crop = [&](int column, int row, int of_mirror_image, int x = 0, int mirrored = 0) {
    StepInput input;
    input.view_column = column;
    input.view_row = row;
    input.view_of_mirror_image = of_mirror_image;
    input.view_x = x;
    input.view_mirrored = mirrored;
    return augmented(ctx(), dtype(), {sample}, {2, 2, 1}, input);
  };
  expect_near(crop(0, 0, 0), stored({20, 30, 60, 70}), 0, 0, "as the record says");
  expect_near(crop(-1, -1, 0), stored({10, 20, 50, 60}), 0, 0, "upper left");
  expect_near(crop(1, -1, 0), stored({30, 40, 70, 80}), 0, 0, "upper right");
  expect_near(crop(-1, 1, 0), stored({50, 60, 90, 100}), 0, 0, "lower left");
  expect_near(crop(1, 1, 0), stored({70, 80, 110, 120}), 0, 0, "lower right");
  expect_near(crop(-1, 1, 1), stored({80, 70, 120, 110}), 0, 0, "lower left of the mirror image");
  expect_near(crop(1, 0, 1), stored({20, 10, 60, 50}), 0, 0, "right of the mirror image");
  expect_near(crop(-1, 0, 0, 1, 1), stored({30, 20, 70, 60}), 0, 0, "left, moved and mirrored");
  sample.record.map[2] = 0;  // the part at column 0, of the mirror image too
  expect_near(crop(0, 0, 1), stored({40, 30, 80, 70}), 0, 0, "of the mirror image");
}

// 40 x 31 pixels resized to 26 x 20 and cropped are crops of the resized picture.
TEST_P(AugmentTest, CropsOfAResizedPicture) {
  const AugmentSample whole = golden_sample(40, 31, 3);
  AugmentSample resized = whole, cropped = whole;
  const AugmentOutput of_resized{20, 26, 3};
  stretch(resized.record, 0, 0, 40, 31, of_resized);
  cropped.record = resized.record;
  const std::vector<double> picture = augment_reference(resized, of_resized);
  for (const int column : {-1, 1})
    for (const int row : {-1, 1})
      for (const bool mirror_image : {false, true}) {
        StepInput input;
        input.view_column = column;
        input.view_row = row;
        input.view_of_mirror_image = mirror_image ? 1 : 0;
        std::vector<double> expected;
        for (int y = row < 0 ? 0 : 20 - 15; y < (row < 0 ? 15 : 20); ++y)
          for (int x = column < 0 ? 0 : 26 - 15; x < (column < 0 ? 15 : 26); ++x)
            for (int c = 0; c < 3; ++c)
              expected.push_back(picture[static_cast<size_t>((y * 26 + (mirror_image ? 25 - x : x)) * 3 + c)]);
        const double tolerance = augment_tolerance(dtype());
        expect_near(augmented(ctx(), dtype(), {cropped}, {15, 15, 3}, input), expected, tolerance, tolerance, "crop");
      }
}

// A turned picture, which the general way of sampling shows: the view of an output is that output, moved and mirrored.
TEST_P(AugmentTest, ViewsOfATurnedPicture) {
  AugmentSample sample = golden_sample(40, 30, 3);
  SampleRecord& r = sample.record;
  const float map[6] = {0.8F, 0.5F, 2, -0.5F, 0.8F, 9};
  std::copy(map, map + 6, r.map);
  r.axis_aligned = 0;
  const AugmentOutput output{6, 10, 3};
  StepInput input;
  input.view_x = 2;
  input.view_y = 1;
  input.view_mirrored = 1;
  const auto plain = show({sample}, {7, 12, 3}), seen = augmented(ctx(), dtype(), {sample}, output, input);
  for (size_t y = 0; y < 6; ++y)
    for (size_t x = 0; x < 10; ++x)
      for (size_t c = 0; c < 3; ++c)
        EXPECT_NEAR(seen[(y * 10 + x) * 3 + c], plain[((y + 1) * 12 + 9 - x + 2) * 3 + c], augment_tolerance(dtype()));
}

// The window begins one pixel above and two to the left of the picture.
TEST_P(AugmentTest, PixelsOutsideAreFill) {
  AugmentSample sample = plain_sample({10, 20, 30, 40, 50, 60}, 2, 3, 1);
  sample.record.map[2] = -2;
  sample.record.map[5] = -1;
  AugmentOutput output{3, 4, 1};
  output.fill[0] = 0.25;
  std::vector<double> expected = stored({0, 0, 0, 0, 0, 0, 10, 20, 0, 0, 40, 50});
  for (const size_t i : {0, 1, 2, 3, 4, 5, 8, 9}) expected[i] = 0.25;
  expect_near(show({sample}, output), expected, 0, 0, "crop with padding");
}

TEST_P(AugmentTest, FarOutsideIsFill) {
  for (const float far : {-1e3F, 3e7F, -1e12F})
    for (const int aligned : {0, 1})
      for (const float scale : {1.F, 3.3F}) {
        AugmentSample sample = golden_sample(20, 12, 3);
        SampleRecord& r = sample.record;
        r.map[0] = r.map[4] = scale;
        r.map[2] = far;
        r.map[5] = 3;
        r.axis_aligned = aligned;
        AugmentOutput output{2, 9, 1};
        output.fill[0] = 0.25;
        expect_near(show({sample}, output), std::vector<double>(18, 0.25), 0, 0, "far");
      }
}

// Centres fall on 0, 1 and 2: the window holds its first edge and not its last, and the filter is cut at both.
TEST_P(AugmentTest, TheEdgeOfTheWindow) {
  AugmentSample sample = plain_sample({10, 20}, 1, 2, 1);
  sample.record.map[2] = -0.5F;
  AugmentOutput output{1, 3, 1};
  output.fill[0] = 0.5;
  expect_near(show({sample}, output), {10 / 255.0, 15 / 255.0, 0.5}, 1e-6, 2 * epsilon(dtype()), "edge");
}

TEST_P(AugmentTest, FillIsAColourAndASampleWithoutPictureIsFill) {
  AugmentSample grey = plain_sample({255}, 1, 1, 1);
  grey.record.map[2] = -1;
  AugmentOutput output{1, 2, 3};
  output.fill = {0.25, 0.5, 0.75};
  output.mean = {0.25, 0, 0};
  output.std = {1, 0.5, 1};
  expect_near(show({grey, AugmentSample{}}, output), {0, 1, 0.75, 0.75, 2, 1, 0, 1, 0.75, 0, 1, 0.75}, 0, 0, "fill");
}

TEST_P(AugmentTest, GreyIsRepeatedAndRgbBecomesLuma) {
  expect_near(show({plain_sample({0, 51}, 1, 2, 1)}, {1, 2, 3}), stored({0, 0, 0, 51, 51, 51}), 0, 0, "grey to RGB");
  expect_near(show({plain_sample({255, 0, 0, 0, 255, 0, 0, 0, 255}, 1, 3, 3)}, {1, 3, 1}), {0.2989, 0.587, 0.114}, 1e-6,
              2 * epsilon(dtype()), "RGB to grey");
}

TEST_P(AugmentTest, NormalisesThenErases) {
  AugmentSample sample = plain_sample({0, 51, 102, 153, 204, 255}, 2, 3, 1);
  const int32_t erase[4] = {1, 0, 2, 1};
  std::copy(erase, erase + 4, sample.record.erase);
  AugmentOutput output{2, 3, 1};
  output.mean[0] = 0.2;
  output.std[0] = 0.5;
  expect_near(show({sample}, output), {-0.4, 0, 0, 0.8, 1.2, 1.6}, 1e-6, 2 * epsilon(dtype()), "normalised");
}

// Pillow rounds to whole levels between its two passes and after them: up to half a level each time. Measured in f32:
// 0.98 of a level at most, 0.26 in the mean.
TEST_P(AugmentTest, ResizesAsPillow) {
  double sum = 0;
  size_t count = 0;
  for (const GoldenCase& c : golden_cases("resize")) {
    AugmentSample sample = golden_sample(c["width"], c["height"], c["channels"]);
    const AugmentOutput output{c["out_height"], c["out_width"], c["channels"]};
    stretch(sample.record, c["left"], c["top"], c["right"], c["bottom"], output);
    std::vector<double> levels = show({sample}, output);
    for (size_t i = 0; i < levels.size(); ++i) {
      levels[i] *= 255;
      sum += std::fabs(levels[i] - c.values[i]);
    }
    count += levels.size();
    expect_near(levels, c.values, 1.001, 2 * epsilon(dtype()), c.name);
  }
  EXPECT_LE(sum / static_cast<double>(count), 0.3 + 128 * epsilon(dtype()));
}

TEST_P(AugmentTest, ColoursAsTorchvision) {
  for (const GoldenCase& c : golden_cases("colour")) {
    AugmentSample sample = golden_sample(c["width"], c["height"], c["channels"]);
    sample.record.brightness = c.real("brightness");
    sample.record.contrast = c.real("contrast");
    sample.record.saturation = c.real("saturation");
    sample.record.hue = c.real("hue");
    sample.record.to_grey = c["to_grey"];
    expect_near(show({sample}, {c["out_height"], c["out_width"], c["channels"]}), c.values, 1e-5, 2 * epsilon(dtype()),
                c.name);
  }
}

TEST_P(AugmentTest, FiltersAsTorchvision) {
  for (const GoldenCase& c : golden_cases("filter")) {
    AugmentSample sample = golden_sample(c["width"], c["height"], c["channels"]);
    AugmentOutput output{c["out_height"], c["out_width"], c["channels"]};
    output.interpolation =
        c["bicubic"] ? AugmentOptions::Interpolation::bicubic : AugmentOptions::Interpolation::nearest;
    stretch(sample.record, 0, 0, c["width"], c["height"], output);
    expect_near(show({sample}, output), c.values, 2e-5, 2 * epsilon(dtype()), c.name);
  }
}

TEST_P(AugmentTest, BordersAsTorchvision) {
  for (const GoldenCase& c : golden_cases("border")) {
    AugmentSample sample = golden_sample(c["width"], c["height"], c["channels"]);
    AugmentOutput output{c["out_height"], c["out_width"], c["channels"]};
    output.border = c["reflect"] ? AugmentOptions::Border::reflect : AugmentOptions::Border::edge;
    sample.record.map[2] = sample.record.map[5] = static_cast<float>(-c["pad"]);
    expect_near(show({sample}, output), c.values, 1e-6, 2 * epsilon(dtype()), c.name);
    sample.record.axis_aligned = 0;
    expect_near(show({sample}, output), c.values, 1e-6, 2 * epsilon(dtype()), c.name + " by the general path");
  }
}

// What a mirroring border may read of so wide a picture is more than is blended at a time.
TEST_P(AugmentTest, ReflectsAWidePicture) {
  AugmentSample sample = golden_sample(1300, 4, 3);
  sample.record.map[2] = 1230.25F;
  AugmentOutput output{4, 120, 3};
  output.border = AugmentOptions::Border::reflect;
  expect_reference({sample}, output, "wide");
}

// A single pixel has nothing to mirror: it is everywhere.
TEST_P(AugmentTest, AnyBorderOfOnePixelIsThatPixel) {
  AugmentSample sample = plain_sample({51}, 1, 1, 1);
  sample.record.map[2] = sample.record.map[5] = -7;
  AugmentOutput output{9, 20, 1};
  for (const auto border : {AugmentOptions::Border::edge, AugmentOptions::Border::reflect}) {
    output.border = border;
    expect_near(show({sample}, output), stored(std::vector<int>(180, 51)), 0, 0, "one pixel");
  }
}

TEST_P(AugmentTest, RefusesShapesAndMissingScratch) {
  AugmentArgs args;
  args.y = Tensor{dtype(), {2, 4, 4, 2}, nullptr};
  EXPECT_THROW(augment(Stream{}, args), ShapeError);
  args.y.shape = Shape{2, 4, 4, 3};
  args.contrast = true;
  EXPECT_THROW(augment(Stream{}, args), UsageError);
}

INSTANTIATE_OP_TEST(AugmentTest);

}  // namespace
}  // namespace convolt::test
