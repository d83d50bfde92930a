// The operations that policies choose from, and how much of each: torchvision's and timm's numbers.
#pragma once

#include <cstdint>
#include <span>

#include "convolt/augment.h"

namespace convolt {

// The order of the first 14 is torchvision's, by which one is drawn.
enum class PolicyOp : uint8_t {
  identity,
  shear_x,
  shear_y,
  translate_x,
  translate_y,
  rotate,
  brightness,
  color,
  contrast,
  sharpness,
  posterize,
  solarize,
  auto_contrast,
  equalize,
  invert,
  solarize_add,
  desaturate,
  blur,
};
// "policy shear-x", for explain().
const char* name_of(PolicyOp op);
// Whether there is more or less of it.
bool has_amount(PolicyOp op);

// What RandAugment and TrivialAugment, timm's "rand" and AugMix choose from, in the order in which they number them.
std::span<const PolicyOp> torchvision_ops();
std::span<const PolicyOp> timm_ops(AugmentOptions::OpSet set);
// How often each of these is chosen against the others; empty where all are alike.
std::span<const double> timm_weights(AugmentOptions::OpSet set);
std::span<const PolicyOp> augmix_ops();

// How far operations go at the last magnitude: shears, pixels, degrees, the factor's distance from 1, and the bits kept
// at the last and at the first one.
struct OpSpace {
  double shear, translate_x, translate_y, degrees, enhance;
  int least_bits, most_bits;
};
OpSpace rand_augment_space(const AugmentOptions& options);  // AutoAugment's, too
OpSpace trivial_wide_space();
OpSpace augmix_space(const AugmentOptions& options);

// torchvision.transforms.v2's, at a magnitude of 0 .. bins - 1: shear, pixels, degrees, factor, bits or threshold.
double torchvision_amount(PolicyOp op, const OpSpace& space, double magnitude, int bins, bool negative);
// timm's, at a level of 0 to AugmentOptions::magnitude_max.
double timm_amount(PolicyOp op, const AugmentOptions& options, double level, bool negative);

// AutoAugment's sub-policies (E. D. Cubuk et al., CVPR 2019, appendix, in torchvision's numbering of magnitudes; -1:
// none), and that of the TPU's EfficientNet as timm has it. Of imagenet, cifar10, svhn, timm_original and timm_v0 ..
struct SubPolicy {
  struct {
    PolicyOp op;
    float probability;
    int magnitude;
  } ops[2];
};
std::span<const SubPolicy> sub_policies(AugmentOptions::Policy policy);

}  // namespace convolt
