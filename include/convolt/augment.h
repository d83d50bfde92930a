// How pictures become the network's input: geometry, colour, normalisation and erasing, done on the device in at most two launches.
// What is drawn for a sample is a pure function of (seed, epoch, sample, operation).
#pragma once

#include <array>
#include <cstdint>

namespace convolt {

struct AugmentOptions {
  enum class Geometry : uint8_t {
    none,                 // the picture has the network's size already; anything else is resized to it, aspect ignored
    resize_centre_crop,   // shorter side to `resize`, then the centre (torchvision's Resize and CenterCrop, integers and all)
    random_resized_crop,  // torchvision's RandomResizedCrop with `scale` and `ratio`
    crop_with_padding,    // `crop_padding` pixels of border, then a random window of the network's size
  };
  int height = 224, width = 224;  // of the network's input
  int channels = 3;               // of the network's input: 3, or 1 (grey)
  Geometry geometry = Geometry::random_resized_crop;
  int resize = 256;
  int crop_padding = 0;
  std::array<float, 2> scale{0.08F, 1.F};
  std::array<float, 2> ratio{3.F / 4, 4.F / 3};
  float hflip = 0;      // probability
  float vflip = 0;      // probability
  float rotate = 0;     // uniform in [-rotate, rotate] degrees
  float translate = 0;  // uniform in [-translate, translate] of the height and of the width
  std::array<float, 2> zoom{1.F, 1.F};  // uniform in [zoom[0], zoom[1]], above 1 enlarges
  float brightness = 0, contrast = 0, saturation = 0;  // factor uniform in [max(0, 1 - v), 1 + v], in this order
  float erase = 0;      // probability of erasing a rectangle (torchvision's RandomErasing: area 0.02..0.33, ratio 0.3..3.3, value 0)
  std::array<float, 3> mean{0.485F, 0.456F, 0.406F};  // of RGB in 0..1; subtracted, before division by std
  std::array<float, 3> std{0.229F, 0.224F, 0.225F};
  std::array<float, 3> fill{0, 0, 0};  // colour outside the picture, 0..1
};

}  // namespace convolt
