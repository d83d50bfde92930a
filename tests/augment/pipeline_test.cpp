// Policy and kernel together, against torchvision.
#include <gtest/gtest.h>

#include "augment/batch.h"
#include "augment/golden.h"
#include "augment/policy.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

class PipelineTest : public OpTest {};

// torchvision's Resize and CenterCrop of a PIL image: sizes, offsets, padding and filter. A shift by one pixel of the
// resized picture is tens of levels; Pillow's two roundings are within 1.
TEST_P(PipelineTest, ResizeCentreCropAsTorchvision) {
  for (const GoldenCase& c : golden_cases("centre_crop")) {
    AugmentOptions options;
    options.geometry = AugmentOptions::Geometry::resize_centre_crop;
    options.resize = c["resize"];
    options.height = c["out_height"];
    options.width = c["out_width"];
    AugmentSample sample;
    sample.record = make_record(options, c["height"], c["width"], c["channels"], 1, 0, 0);
    sample.picture = golden_picture(c["width"], c["height"], c["channels"]);
    auto levels = augmented(ctx(), dtype(), {sample}, {options.height, options.width, c["channels"]});
    for (double& v : levels) v *= 255;
    expect_near(levels, c.values, 1.001, 2 * epsilon(dtype()), c.name);
  }
}

TEST_P(PipelineTest, TurnsAsTorchvision) {
  for (const GoldenCase& c : golden_cases("affine")) {
    AugmentSample sample = plain_sample(golden_picture(c["width"], c["height"], 3), c["height"], c["width"], 3);
    const Affine map = turned({.angle = c.numbers.at("angle"),
                               .shear_x = c.numbers.at("shear_x"),
                               .shear_y = c.numbers.at("shear_y"),
                               .zoom = c.numbers.at("zoom"),
                               .x = c["x"],
                               .y = c["y"]},
                              c["height"], c["width"]);
    for (int i = 0; i < 6; ++i) sample.record.map[i] = static_cast<float>(map.m[i]);
    sample.record.axis_aligned = 0;
    expect_near(augmented(ctx(), dtype(), {sample}, {c["out_height"], c["out_width"], 3}), c.values, 1e-4,
                2 * epsilon(dtype()), c.name);
  }
}

// Whatever the policy draws, the kernel does what the reference says.
TEST_P(PipelineTest, DrawnRecordsAgreeWithTheReference) {
  AugmentOptions options;
  options.height = 19;
  options.width = 23;
  options.hflip = options.vflip = 0.5F;
  options.rotate = 25;
  options.translate = 0.2F;
  options.zoom = {0.6F, 1.5F};
  options.shear = {15, 10};
  options.brightness = options.contrast = options.saturation = 0.5F;
  options.hue = 0.4F;
  options.grayscale = 0.3F;
  options.erase = 0.5F;
  AugmentOutput output{options.height, options.width, 3};
  output.fill = {0.2, 0.4, 0.6};
  using Geometry = AugmentOptions::Geometry;
  for (const Geometry geometry :
       {Geometry::none, Geometry::resize_centre_crop, Geometry::random_resized_crop, Geometry::crop_with_padding})
    for (const float rotate : {0.F, 25.F}) {
      options.geometry = geometry;
      options.rotate = rotate;
      options.resize = 21;
      options.crop_padding = 2;
      std::vector<AugmentSample> samples;
      std::vector<double> expected;
      for (uint64_t i = 0; i < 6; ++i) {
        const int height = 12 + static_cast<int>(i) * 7, width = 40 - static_cast<int>(i) * 5;
        AugmentSample sample;
        sample.record = make_record(options, height, width, 3, 11, 0, i);
        sample.picture = golden_picture(width, height, 3);
        const auto values = augment_reference(sample, output);
        expected.insert(expected.end(), values.begin(), values.end());
        samples.push_back(std::move(sample));
      }
      const double tolerance = augment_tolerance(dtype());
      expect_near(augmented(ctx(), dtype(), samples, output), expected, tolerance, tolerance,
                  "geometry " + std::to_string(static_cast<int>(geometry)));
    }
}

INSTANTIATE_OP_TEST(PipelineTest);

}  // namespace
}  // namespace convolt::test
