#include "augment/policy.h"

#include <gmock/gmock.h>

#include <cmath>
#include <map>
#include <numbers>
#include <set>

#include "core/philox.h"

namespace convolt::test {
namespace {

using Geometry = AugmentOptions::Geometry;
using testing::ElementsAre;

constexpr uint64_t kSeed = 7;
constexpr int kSamples = 4000;

AugmentOptions sized(Geometry geometry, int height, int width) {
  AugmentOptions options;
  options.geometry = geometry;
  options.height = height;
  options.width = width;
  return options;
}

SampleRecord record_of(const AugmentOptions& options, int height, int width, uint64_t sample = 0, uint32_t epoch = 0) {
  return make_record(options, height, width, 3, kSeed, epoch, sample);
}

std::vector<float> numbers(const SampleRecord& r) {
  std::vector<float> all{static_cast<float>(r.height),
                         static_cast<float>(r.width),
                         static_cast<float>(r.channels),
                         static_cast<float>(r.axis_aligned),
                         r.brightness,
                         r.contrast,
                         r.saturation};
  all.insert(all.end(), r.map, r.map + 6);
  all.insert(all.end(), r.box, r.box + 4);
  for (const int32_t e : r.erase) all.push_back(static_cast<float>(e));
  all.push_back(r.hue);
  all.push_back(static_cast<float>(r.to_grey));
  all.push_back(static_cast<float>(r.stride));
  return all;
}

AugmentOptions everything() {
  AugmentOptions options;
  options.hflip = options.vflip = 0.5F;
  options.rotate = 20;
  options.translate = 0.1F;
  options.zoom = {0.8F, 1.3F};
  options.shear = {10, 5};
  options.brightness = options.contrast = options.saturation = 0.4F;
  options.hue = 0.3F;
  options.grayscale = 0.4F;
  options.erase = 0.5F;
  return options;
}

TEST(Policy, TheSameArgumentsGiveTheSameRecord) {
  const auto first = numbers(make_record(everything(), 300, 200, 3, 1, 2, 3));
  EXPECT_EQ(first, numbers(make_record(everything(), 300, 200, 3, 1, 2, 3)));
  EXPECT_NE(first, numbers(make_record(everything(), 300, 200, 3, 2, 2, 3)));
  EXPECT_NE(first, numbers(make_record(everything(), 300, 200, 3, 1, 3, 3)));
  EXPECT_NE(first, numbers(make_record(everything(), 300, 200, 3, 1, 2, 4)));
}

TEST(Policy, APictureOfNoSizeGivesNoPicture) {
  for (const SampleRecord& r : {record_of(everything(), 0, 5), record_of(everything(), 5, 0)})
    EXPECT_EQ(numbers(r), numbers(SampleRecord{}));
}

TEST(Policy, NoneStretchesThePicture) {
  const SampleRecord same = record_of(sized(Geometry::none, 28, 30), 28, 30);
  EXPECT_THAT(same.map, ElementsAre(1, 0, 0, 0, 1, 0));
  const SampleRecord r = record_of(sized(Geometry::none, 10, 20), 15, 10);
  EXPECT_THAT(r.map, ElementsAre(0.5F, 0, 0, 0, 1.5F, 0));
  EXPECT_THAT(r.box, ElementsAre(0, 0, 10, 15));
  EXPECT_EQ(r.axis_aligned, 1);
}

// 500 x 375 becomes int(256 * 500 / 375) = 341 x 256; (341 - 224) / 2 = 58.5 rounds to the even 58, (256 - 224) / 2
// = 16.
TEST(Policy, ResizeCentreCropHasTorchvisionsIntegers) {
  const SampleRecord r = record_of(sized(Geometry::resize_centre_crop, 224, 224), 375, 500);
  const float x = 500.F / 341, y = 375.F / 256;
  EXPECT_THAT(r.map, ElementsAre(x, 0, testing::FloatEq(58 * x), 0, y, testing::FloatEq(16 * y)));
  EXPECT_THAT(r.box, ElementsAre(0, 0, 500, 375));
}

// Resized to 20 x 10 and centred on 25 x 13: torchvision pads (25 - 20) // 2 = 2 on the left and (13 - 10) // 2 = 1
// above.
TEST(Policy, ResizeCentreCropPadsASmallPicture) {
  auto options = sized(Geometry::resize_centre_crop, 13, 25);
  options.resize = 10;
  const SampleRecord r = record_of(options, 40, 80);
  EXPECT_THAT(r.map, ElementsAre(4, 0, -8, 0, 4, -4));
}

TEST(Policy, RandomResizedCropStaysInItsRanges) {
  const auto options = sized(Geometry::random_resized_crop, 224, 224);
  double smallest = 1, largest = 0, narrowest = 9, widest = 0, left = 0;
  float right = 0, bottom = 0;
  for (uint64_t sample = 0; sample < kSamples; ++sample) {
    const SampleRecord r = record_of(options, 300, 400, sample);
    const double width = r.box[2] - r.box[0], height = r.box[3] - r.box[1], area = width * height / (300 * 400);
    EXPECT_FLOAT_EQ(r.map[0] * 224, static_cast<float>(width));
    EXPECT_FLOAT_EQ(r.map[4] * 224, static_cast<float>(height));
    EXPECT_EQ(r.map[2], r.box[0]);
    EXPECT_EQ(r.map[5], r.box[1]);
    ASSERT_TRUE(r.box[0] >= 0 && r.box[1] >= 0 && r.box[2] <= 400 && r.box[3] <= 300);
    smallest = std::min(smallest, area);
    largest = std::max(largest, area);
    narrowest = std::min(narrowest, width / height);
    widest = std::max(widest, width / height);
    right = std::max(right, width < 200 ? r.box[2] : 0);
    bottom = std::max(bottom, height < 150 ? r.box[3] : 0);
    if (width < 400) left += r.box[0] / (400 - width) / kSamples;
  }
  // Whole pixels move the edges of the ranges a little.
  EXPECT_GE(smallest, 0.078);
  EXPECT_LT(smallest, 0.1);
  EXPECT_GT(largest, 0.95);
  EXPECT_NEAR(narrowest, 0.75, 0.02);
  EXPECT_NEAR(widest, 4.0 / 3, 0.03);
  EXPECT_NEAR(left, 0.5, 0.03);
  EXPECT_EQ(right, 400);
  EXPECT_EQ(bottom, 300);
}

// No window of ratio 3/4..4/3 and at least 0.08 of the area fits: the centre of the largest one that is allowed.
TEST(Policy, RandomResizedCropFallsBackToTheCentre) {
  auto options = sized(Geometry::random_resized_crop, 8, 8);
  options.scale = {0.9F, 1.F};
  EXPECT_THAT(record_of(options, 30, 301).box, ElementsAre(130, 0, 170, 30));
  EXPECT_THAT(record_of(options, 301, 30).box, ElementsAre(0, 130, 30, 170));
  EXPECT_THAT(record_of(options, 1, 9).box, ElementsAre(4, 0, 5, 1));
  EXPECT_THAT(record_of(options, 1, 1).box, ElementsAre(0, 0, 1, 1));
  options.scale = {0.95F, 1.F};
  options.ratio = {1, 1};
  EXPECT_THAT(record_of(options, 33, 30).box, ElementsAre(0, 1, 30, 31));
}

TEST(Policy, CropWithPaddingReachesEveryPlaceAlike) {
  auto options = sized(Geometry::crop_with_padding, 32, 32);
  options.crop_padding = 4;
  std::map<std::pair<float, float>, int> places;
  for (uint64_t sample = 0; sample < 8100; ++sample) {
    const SampleRecord r = record_of(options, 32, 32, sample);
    EXPECT_EQ(r.map[0], 1);
    EXPECT_EQ(r.map[4], 1);
    EXPECT_THAT(r.box, ElementsAre(0, 0, 32, 32));
    ++places[{r.map[2], r.map[5]}];
  }
  EXPECT_EQ(places.size(), 81U);
  for (const auto& [place, count] : places) {
    EXPECT_LE(std::max(std::fabs(place.first), std::fabs(place.second)), 4);
    EXPECT_NEAR(count, 100, 50);
  }
}

// As torchvision's pad_if_needed: a picture smaller than the window lies anywhere inside it.
TEST(Policy, CropWithPaddingOfASmallPictureKeepsItWhole) {
  auto options = sized(Geometry::crop_with_padding, 10, 10);
  std::set<float> lefts, tops, padded;
  for (uint64_t sample = 0; sample < 500; ++sample) {
    const SampleRecord r = record_of(options, 12, 7, sample);
    lefts.insert(r.map[2]);
    tops.insert(r.map[5]);
    options.crop_padding = 1;  // 7 + 2 x 1 pixels lack one, which is added on both sides
    padded.insert(record_of(options, 12, 7, sample).map[2]);
    options.crop_padding = 0;
  }
  EXPECT_THAT(padded, ElementsAre(-2, -1));
  EXPECT_THAT(lefts, ElementsAre(-3, -2, -1, 0));
  EXPECT_THAT(tops, ElementsAre(0, 1, 2));
}

TEST(Policy, FlipsMirrorTheOutput) {
  auto options = sized(Geometry::none, 10, 20);
  options.hflip = 1;
  EXPECT_THAT(record_of(options, 10, 20).map, ElementsAre(-1, 0, 20, 0, 1, 0));
  options.vflip = 1;
  EXPECT_THAT(record_of(options, 20, 40).map, ElementsAre(-2, 0, 40, 0, -2, 20));
}

TEST(Policy, FlipsHaveTheirProbabilityAndDocumentedNumbers) {
  auto options = sized(Geometry::none, 4, 4);
  options.hflip = 0.3F;
  options.vflip = 0.6F;
  int horizontal = 0, vertical = 0;
  for (uint64_t sample = 0; sample < kSamples; ++sample) {
    const SampleRecord r = record_of(options, 4, 4, sample, 5);
    horizontal += r.map[0] < 0;
    vertical += r.map[4] < 0;
    EXPECT_EQ(r.map[0] < 0, uniform(random4(kSeed, RandomUse::augment, 5, sample, 16).v[0]) < 0.3F);
    EXPECT_EQ(r.map[4] < 0, uniform(random4(kSeed, RandomUse::augment, 5, sample, 32).v[0]) < 0.6F);
  }
  EXPECT_NEAR(horizontal, 0.3 * kSamples, 4 * std::sqrt(kSamples * 0.21));
  EXPECT_NEAR(vertical, 0.6 * kSamples, 4 * std::sqrt(kSamples * 0.24));
}

// The same pictures in every even epoch, all others in every odd one; about half in each.
TEST(Policy, AlternatingFlipsTakeTurns) {
  auto options = sized(Geometry::none, 4, 4);
  options.hflip = 0.5F;
  options.alternating_flip = true;
  int mirrored = 0;
  for (uint64_t sample = 0; sample < kSamples; ++sample) {
    const auto flipped = [&](uint32_t epoch) { return record_of(options, 4, 4, sample, epoch).map[0] < 0; };
    mirrored += flipped(0) ? 1 : 0;
    EXPECT_EQ(flipped(0), uniform(random4(kSeed, RandomUse::augment, 0, sample, 16).v[0]) < 0.5F);
    EXPECT_NE(flipped(1), flipped(0));
    EXPECT_EQ(flipped(2), flipped(0));
    EXPECT_NE(flipped(7), flipped(0));
  }
  EXPECT_NEAR(mirrored, 0.5 * kSamples, 4 * std::sqrt(kSamples * 0.25));
  options.hflip = 0;
  EXPECT_GT(record_of(options, 4, 4, 1, 0).map[0], 0);
  EXPECT_LT(record_of(options, 4, 4, 1, 1).map[0], 0);
}

TEST(Policy, RotationTurnsAboutTheCentre) {
  auto options = sized(Geometry::none, 30, 20);
  options.rotate = 40;
  double least = 90, most = -90;
  for (uint64_t sample = 0; sample < 1000; ++sample) {
    const SampleRecord r = record_of(options, 30, 20, sample);
    EXPECT_EQ(r.axis_aligned, 0);
    const double angle = std::atan2(r.map[3], r.map[4]) * 180 / std::numbers::pi;
    EXPECT_NEAR(std::hypot(r.map[3], r.map[4]), 1, 1e-6);
    EXPECT_FLOAT_EQ(r.map[0], r.map[4]);
    EXPECT_FLOAT_EQ(r.map[1], -r.map[3]);
    EXPECT_NEAR(r.map[0] * 10 + r.map[1] * 15 + r.map[2], 10, 1e-5);
    EXPECT_NEAR(r.map[3] * 10 + r.map[4] * 15 + r.map[5], 15, 1e-5);
    least = std::min(least, angle);
    most = std::max(most, angle);
  }
  EXPECT_NEAR(least, -40, 0.5);
  EXPECT_NEAR(most, 40, 0.5);
}

TEST(Policy, RotationAndZoomHaveTheirDocumentedNumbers) {
  auto options = sized(Geometry::none, 10, 10);
  options.rotate = 40;
  options.zoom = {0.5F, 1.5F};
  for (uint64_t sample = 0; sample < 20; ++sample) {
    const SampleRecord r = record_of(options, 10, 10, sample, 9);
    const auto number = [&](uint32_t operation) {
      return uniform(random4(kSeed, RandomUse::augment, 9, sample, operation * 16).v[0]);
    };
    EXPECT_NEAR(std::atan2(r.map[3], r.map[4]) * 180 / std::numbers::pi, -40 + 80 * number(3), 1e-3);
    EXPECT_NEAR(1 / std::hypot(r.map[3], r.map[4]), 0.5F + number(5), 1e-5);
  }
}

// Turned after it is mirrored: a source point of a mirrored picture is found by turning back, then mirroring.
TEST(Policy, RotationFollowsTheFlipAndTheCrop) {
  auto options = sized(Geometry::none, 10, 10);
  options.rotate = 30;
  const SampleRecord turned = record_of(options, 20, 20);
  options.hflip = 1;
  const SampleRecord both = record_of(options, 20, 20);
  EXPECT_FLOAT_EQ(both.map[0], -turned.map[0]);
  EXPECT_FLOAT_EQ(both.map[1], -turned.map[1]);
  EXPECT_FLOAT_EQ(both.map[2], 20 - turned.map[2]);
  for (int i = 3; i < 6; ++i) EXPECT_EQ(both.map[i], turned.map[i]);
}

TEST(Policy, ZoomEnlargesAndTranslationMovesWholePixels) {
  auto options = sized(Geometry::none, 40, 20);
  options.zoom = {2, 2};
  EXPECT_THAT(record_of(options, 40, 20).map, ElementsAre(0.5F, 0, 5, 0, 0.5F, 10));
  options.zoom = {1, 1};
  options.translate = 0.1F;
  std::set<float> xs, ys;
  for (uint64_t sample = 0; sample < 500; ++sample) {
    const SampleRecord r = record_of(options, 40, 20, sample);
    EXPECT_EQ(r.axis_aligned, 1);
    xs.insert(r.map[2]);
    ys.insert(r.map[5]);
  }
  EXPECT_THAT(xs, ElementsAre(-2, -1, 0, 1, 2));
  EXPECT_THAT(ys, ElementsAre(-4, -3, -2, -1, 0, 1, 2, 3, 4));
}

TEST(Policy, ColourFactorsFillTheirRange) {
  AugmentOptions options = sized(Geometry::none, 4, 4);
  options.brightness = 0.4F;
  options.contrast = 1.5F;  // factors from 0, not from -0.5
  double least = 9, most = 0, mean = 0, contrast_least = 9, contrast_most = 0;
  for (uint64_t sample = 0; sample < kSamples; ++sample) {
    const SampleRecord r = record_of(options, 4, 4, sample);
    EXPECT_EQ(r.saturation, 1);
    mean += r.brightness / kSamples;
    least = std::min(least, double{r.brightness});
    most = std::max(most, double{r.brightness});
    contrast_least = std::min(contrast_least, double{r.contrast});
    contrast_most = std::max(contrast_most, double{r.contrast});
  }
  EXPECT_NEAR(least, 0.6, 0.01);
  EXPECT_NEAR(most, 1.4, 0.01);
  EXPECT_NEAR(mean, 1, 0.02);
  EXPECT_NEAR(contrast_least, 0, 0.01);
  EXPECT_NEAR(contrast_most, 2.5, 0.01);
}

TEST(Policy, EachColourFactorHasItsDocumentedNumber) {
  AugmentOptions options = sized(Geometry::none, 4, 4);
  options.brightness = options.contrast = options.saturation = 0.5F;
  for (uint64_t sample = 0; sample < 20; ++sample) {
    const SampleRecord r = record_of(options, 4, 4, sample, 9);
    const auto factor = [&](uint32_t operation) {
      return 0.5F + uniform(random4(kSeed, RandomUse::augment, 9, sample, operation * 16).v[0]);
    };
    EXPECT_FLOAT_EQ(r.brightness, factor(6));
    EXPECT_FLOAT_EQ(r.contrast, factor(7));
    EXPECT_FLOAT_EQ(r.saturation, factor(8));
  }
}

TEST(Policy, ShearHueAndGreyHaveTheirDocumentedNumbers) {
  AugmentOptions options = sized(Geometry::none, 10, 10);
  options.shear = {30, 20};
  options.hue = 0.5F;
  options.grayscale = 0.25F;
  int grey = 0;
  for (uint64_t sample = 0; sample < 400; ++sample) {
    const SampleRecord r = record_of(options, 10, 10, sample, 9);
    const auto number = [&](uint32_t operation, size_t i = 0) {
      return uniform(random4(kSeed, RandomUse::augment, 9, sample, operation * 16).v[i]);
    };
    const double tan_x = std::tan((-30 + 60 * number(11)) * std::numbers::pi / 180);
    const double tan_y = std::tan((-20 + 40 * number(11, 1)) * std::numbers::pi / 180);
    EXPECT_NEAR(r.map[1], tan_x, 1e-5);
    EXPECT_NEAR(r.map[3], tan_y, 1e-5);
    EXPECT_NEAR(r.map[0], 1 + tan_x * tan_y, 1e-5);
    EXPECT_NEAR(r.map[4], 1, 1e-5);
    EXPECT_FLOAT_EQ(r.hue, -0.5F + number(12));
    EXPECT_EQ(r.to_grey, number(13) < 0.25F ? 1 : 0);
    grey += r.to_grey;
  }
  EXPECT_NEAR(grey, 100, 40);
}

TEST(Policy, ErasingHasItsProbabilityAreaAndRatio) {
  AugmentOptions options = sized(Geometry::none, 100, 80);
  options.erase = 0.25F;
  int erased = 0, right = 0, bottom = 0;
  for (uint64_t sample = 0; sample < kSamples; ++sample) {
    const auto& e = record_of(options, 100, 80, sample).erase;
    if (e[2] == 0) continue;
    ++erased;
    right = std::max(right, e[0] + e[2]);
    bottom = std::max(bottom, e[1] + e[3]);
    const double area = e[2] * e[3] / 8000.0, ratio = static_cast<double>(e[3]) / e[2];
    ASSERT_TRUE(e[0] >= 0 && e[1] >= 0 && e[0] + e[2] <= 80 && e[1] + e[3] <= 100);
    EXPECT_TRUE(area > 0.018 && area < 0.34) << area;
    EXPECT_TRUE(ratio > 0.28 && ratio < 3.6) << ratio;
  }
  EXPECT_EQ(right, 80);
  EXPECT_EQ(bottom, 100);
  EXPECT_NEAR(erased, 0.25 * kSamples, 4 * std::sqrt(kSamples * 0.19));
}

// A rectangle that does not fit is drawn anew, up to ten times.
TEST(Policy, ErasingOfProbabilityOneErasesAlways) {
  AugmentOptions options = sized(Geometry::none, 100, 80);
  options.erase = 1;
  for (uint64_t sample = 0; sample < 500; ++sample) EXPECT_GT(record_of(options, 100, 80, sample).erase[2], 0);
}

// Nothing but the whole of a single pixel could be erased, which torchvision refuses.
TEST(Policy, ErasingOfOnePixelErasesNothing) {
  AugmentOptions options = sized(Geometry::none, 1, 1);
  options.erase = 1;
  for (uint64_t sample = 0; sample < 100; ++sample) {
    const SampleRecord r = record_of(options, 5, 5, sample);
    EXPECT_EQ(int64_t{r.erase[2]} * r.erase[3], 0);
  }
}

// Each operation has numbers of its own: with it or without it, what the others do is the same.
TEST(Policy, SwitchingOneOperationOnChangesNoOther) {
  const auto with = [&](auto change) {
    AugmentOptions options = everything();
    change(options);
    std::vector<std::vector<float>> records;
    for (uint64_t sample = 0; sample < 50; ++sample) records.push_back(numbers(record_of(options, 90, 70, sample)));
    return records;
  };
  const auto all = with([](AugmentOptions&) {});
  // The places in numbers() that may change.
  const auto expect_only = [&](std::set<size_t> places, auto change) {
    const auto changed = with(change);
    for (size_t sample = 0; sample < all.size(); ++sample)
      for (size_t i = 0; i < all[sample].size(); ++i)
        if (!places.contains(i)) {
          EXPECT_EQ(all[sample][i], changed[sample][i]) << "sample " << sample << ", place " << i;
        }
  };
  const std::set<size_t> map{3, 7, 8, 9, 10, 11, 12};
  expect_only({4}, [](AugmentOptions& o) { o.brightness = 0; });
  expect_only({5}, [](AugmentOptions& o) { o.contrast = 0; });
  expect_only({6}, [](AugmentOptions& o) { o.saturation = 0; });
  expect_only({17, 18, 19, 20}, [](AugmentOptions& o) { o.erase = 0; });
  expect_only(map, [](AugmentOptions& o) { o.hflip = 0; });
  expect_only(map, [](AugmentOptions& o) { o.vflip = 0; });
  expect_only(map, [](AugmentOptions& o) { o.rotate = 0; });
  expect_only(map, [](AugmentOptions& o) { o.zoom = {1, 1}; });
  expect_only(map, [](AugmentOptions& o) { o.shear = {0, 0}; });
  expect_only({21}, [](AugmentOptions& o) { o.hue = 0; });
  expect_only({22}, [](AugmentOptions& o) { o.grayscale = 0; });
  expect_only({9, 12}, [](AugmentOptions& o) { o.translate = 0; });
  expect_only({3, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, [](AugmentOptions& o) { o.geometry = Geometry::none; });
}

// The numbers are a contract: what seed 1, epoch 2 drew once it draws for ever. Found with a Philox written in Python
// too.
TEST(Policy, TheDrawsArePinned) {
  const auto options = sized(Geometry::random_resized_crop, 224, 224);
  const SampleRecord a = make_record(options, 375, 500, 3, 1, 2, 3), b = make_record(options, 375, 500, 3, 1, 2, 4);
  EXPECT_THAT(a.box, ElementsAre(163, 51, 479, 368));
  EXPECT_THAT(b.box, ElementsAre(97, 22, 277, 207));
}

}  // namespace
}  // namespace convolt::test
