// Which size an epoch's pictures have, and what it shows of them.
#include <gtest/gtest.h>

#include <cmath>

#include "augment/policy.h"
#include "convolt/error.h"

namespace convolt::test {
namespace {

std::vector<int> sides(int full, const SizeRamp& ramp, int64_t first, int64_t last) {
  AugmentOptions o;
  o.height = o.width = full;
  std::vector<int> found;
  for (int64_t epoch = first; epoch <= last; ++epoch) {
    const AugmentOptions at = at_epoch(o, ramp, epoch);
    EXPECT_EQ(at.height, at.width);
    found.push_back(at.width);
  }
  return found;
}

// What numpy.interp and numpy.round give, as FFCV's get_resolution() has them.
TEST(SizeRamp, IsFFCVs) {
  EXPECT_EQ(sides(192, {.least = 160, .start = 65, .end = 76}, 69, 72), (std::vector{160, 160, 192, 192}));
  EXPECT_EQ(sides(192, {.least = 160, .start = 65, .end = 76}, 0, 1), (std::vector{160, 160}));
  // 4.5, 5, 5.5, 6 and 6.5 times 32: halves to the even one.
  EXPECT_EQ(sides(224, {.least = 128, .start = 0, .end = 6}, 0, 7),
            (std::vector{128, 128, 160, 192, 192, 192, 224, 224}));
  EXPECT_EQ(sides(224, {.least = 128, .start = 2, .end = 6, .step = 8}, 1, 7),
            (std::vector{128, 128, 152, 176, 200, 224, 224}));
}

// Neither 96 nor 224, which are nearer multiples of 32.
TEST(SizeRamp, StaysBetweenItsEnds) {
  EXPECT_EQ(sides(200, {.least = 100, .start = 0, .end = 10}, 1, 1), (std::vector{100}));
  EXPECT_EQ(sides(210, {.least = 64, .start = 0, .end = 100}, 99, 100), (std::vector{210, 210}));
}

TEST(SizeRamp, WithoutOneAllEpochsAreAlike) {
  EXPECT_EQ(sides(224, {}, 0, 1), (std::vector{224, 224}));
  AugmentOptions wide;
  wide.width = 300;
  EXPECT_EQ(at_epoch(wide, {}, 0).width, 300);
  EXPECT_EQ(at_epoch(wide, {}, 0).height, 224);
}

TEST(SizeRamp, ListsEachSizeOnceTheLargestFirst) {
  AugmentOptions o;
  std::vector<int> found;
  for (const AugmentOptions& size : sizes_of(o, {.least = 128, .start = 1, .end = 40})) found.push_back(size.width);
  EXPECT_EQ(found, (std::vector{224, 192, 160, 128}));
  EXPECT_EQ(sizes_of(o, {}).size(), 1U);
}

// Where the corners of the output lie in the picture.
std::array<double, 4> window(const AugmentOptions& o, uint64_t sample) {
  const SampleRecord r = make_record(o, 90, 120, 3, 4, 6, sample);
  const auto at = [&](int i, int length) { return static_cast<double>(r.map[i]) * length; };
  return {static_cast<double>(r.map[2]), static_cast<double>(r.map[5]), r.map[2] + at(0, o.width),
          r.map[5] + at(4, o.height)};
}

TEST(SizeRamp, ASmallerPictureShowsTheSame) {
  using Geometry = AugmentOptions::Geometry;
  AugmentOptions o;
  o.height = o.width = 64;
  o.resize = 72;
  o.crop_padding = 5;
  const SizeRamp ramp{.least = 32, .start = 0, .end = 1};
  for (const Geometry geometry :
       {Geometry::none, Geometry::resize_centre_crop, Geometry::random_resized_crop, Geometry::crop_with_padding}) {
    o.geometry = geometry;
    const AugmentOptions small = at_epoch(o, ramp, 0);
    EXPECT_EQ(small.width, 32);
    for (uint64_t sample = 0; sample < 10; ++sample) {
      const auto expected = window(o, sample), found = window(small, sample);
      for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(found[i], expected[i], 1e-4) << static_cast<int>(geometry);
    }
  }
}

}  // namespace
}  // namespace convolt::test
