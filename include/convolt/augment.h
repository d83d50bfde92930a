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
//   5. what `policy` chose, then perspective, elastic, invert, posterize, solarize, auto_contrast, equalize, sharpness,
//      blur, noise and jpeg, each by its own chance: on bytes of the output's size, as torchvision on uint8 tensors
//      (kernels/picture_ops.h has the formulas). What a policy turns, shears and shifts happens in step 2's place,
//      after the flips, in the same sampling, whatever its place among the policy's colours;
//   6. brightness, contrast, saturation, each clamped to 0..1, then hue: torchvision's adjust_* on float tensors; then
//      grey by chance, as RandomGrayscale;
//   7. (value - mean) / std;
//   8. erasing.
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
    // RandomCrop, with pad_if_needed for pictures smaller than the window. With `crop_window` the window has that side
    // and is stretched over the output.
    crop_with_padding,
  };
  // nearest: the one pixel under the centre, never antialiased. bicubic: a = -1/2, the result clamped to 0..1.
  enum class Interpolation : uint8_t { nearest, bilinear, bicubic };
  // Which operations a sample gets, and how much of each. Magnitudes, and the order in which numbers are drawn:
  // src/augment/policy_ops.h, programme.cpp.
  enum class Policy : uint8_t {
    none,
    rand_augment,  // torchvision's RandAugment: `policy_ops` of 14 operations at bin `magnitude` of 31
    trivial_wide,  // torchvision's TrivialAugmentWide: one of them at any bin, going further
    imagenet,
    cifar10,
    svhn,       // torchvision's AutoAugment
    timm_rand,  // timm's "rand": `policy_ops` of 15, each done with `policy_probability`, at level `magnitude`
                // of 10, give or take `magnitude_std` (above 100: at any level up to it)
    timm_rand_increasing,  // the same with "inc1": a higher level is always a stronger change
    timm_original,         // timm's AutoAugment: the pairs of `imagenet` at timm's levels, give or take `magnitude_std`
    timm_original_r,       // the same, where a higher level keeps fewer bits
    timm_v0,               // the pairs of the TPU's EfficientNet
    timm_v0_r,             // the same, where a higher level keeps fewer bits
    three_augment,         // DeiT III: grey, solarized, or blurred by 0.1 to 2 pixels
    augmix,                // torchvision's AugMix of severity `magnitude`, three chains, alpha 1
  };
  // What timm_rand chooses from, by timm's names: its 15; those by weights; DeiT III's three; those and 11 more by
  // weights. What is chosen by weights is chosen once. In all but the first a higher level is a stronger change.
  enum class OpSet : uint8_t { all, weights, three, weighted_three };
  // What an erased rectangle becomes, after normalisation: `erase_value`, a colour of three normals, or normals.
  enum class EraseMode : uint8_t { constant, colour, pixels };
  // What lies outside the picture (after random_resized_crop: outside the crop): `fill`, the nearest pixel of the edge,
  // or the picture mirrored about its outermost pixels (which are not repeated: 3 2 | 1 2 3 | 2 1).
  enum class Border : uint8_t { constant, edge, reflect };
  int height = 224, width = 224;  // of the network's input
  int channels = 3;  // of the network's input: 3, or 1 (grey; then mean, std and fill count by their first)
  Geometry geometry = Geometry::random_resized_crop;  // how a picture comes to lie on the output
  int resize = 256;                                   // resize_centre_crop: the shorter side before the crop
  int crop_padding = 0;                               // crop_with_padding: pixels on each side
  int crop_window = 0;                                // crop_with_padding: the window's side; 0: the output's
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
  Policy policy = Policy::none;                        // one for all samples
  int policy_ops = 2;                                  // of rand_augment and timm_rand: 1 to 12
  float magnitude = 9, magnitude_std = 0, policy_probability = 0.5F;  // as Policy says
  float magnitude_max = 10;                                           // timm_rand: where levels end, 1 to 30
  OpSet op_set = OpSet::all;                                          // timm_rand
  // Probabilities, each with its amounts.
  float perspective = 0, distortion = 0.5F;                  // torchvision's RandomPerspective
  float elastic = 0, elastic_alpha = 50, elastic_sigma = 5;  // as its ElasticTransform, by splines (programme.cpp)
  float invert = 0;                                          // 255 - v
  float posterize = 0;                                       // of so many bits a colour:
  int posterize_bits = 4;                                    // kept of 8
  float solarize = 0, solarize_threshold = 128;              // of 0..255
  float auto_contrast = 0, equalize = 0;                     // of each channel
  float sharpness = 0, sharpness_factor = 2;                 // torchvision's; below 1 smooths
  float blur = 0;                                            // Gaussian:
  std::array<float, 2> blur_sigma{0.1F, 2.F};                // uniform, in output pixels; taps up to 3 sigma away
  float noise = 0, noise_sigma = 0.1F;                       // of 0..1
  float jpeg = 0;                                            // compressed and decoded, of quality:
  std::array<int, 2> jpeg_quality{30, 95};                   // uniform
  // Probability of erasing a rectangle: torchvision's RandomErasing.
  float erase = 0;
  std::array<float, 2> erase_scale{0.02F, 0.33F};  // area relative to the output's
  std::array<float, 2> erase_ratio{0.3F, 3.3F};    // height / width, log-uniform
  EraseMode erase_mode = EraseMode::constant;
  float erase_value = 0;
  std::array<float, 3> mean{0.485F, 0.456F, 0.406F};  // of RGB in 0..1; subtracted, before division by std
  std::array<float, 3> std{0.229F, 0.224F, 0.225F};
  Interpolation interpolation = Interpolation::bilinear;
  Border border = Border::constant;
  std::array<float, 3> fill{0, 0, 0};  // colour outside the picture, 0..1
};

// Progressive resizing: a training's first epochs see smaller pictures than its last, which have the size of
// AugmentOptions; that must be square. What an epoch has is a pure function of its number (the first is 0), as in
// FFCV's training of ResNet-50 (G. Leclerc et al., arXiv 2306.12517): `least` up to epoch `start`, the full side from
// `end` on, and between them the straight line, rounded to a multiple of `step` (halves to the even one) and at most
// the full side.
struct SizeRamp {
  int least = 0;           // side; 0: all epochs have the full one
  int start = 0, end = 0;  // epochs
  int step = 32;           // pixels
};
// What an epoch does to pictures. At a smaller side a crop shows as much of the picture as at the full one.
AugmentOptions at_epoch(const AugmentOptions& full, const SizeRamp& ramp, int64_t epoch);

}  // namespace convolt
