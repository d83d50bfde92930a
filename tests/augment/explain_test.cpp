#include <gtest/gtest.h>

#include "augment/policy.h"

namespace convolt::test {
namespace {

// What is said of a sample makes its record: the maps of the operations, one after the other, are the record's.
TEST(Explain, SaysWhatTheRecordIsMadeOf) {
  AugmentOptions o;
  o.height = 40;
  o.width = 48;
  o.hflip = o.vflip = 0.5F;
  o.rotate = 20;
  o.shear = {10, 5};
  o.zoom = {0.8F, 1.25F};
  o.translate = 0.1F;
  o.brightness = o.contrast = o.saturation = 0.4F;
  o.hue = 0.1F;
  o.grayscale = 0.5F;
  o.erase = 0.5F;
  const std::vector<std::string> names{"crop",   "hflip",     "vflip",      "shear",    "zoom",
                                       "rotate", "translate", "brightness", "contrast", "saturation",
                                       "hue",    "grayscale", "erase"};
  int erased = 0;
  for (uint64_t sample = 0; sample < 20; ++sample) {
    const SampleRecord r = make_record(o, 90, 120, 3, 4, 6, sample);
    const std::vector<DrawnValues> drawn = explain(o, 90, 120, 4, 6, sample);
    ASSERT_EQ(drawn.size(), names.size());
    for (size_t k = 0; k < names.size(); ++k) EXPECT_EQ(drawn[k].operation, names[k]);
    const auto v = [&](size_t k, size_t j = 0) { return drawn[k].values.at(j); };
    const double sx = (v(0, 2) - v(0, 0)) / o.width, sy = (v(0, 3) - v(0, 1)) / o.height;
    Affine map{{sx, 0, v(0, 0), 0, sy, v(0, 1)}};
    if (v(1) == 1) map = map * Affine{{-1, 0, 48, 0, 1, 0}};
    if (v(2) == 1) map = map * Affine{{1, 0, 0, 0, -1, 40}};
    map = map * turned({.angle = v(5),
                        .shear_x = v(3, 0),
                        .shear_y = v(3, 1),
                        .zoom = v(4),
                        .x = static_cast<int>(v(6, 0)),
                        .y = static_cast<int>(v(6, 1))},
                       40, 48);
    for (int i = 0; i < 6; ++i) EXPECT_NEAR(r.map[i], map.m[i], 1e-4) << i;
    EXPECT_EQ(static_cast<float>(v(7)), r.brightness);
    EXPECT_EQ(static_cast<float>(v(8)), r.contrast);
    EXPECT_EQ(static_cast<float>(v(9)), r.saturation);
    EXPECT_EQ(static_cast<float>(v(10)), r.hue);
    EXPECT_EQ(v(11), r.to_grey);
    EXPECT_EQ(drawn[12].values.empty(), r.erase[2] == 0);
    if (r.erase[2] == 0) continue;
    ++erased;
    for (size_t j = 0; j < 4; ++j) EXPECT_EQ(v(12, j), r.erase[j]);
  }
  EXPECT_GT(erased, 3);
  EXPECT_LT(erased, 17);
  EXPECT_EQ(explain(AugmentOptions{}, 90, 120, 0, 0, 0).size(), 1U);  // what is off is not named
}

}  // namespace
}  // namespace convolt::test
