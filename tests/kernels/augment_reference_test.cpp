// Pictures, outputs and filters of any size, and all that is done to a sample at once, against the reference.
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/augment_fixture.h"

namespace convolt {
extern bool phases_backwards;
extern int64_t past_caches_from;
}  // namespace convolt

namespace convolt::test {
namespace {

// Pictures and outputs of every awkward size: one pixel, one row, more than a tile of 128 pixels wide, more than 1024
// source columns under a tile, more than 128 source rows under the filter.
TEST_P(AugmentTest, ResizesOfAnySizeAgreeWithTheReference) {
  const int sizes[][4] = {{1, 1, 1, 1},     {1, 1, 3, 2},    {1, 9, 4, 4},    {9, 1, 4, 4},     {7, 5, 2, 131},
                          {2, 300, 2, 257}, {3, 2600, 2, 3}, {400, 40, 2, 2}, {5, 1500, 1, 140}};
  for (const auto& [height, width, out_height, out_width] : sizes)
    for (const int channels : {1, 3}) {
      AugmentSample sample = golden_sample(width, height, channels);
      const AugmentOutput output{out_height, out_width, 3};
      stretch(sample.record, 0, 0, width, height, output);
      expect_reference({sample}, output, std::to_string(width) + "x" + std::to_string(height));
    }
}

// Filters of 1 to 12 source pixels a side, most of them inside the picture, which the CPU sums in vectors of 4 and of
// 8, and from 9 on one by one.
TEST_P(AugmentTest, FiltersOfAnyWidthAgreeWithTheReference) {
  for (const auto interpolation : {AugmentOptions::Interpolation::nearest, AugmentOptions::Interpolation::bilinear,
                                   AugmentOptions::Interpolation::bicubic})
    for (const double scale : {0.7, 1.7, 2.6, 3.9, 5.6})
      for (const int channels : {1, 3})
        for (const double angle : {0.0, 0.3}) {
          AugmentSample sample = golden_sample(80, 60, channels);
          SampleRecord& r = sample.record;
          const double cosine = scale * std::cos(angle), sine = scale * std::sin(angle);
          const double map[6] = {cosine, -sine, 9.0137, sine, cosine, -0.9907};
          for (int k = 0; k < 6; ++k) r.map[k] = static_cast<float>(map[k]);
          r.axis_aligned = angle == 0 ? 1 : 0;
          AugmentOutput output{9, 14, channels};
          output.interpolation = interpolation;
          expect_reference({sample}, output,
                           fmt::format("{} channels, interpolation {}, scale {}, angle {}", channels,
                                       static_cast<int>(interpolation), scale, angle));
        }
}

// The CPU finds the columns of a tile once for the rows of a picture, and has room for those of four tiles: here are
// rows of seven, and pictures that follow one another with other maps, also in the next launch.
TEST_P(AugmentTest, WideRowsOfSeveralPicturesAgreeWithTheReference) {
  const AugmentOutput output{3, 800, 3};
  std::vector<AugmentSample> samples;
  for (const auto& [left, right] : {std::pair{0, 500}, {100, 420}, {7, 493}}) {
    samples.push_back(golden_sample(500, 6, 3));
    stretch(samples.back().record, left, 1, right, 5, output);
  }
  expect_reference(samples, output, "in turn");
  std::ranges::reverse(samples);
  expect_reference(samples, output, "the other way round");
}

// Rows that begin and end at any place: what is stored past the caches goes there in eights where it may.
TEST_P(AugmentTest, SameBitsPastTheCaches) {
  for (const int width : {5, 16, 21, 131, 144}) {
    const AugmentOutput output{4, width, 3};
    AugmentSample sample = golden_sample(90, 80, 3);
    stretch(sample.record, 3, 2, 88, 77, output);
    const auto kept = show({sample, sample}, output);
    past_caches_from = 0;
    EXPECT_EQ(kept, show({sample, sample}, output)) << width;
    past_caches_from = -1;
  }
}

// A programme works on bytes, and they are those of the picture where nothing is resampled; lines of them end at any
// place.
TEST_P(AugmentTest, ProgrammesBeginWithTheBytesOfThePicture) {
  for (const int channels : {1, 3})
    for (const int width : {1, 5, 21, 131}) {
      const auto draws = random_values(static_cast<size_t>(2 * width * channels), 5, 0, 256);
      std::vector<uint8_t> picture(draws.size());
      std::ranges::transform(draws, picture.begin(), [](double v) { return static_cast<uint8_t>(v); });
      AugmentSample sample = plain_sample(picture, 2, width, channels);
      sample.record.programme.count = 1;
      sample.record.programme.steps[0] = {PictureOp::invert};
      std::vector<int> inverted;
      for (const uint8_t v : picture) inverted.push_back(255 - v);
      expect_near(show({sample}, {2, width, channels}), stored(inverted), 1e-6, 0, std::to_string(width) + " wide");
    }
}
// Where pictures are resampled, with the nearest level.
TEST_P(AugmentTest, ProgrammesBeginWithTheNearestLevels) {
  for (const int channels : {1, 3}) {
    const AugmentOutput output{9, 21, channels};
    AugmentSample sample = golden_sample(31, 17, channels);
    stretch(sample.record, 0, 0, 31, 17, output);
    std::vector<double> inverted = augment_reference(sample, output);
    for (double& v : inverted) v = 1 - v;
    sample.record.programme.count = 1;
    sample.record.programme.steps[0] = {PictureOp::invert};
    expect_near(show({sample}, output), inverted, 0.5 / 255 + 1e-5 + epsilon(dtype()), 0, "inverted");
  }
}

// More rows and more columns than a block has threads: every part of the mean counts.
TEST_P(AugmentTest, ContrastOfALargeOutputAgreesWithTheReference) {
  AugmentSample sample = golden_sample(60, 50, 3);
  const AugmentOutput output{150, 140, 3};
  stretch(sample.record, 0, 0, 60, 50, output);
  sample.record.contrast = 0.2F;
  expect_reference({sample}, output, "contrast");
}

// What the policy can make, all at once: pictures of many sizes, both maps, windows, colours, erasing.
std::vector<AugmentSample> mixed_samples(const AugmentOutput& output) {
  std::vector<AugmentSample> samples;
  for (int i = 0; i < 10; ++i) {
    const auto draw = random_values(12, 100 + static_cast<uint64_t>(i), 0, 1);
    const int height = 3 + static_cast<int>(draw[0] * 40), width = 3 + static_cast<int>(draw[1] * 40);
    AugmentSample sample = golden_sample(width, height, i % 3 == 0 ? 1 : 3);
    SampleRecord& r = sample.record;
    stretch(r, i % 2, i % 3, width - i % 2, height, output);
    if (i % 2 == 1) {
      const double angle = draw[2] * 2 * std::numbers::pi, zoom = 0.4 + draw[3];
      const double cosine = std::cos(angle) / zoom, sine = std::sin(angle) / zoom;
      const double map[6] = {r.map[0] * cosine, -r.map[0] * sine,  width * 0.6,
                             r.map[4] * sine,   r.map[4] * cosine, height * draw[4]};
      for (int k = 0; k < 6; ++k) r.map[k] = static_cast<float>(map[k]);
      r.axis_aligned = 0;
    }
    if (i >= 4) r.brightness = static_cast<float>(0.6 + draw[5]);
    if (i >= 5) r.contrast = static_cast<float>(0.4 + draw[6]);
    if (i >= 6) r.saturation = static_cast<float>(2 * draw[7]);
    if (i >= 7) r.hue = static_cast<float>(draw[8] - 0.5);
    r.to_grey = i == 9 ? 1 : 0;
    const int32_t erase[4] = {i, 2, 3, i % 4};
    std::copy(erase, erase + 4, r.erase);
    samples.push_back(std::move(sample));
  }
  samples.emplace_back();
  return samples;
}

TEST_P(AugmentTest, EverythingTogetherAgreesWithTheReference) {
  for (const int channels : {1, 3}) {
    AugmentOutput output{13, 17, channels};
    output.mean = {0.485, 0.456, 0.406};
    output.std = {0.229, 0.224, 0.225};
    output.fill = {0.1, 0.6, 0.9};
    for (const auto interpolation : {AugmentOptions::Interpolation::nearest, AugmentOptions::Interpolation::bilinear,
                                     AugmentOptions::Interpolation::bicubic})
      for (const auto border :
           {AugmentOptions::Border::constant, AugmentOptions::Border::edge, AugmentOptions::Border::reflect}) {
        output.interpolation = interpolation;
        output.border = border;
        auto samples = mixed_samples(output);
        for (AugmentSample& sample : samples) {  // away from where float and double would take different neighbours
          sample.record.map[2] += 0.0137F;
          sample.record.map[5] += 0.0093F;
        }
        expect_reference(samples, output,
                         fmt::format("{} channels, interpolation {}, border {}", channels,
                                     static_cast<int>(interpolation), static_cast<int>(border)));
      }
  }
}

TEST_P(AugmentTest, SameBitsAgainAndWithPhasesBackwards) {
  const AugmentOutput output{13, 150, 3};
  const auto first = show(mixed_samples(output), output);
  EXPECT_EQ(first, show(mixed_samples(output), output));
  phases_backwards = true;
  EXPECT_EQ(first, show(mixed_samples(output), output));
  phases_backwards = false;
}

// A contrast of 1 needs no mean: the same bits whether a neighbour has one or not.
TEST_P(AugmentTest, ContrastOfANeighbourChangesNothing) {
  const AugmentOutput output{4, 6, 3};
  AugmentSample plain = golden_sample(9, 8, 3), other = golden_sample(12, 7, 3);
  const auto alone = show({plain}, output);
  other.record.contrast = 0.5F;
  auto both = show({plain, other}, output);
  both.resize(alone.size());
  EXPECT_EQ(alone, both);
}

}  // namespace
}  // namespace convolt::test
