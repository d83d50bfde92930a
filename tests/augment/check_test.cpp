#include <gmock/gmock.h>

#include <functional>
#include <limits>

#include "augment/policy.h"
#include "convolt/error.h"

namespace convolt::test {
namespace {

using Geometry = AugmentOptions::Geometry;

TEST(CheckOptions, NamesTheOptionThatMakesNoSense) {
  EXPECT_NO_THROW(check(AugmentOptions{}));
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::pair<const char*, std::function<void(AugmentOptions&)>> wrong[] = {
      {"height", [](AugmentOptions& o) { o.height = 0; }},
      {"width", [](AugmentOptions& o) { o.width = -1; }},
      {"channels", [](AugmentOptions& o) { o.channels = 2; }},
      {"crop_padding", [](AugmentOptions& o) { o.crop_padding = -1; }},
      {"scale",
       [](AugmentOptions& o) {
         o.scale = {0.5F, 0.2F};
       }},
      {"scale",
       [](AugmentOptions& o) {
         o.scale = {0.5F, 1.2F};
       }},
      {"ratio",
       [](AugmentOptions& o) {
         o.ratio = {0, 1};
       }},
      {"hflip", [](AugmentOptions& o) { o.hflip = 1.5F; }},
      {"vflip", [&](AugmentOptions& o) { o.vflip = nan; }},
      {"rotate", [](AugmentOptions& o) { o.rotate = 181; }},
      {"translate", [](AugmentOptions& o) { o.translate = 2; }},
      {"zoom",
       [](AugmentOptions& o) {
         o.zoom = {0, 1};
       }},
      {"zoom",
       [](AugmentOptions& o) {
         o.zoom = {1, 1e9F};
       }},
      {"brightness", [](AugmentOptions& o) { o.brightness = -0.1F; }},
      {"contrast", [&](AugmentOptions& o) { o.contrast = nan; }},
      {"saturation", [](AugmentOptions& o) { o.saturation = -1; }},
      {"erase", [](AugmentOptions& o) { o.erase = -1; }},
      {"mean", [&](AugmentOptions& o) { o.mean[2] = nan; }},
      {"std", [](AugmentOptions& o) { o.std[1] = 0; }},
      {"fill", [](AugmentOptions& o) { o.fill[0] = 255; }},
      {"resize",
       [](AugmentOptions& o) {
         o.geometry = Geometry::resize_centre_crop;
         o.resize = 0;
       }},
  };
  for (const auto& [name, change] : wrong) {
    AugmentOptions options;
    change(options);
    try {
      check(options);
      ADD_FAILURE() << name << " was accepted";
    } catch (const UsageError& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr(std::string("augmentation option ") +
                                                   (std::string(name) == "width" ? "height and width" : name)));
    }
  }
}

}  // namespace
}  // namespace convolt::test
