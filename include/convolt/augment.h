// How pictures become the network's input: geometry, colour, normalisation and erasing, done on the device in at most
// two launches. What is drawn for a sample is a pure function of (seed, epoch, sample, operation).
//
// The order of operations is fixed:
//   1. `geometry` places the picture (or a crop of it) on the output, height x width;
//   2. horizontal flip, vertical flip;
//   3. shear, zoom and rotation about the centre of the output, then translation (one affine map);
//      steps 1 to 3 are one sampling of the source with an antialiased filter: Pillow's BILINEAR or BICUBIC resize
//      where nothing is turned (an exact copy where nothing is scaled either), else the same filter widened by the map;
//   4. grey becomes RGB by repetition, RGB becomes grey as .2989 R + .587 G + .114 B;
//   5. brightness, contrast, saturation, each clamped to 0..1, then hue: torchvision's adjust_* on float tensors; then
//      grey by chance, as RandomGrayscale;
//   6. (value - mean) / std;
//   7. erasing, with the value 0.
#pragma once

#include <array>
#include <cstdint>

namespace convolt {

// What is done to pictures. By default a random-resized-crop and ImageNet's normalisation; all else is off.
struct AugmentOptions {
  // How a picture comes to lie on the output.
  enum class Geometry : uint8_t {
    // The picture has the network's size already; anything else is resized to it, aspect ignored.
    none,
    // Shorter side to `resize`, then the centre: torchvision's Resize and CenterCrop, integers and all. Where the
    // resized picture is smaller than the output it is centred on fill. The filter sees beyond the crop.
    resize_centre_crop,
    // torchvision's RandomResizedCrop with `scale` and `ratio`. The filter is cut at the crop; after a rotation what
    // lies outside the crop is fill.
    random_resized_crop,
    // `crop_padding` pixels of fill around the picture, then a random window of the network's size: torchvision's
    // RandomCrop, with pad_if_needed for pictures smaller than the window.
    crop_with_padding,
  };
  // nearest: the one pixel under the centre, never antialiased. bicubic: a = -1/2, the result clamped to 0..1.
  enum class Interpolation : uint8_t { nearest, bilinear, bicubic };
  // What lies outside the picture (after random_resized_crop: outside the crop): `fill`, the nearest pixel of the edge,
  // or the picture mirrored about its outermost pixels (which are not repeated: 3 2 | 1 2 3 | 2 1).
  enum class Border : uint8_t { constant, edge, reflect };
  int height = 224, width = 224;  // of the network's input
  int channels = 3;  // of the network's input: 3, or 1 (grey; then mean, std and fill count by their first)
  Geometry geometry = Geometry::random_resized_crop;  // how a picture comes to lie on the output
  int resize = 256;                                   // resize_centre_crop: the shorter side before the crop
  int crop_padding = 0;                               // crop_with_padding: pixels on each side
  std::array<float, 2> scale{0.08F, 1.F};             // area of the crop relative to the picture's
  std::array<float, 2> ratio{3.F / 4, 4.F / 3};       // width / height of the crop, log-uniform
  float hflip = 0;                                    // probability
  bool alternating_flip = false;  // hflip is drawn once for all epochs, and every second epoch mirrors all against it
                                  // (K. Jordan, arXiv 2404.00498)
  float vflip = 0;                // probability
  float rotate = 0;               // uniform in [-rotate, rotate] degrees, counter-clockwise
  std::array<float, 2> shear{0, 0};  // uniform in [-shear, shear] degrees along x and along y, below 90
  float translate = 0;  // uniform in [-translate, translate] of the height and of the width, to whole output pixels
  std::array<float, 2> zoom{1.F, 1.F};                 // uniform in [zoom[0], zoom[1]], above 1 enlarges; 0.01 to 100
  float brightness = 0, contrast = 0, saturation = 0;  // factor uniform in [max(0, 1 - v), 1 + v], in this order
  float hue = 0;                                       // uniform in [-hue, hue] of the circle, at most 0.5
  float grayscale = 0;                                 // probability of three equal channels
  // Probability of erasing a rectangle: torchvision's RandomErasing, area 0.02..0.33 of the output, ratio 0.3..3.3
  // (log-uniform), value 0.
  float erase = 0;
  std::array<float, 3> mean{0.485F, 0.456F, 0.406F};  // of RGB in 0..1; subtracted, before division by std
  std::array<float, 3> std{0.229F, 0.224F, 0.225F};
  Interpolation interpolation = Interpolation::bilinear;
  Border border = Border::constant;
  std::array<float, 3> fill{0, 0, 0};  // colour outside the picture, 0..1
};

}  // namespace convolt
