#include "augment/policy_ops.h"

#include <algorithm>
#include <cmath>

#include "augment/dice.h"

namespace convolt {
namespace {

using Policy = AugmentOptions::Policy;
using OpSet = AugmentOptions::OpSet;
using enum PolicyOp;

constexpr PolicyOp kTorchvision[] = {identity, shear_x,  shear_y,   translate_x, translate_y, rotate,        brightness,
                                     color,    contrast, sharpness, posterize,   solarize,    auto_contrast, equalize};
constexpr PolicyOp kTimm[] = {auto_contrast, equalize,     invert,  rotate,      posterize,
                              solarize,      solarize_add, color,   contrast,    brightness,
                              sharpness,     shear_x,      shear_y, translate_x, translate_y};
// Those of a set in which some are chosen more often, and how often.
template <size_t N>
struct Weighted {
  PolicyOp ops[N];
  double weights[N];
};
constexpr Weighted<15> kTimmWeights{
    {rotate, shear_x, shear_y, translate_x, translate_y, color, sharpness, auto_contrast, solarize, solarize_add,
     contrast, brightness, equalize, posterize, invert},
    {3, 2, 2, 1, 1, 0.25, 0.25, 0.25, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05}};
constexpr PolicyOp kTimmThree[] = {solarize, desaturate, blur};
constexpr Weighted<14> kTimmWeightedThree{{solarize, desaturate, blur, rotate, shear_x, shear_y, posterize,
                                           auto_contrast, color, sharpness, contrast, brightness, equalize, invert},
                                          {6, 6, 6, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1}};
constexpr PolicyOp kAugmix[] = {shear_x,       shear_y,  translate_x, translate_y, rotate,   posterize, solarize,
                                auto_contrast, equalize, brightness,  color,       contrast, sharpness};

constexpr SubPolicy kImageNet[25] = {
    {{{posterize, 0.4F, 8}, {rotate, 0.6F, 9}}},    {{{solarize, 0.6F, 5}, {auto_contrast, 0.6F, -1}}},
    {{{equalize, 0.8F, -1}, {equalize, 0.6F, -1}}}, {{{posterize, 0.6F, 7}, {posterize, 0.6F, 6}}},
    {{{equalize, 0.4F, -1}, {solarize, 0.2F, 4}}},  {{{equalize, 0.4F, -1}, {rotate, 0.8F, 8}}},
    {{{solarize, 0.6F, 3}, {equalize, 0.6F, -1}}},  {{{posterize, 0.8F, 5}, {equalize, 1.0F, -1}}},
    {{{rotate, 0.2F, 3}, {solarize, 0.6F, 8}}},     {{{equalize, 0.6F, -1}, {posterize, 0.4F, 6}}},
    {{{rotate, 0.8F, 8}, {color, 0.4F, 0}}},        {{{rotate, 0.4F, 9}, {equalize, 0.6F, -1}}},
    {{{equalize, 0.0F, -1}, {equalize, 0.8F, -1}}}, {{{invert, 0.6F, -1}, {equalize, 1.0F, -1}}},
    {{{color, 0.6F, 4}, {contrast, 1.0F, 8}}},      {{{rotate, 0.8F, 8}, {color, 1.0F, 2}}},
    {{{color, 0.8F, 8}, {solarize, 0.8F, 7}}},      {{{sharpness, 0.4F, 7}, {invert, 0.6F, -1}}},
    {{{shear_x, 0.6F, 5}, {equalize, 1.0F, -1}}},   {{{color, 0.4F, 0}, {equalize, 0.6F, -1}}},
    {{{equalize, 0.4F, -1}, {solarize, 0.2F, 4}}},  {{{solarize, 0.6F, 5}, {auto_contrast, 0.6F, -1}}},
    {{{invert, 0.6F, -1}, {equalize, 1.0F, -1}}},   {{{color, 0.6F, 4}, {contrast, 1.0F, 8}}},
    {{{equalize, 0.8F, -1}, {equalize, 0.6F, -1}}},
};
constexpr SubPolicy kCifar10[25] = {
    {{{invert, 0.1F, -1}, {contrast, 0.2F, 6}}},           {{{rotate, 0.7F, 2}, {translate_x, 0.3F, 9}}},
    {{{sharpness, 0.8F, 1}, {sharpness, 0.9F, 3}}},        {{{shear_y, 0.5F, 8}, {translate_y, 0.7F, 9}}},
    {{{auto_contrast, 0.5F, -1}, {equalize, 0.9F, -1}}},   {{{shear_y, 0.2F, 7}, {posterize, 0.3F, 7}}},
    {{{color, 0.4F, 3}, {brightness, 0.6F, 7}}},           {{{sharpness, 0.3F, 9}, {brightness, 0.7F, 9}}},
    {{{equalize, 0.6F, -1}, {equalize, 0.5F, -1}}},        {{{contrast, 0.6F, 7}, {sharpness, 0.6F, 5}}},
    {{{color, 0.7F, 7}, {translate_x, 0.5F, 8}}},          {{{equalize, 0.3F, -1}, {auto_contrast, 0.4F, -1}}},
    {{{translate_y, 0.4F, 3}, {sharpness, 0.2F, 6}}},      {{{brightness, 0.9F, 6}, {color, 0.2F, 8}}},
    {{{solarize, 0.5F, 2}, {invert, 0.0F, -1}}},           {{{equalize, 0.2F, -1}, {auto_contrast, 0.6F, -1}}},
    {{{equalize, 0.2F, -1}, {equalize, 0.6F, -1}}},        {{{color, 0.9F, 9}, {equalize, 0.6F, -1}}},
    {{{auto_contrast, 0.8F, -1}, {solarize, 0.2F, 8}}},    {{{brightness, 0.1F, 3}, {color, 0.7F, 0}}},
    {{{solarize, 0.4F, 5}, {auto_contrast, 0.9F, -1}}},    {{{translate_y, 0.9F, 9}, {translate_y, 0.7F, 9}}},
    {{{auto_contrast, 0.9F, -1}, {solarize, 0.8F, 3}}},    {{{equalize, 0.8F, -1}, {invert, 0.1F, -1}}},
    {{{translate_y, 0.7F, 9}, {auto_contrast, 0.9F, -1}}},
};
constexpr SubPolicy kSvhn[25] = {
    {{{shear_x, 0.9F, 4}, {invert, 0.2F, -1}}},        {{{shear_y, 0.9F, 8}, {invert, 0.7F, -1}}},
    {{{equalize, 0.6F, -1}, {solarize, 0.6F, 6}}},     {{{invert, 0.9F, -1}, {equalize, 0.6F, -1}}},
    {{{equalize, 0.6F, -1}, {rotate, 0.9F, 3}}},       {{{shear_x, 0.9F, 4}, {auto_contrast, 0.8F, -1}}},
    {{{shear_y, 0.9F, 8}, {invert, 0.4F, -1}}},        {{{shear_y, 0.9F, 5}, {solarize, 0.2F, 6}}},
    {{{invert, 0.9F, -1}, {auto_contrast, 0.8F, -1}}}, {{{equalize, 0.6F, -1}, {rotate, 0.9F, 3}}},
    {{{shear_x, 0.9F, 4}, {solarize, 0.3F, 3}}},       {{{shear_y, 0.8F, 8}, {invert, 0.7F, -1}}},
    {{{equalize, 0.9F, -1}, {translate_y, 0.6F, 6}}},  {{{invert, 0.9F, -1}, {equalize, 0.6F, -1}}},
    {{{contrast, 0.3F, 3}, {rotate, 0.8F, 4}}},        {{{invert, 0.8F, -1}, {translate_y, 0.0F, 2}}},
    {{{shear_y, 0.7F, 6}, {solarize, 0.4F, 8}}},       {{{invert, 0.6F, -1}, {rotate, 0.8F, 4}}},
    {{{shear_y, 0.3F, 7}, {translate_x, 0.9F, 3}}},    {{{shear_x, 0.1F, 6}, {invert, 0.6F, -1}}},
    {{{solarize, 0.7F, 2}, {translate_y, 0.6F, 7}}},   {{{shear_y, 0.8F, 4}, {invert, 0.8F, -1}}},
    {{{shear_x, 0.7F, 9}, {translate_y, 0.8F, 3}}},    {{{shear_y, 0.8F, 5}, {auto_contrast, 0.7F, -1}}},
    {{{shear_x, 0.7F, 2}, {invert, 0.1F, -1}}},
};
constexpr SubPolicy kV0[25] = {
    {{{equalize, 0.8F, -1}, {shear_y, 0.8F, 4}}},
    {{{color, 0.4F, 9}, {equalize, 0.6F, -1}}},
    {{{color, 0.4F, 1}, {rotate, 0.6F, 8}}},
    {{{solarize, 0.8F, 3}, {equalize, 0.4F, -1}}},
    {{{solarize, 0.4F, 2}, {solarize, 0.6F, 2}}},
    {{{color, 0.2F, 0}, {equalize, 0.8F, -1}}},
    {{{equalize, 0.4F, -1}, {solarize_add, 0.8F, 3}}},
    {{{shear_x, 0.2F, 9}, {rotate, 0.6F, 8}}},
    {{{color, 0.6F, 1}, {equalize, 1.0F, -1}}},
    {{{invert, 0.4F, -1}, {rotate, 0.6F, 0}}},
    {{{equalize, 1.0F, -1}, {shear_y, 0.6F, 3}}},
    {{{color, 0.4F, 7}, {equalize, 0.6F, -1}}},
    {{{posterize, 0.4F, 6}, {auto_contrast, 0.4F, -1}}},
    {{{solarize, 0.6F, 8}, {color, 0.6F, 9}}},
    {{{solarize, 0.2F, 4}, {rotate, 0.8F, 9}}},
    {{{rotate, 1.0F, 7}, {translate_y, 0.8F, 9}}},
    {{{shear_x, 0.0F, 0}, {solarize, 0.8F, 4}}},
    {{{shear_y, 0.8F, 0}, {color, 0.6F, 4}}},
    {{{color, 1.0F, 0}, {rotate, 0.6F, 2}}},
    {{{equalize, 0.8F, -1}, {equalize, 0.0F, -1}}},
    {{{equalize, 1.0F, -1}, {auto_contrast, 0.6F, -1}}},
    {{{shear_y, 0.4F, 7}, {solarize_add, 0.6F, 7}}},
    {{{posterize, 0.8F, 2}, {solarize, 0.6F, 10}}},
    {{{solarize, 0.6F, 8}, {equalize, 0.6F, -1}}},
    {{{color, 0.8F, 6}, {rotate, 0.4F, 5}}},
};
}  // namespace

const char* name_of(PolicyOp op) {
  constexpr const char* kNames[] = {
      "policy identity",     "policy shear-x",    "policy shear-y",      "policy translate-x", "policy translate-y",
      "policy rotate",       "policy brightness", "policy color",        "policy contrast",    "policy sharpness",
      "policy posterize",    "policy solarize",   "policy autocontrast", "policy equalize",    "policy invert",
      "policy solarize-add", "policy desaturate", "policy blur"};
  return kNames[static_cast<size_t>(op)];
}

bool has_amount(PolicyOp op) { return op != identity && op != auto_contrast && op != equalize && op != invert; }

std::span<const PolicyOp> torchvision_ops() { return kTorchvision; }
std::span<const PolicyOp> timm_ops(OpSet set) {
  switch (set) {
    case OpSet::all:
      return kTimm;
    case OpSet::weights:
      return kTimmWeights.ops;
    case OpSet::three:
      return kTimmThree;
    case OpSet::weighted_three:
      return kTimmWeightedThree.ops;
  }
  return {};
}
std::span<const double> timm_weights(OpSet set) {
  if (set == OpSet::weights) return kTimmWeights.weights;
  if (set == OpSet::weighted_three) return kTimmWeightedThree.weights;
  return {};
}
std::span<const PolicyOp> augmix_ops() { return kAugmix; }

OpSpace rand_augment_space(const AugmentOptions& o) {
  return {0.3, 150.0 / 331 * o.width, 150.0 / 331 * o.height, 30, 0.9, 4, 8};
}
OpSpace trivial_wide_space() { return {0.99, 32, 32, 135, 0.99, 2, 8}; }
OpSpace augmix_space(const AugmentOptions& o) { return {0.3, o.width / 3.0, o.height / 3.0, 30, 0.9, 0, 4}; }

double torchvision_amount(PolicyOp op, const OpSpace& s, double magnitude, int bins, bool negative) {
  const double part = magnitude / (bins - 1), sign = negative ? -1 : 1;
  switch (op) {
    case shear_x:
    case shear_y:
      return sign * part * s.shear;
    case translate_x:
      return std::trunc(sign * part * s.translate_x);
    case translate_y:
      return std::trunc(sign * part * s.translate_y);
    case rotate:
      return sign * part * s.degrees;
    case brightness:
    case color:
    case contrast:
    case sharpness:
      return 1 + sign * part * s.enhance;
    case posterize:
      return s.most_bits - round_half_even(part * (s.most_bits - s.least_bits));
    case solarize:
      return 255 * (1 - part);
    default:
      return 0;
  }
}

double timm_amount(PolicyOp op, const AugmentOptions& o, double level, bool negative) {
  const double part = level / 10, sign = negative ? -1 : 1;
  const bool increasing = o.policy == Policy::timm_rand_increasing || o.op_set != OpSet::all;
  switch (op) {
    case shear_x:
    case shear_y:
      return sign * part * 0.3;
    case translate_x:
      return sign * part * 0.45 * o.width;
    case translate_y:
      return sign * part * 0.45 * o.height;
    case rotate:
      return sign * part * 30;
    case brightness:
    case color:
    case contrast:
    case sharpness:
      return increasing ? std::max(0.1, 1 + sign * part * 0.9) : part * 1.8 + 0.1;
    case posterize: {
      const int bits = std::min(static_cast<int>(part * 4), 8);
      if (o.policy == Policy::timm_original) return bits + 4;
      const bool fewer = increasing || o.policy == Policy::timm_original_r || o.policy == Policy::timm_v0_r;
      return fewer ? std::max(4 - bits, 0) : bits;
    }
    case solarize: {
      const int level_of = std::min(256, static_cast<int>(part * 256));
      return increasing ? 256 - level_of : level_of;
    }
    case solarize_add:
      return std::min(128, static_cast<int>(part * 110));
    case desaturate:
      return 1 - std::min(0.5 + 0.5 * part, 1.0);
    case blur:
      return std::min(0.1 + 1.9 * part, 2.0);
    default:
      return 0;
  }
}

std::span<const SubPolicy> sub_policies(Policy policy) {
  switch (policy) {
    case Policy::cifar10:
      return kCifar10;
    case Policy::svhn:
      return kSvhn;
    case Policy::timm_v0:
    case Policy::timm_v0_r:
      return kV0;
    default:
      return kImageNet;
  }
}

}  // namespace convolt
