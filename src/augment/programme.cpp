#include "augment/programme.h"

#include <array>
#include <numbers>
#include <span>
#include <utility>

namespace convolt {
namespace {

using Policy = AugmentOptions::Policy;

// What policies choose from. The order is that in which operations are numbered when one is drawn.
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
};

const char* name_of(PolicyOp op) {
  constexpr const char* kNames[] = {"identity",     "shear-x",  "shear-y",  "translate-x", "translate-y", "rotate",
                                    "brightness",   "color",    "contrast", "sharpness",   "posterize",   "solarize",
                                    "autocontrast", "equalize", "invert",   "solarize-add"};
  return kNames[static_cast<size_t>(op)];
}

constexpr int kTorchvisionOps = 14;  // identity to equalize
// timm's, in its order.
constexpr PolicyOp kTimmOps[] = {
    PolicyOp::auto_contrast, PolicyOp::equalize,     PolicyOp::invert,  PolicyOp::rotate,      PolicyOp::posterize,
    PolicyOp::solarize,      PolicyOp::solarize_add, PolicyOp::color,   PolicyOp::contrast,    PolicyOp::brightness,
    PolicyOp::sharpness,     PolicyOp::shear_x,      PolicyOp::shear_y, PolicyOp::translate_x, PolicyOp::translate_y};
// Of AugMix.
constexpr PolicyOp kMixOps[] = {
    PolicyOp::shear_x,   PolicyOp::shear_y,  PolicyOp::translate_x,   PolicyOp::translate_y, PolicyOp::rotate,
    PolicyOp::posterize, PolicyOp::solarize, PolicyOp::auto_contrast, PolicyOp::equalize,    PolicyOp::brightness,
    PolicyOp::color,     PolicyOp::contrast, PolicyOp::sharpness};

// How far operations go at the last of `bins` magnitudes.
struct Space {
  double shear, translate_x, translate_y, degrees, enhance;
  int least_bits, most_bits;
};

// torchvision.transforms.v2's, at magnitude bin of 0 .. bins - 1: shear, pixels, degrees, factor, bits or threshold.
double torchvision_amount(PolicyOp op, const Space& s, double bin, int bins, bool negative) {
  const double part = bin / (bins - 1), sign = negative ? -1 : 1;
  switch (op) {
    case PolicyOp::shear_x:
    case PolicyOp::shear_y:
      return sign * part * s.shear;
    case PolicyOp::translate_x:
      return std::trunc(sign * part * s.translate_x);
    case PolicyOp::translate_y:
      return std::trunc(sign * part * s.translate_y);
    case PolicyOp::rotate:
      return sign * part * s.degrees;
    case PolicyOp::brightness:
    case PolicyOp::color:
    case PolicyOp::contrast:
    case PolicyOp::sharpness:
      return 1 + sign * part * s.enhance;
    case PolicyOp::posterize:
      return s.most_bits - round_half_even(part * (s.most_bits - s.least_bits));
    case PolicyOp::solarize:
      return 255 * (1 - part);
    default:
      return 0;
  }
}

// timm's, at a level of 0 to 10 or more.
double timm_amount(PolicyOp op, const AugmentOptions& o, double level, bool negative) {
  const double part = level / 10, sign = negative ? -1 : 1;
  const bool increasing = o.policy == Policy::timm_rand_increasing;
  switch (op) {
    case PolicyOp::shear_x:
    case PolicyOp::shear_y:
      return sign * part * 0.3;
    case PolicyOp::translate_x:
      return sign * part * 0.45 * o.width;
    case PolicyOp::translate_y:
      return sign * part * 0.45 * o.height;
    case PolicyOp::rotate:
      return sign * part * 30;
    case PolicyOp::brightness:
    case PolicyOp::color:
    case PolicyOp::contrast:
    case PolicyOp::sharpness:
      return increasing ? std::max(0.1, 1 + sign * part * 0.9) : part * 1.8 + 0.1;
    case PolicyOp::posterize: {
      const int bits = std::min(static_cast<int>(part * 4), 8);
      return increasing ? std::max(4 - bits, 0) : bits;
    }
    case PolicyOp::solarize: {
      const int level_of = std::min(256, static_cast<int>(part * 256));
      return increasing ? 256 - level_of : level_of;
    }
    case PolicyOp::solarize_add:
      return std::min(128, static_cast<int>(part * 110));
    default:
      return 0;
  }
}

// AutoAugment's sub-policies (E. D. Cubuk et al., CVPR 2019, appendix, in torchvision's numbering of magnitudes; -1:
// none).
struct SubPolicy {
  struct {
    PolicyOp op;
    float probability;
    int magnitude;
  } ops[2];
};
using enum PolicyOp;
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
std::span<const SubPolicy> sub_policies(Policy policy) {
  if (policy == Policy::imagenet) return kImageNet;
  if (policy == Policy::cifar10) return kCifar10;
  return kSvhn;
}

class Drawing {
public:
  Drawing(const AugmentOptions& options, const Dice& dice) : o_(options), dice_(dice) {}

  DrawnProgramme draw() {
    switch (o_.policy) {
      case Policy::none:
        break;
      case Policy::rand_augment:
      case Policy::trivial_wide:
        torchvision_ops();
        break;
      case Policy::imagenet:
      case Policy::cifar10:
      case Policy::svhn:
        sub_policy();
        break;
      case Policy::timm_rand:
      case Policy::timm_rand_increasing:
        timm_ops();
        break;
      case Policy::three_augment:
        one_of_three();
        break;
      case Policy::augmix:
        augmix();
        break;
    }
    single_geometry();
    single_colours();
    single_noises();
    if (result_.programme.count > 0) {
      const Philox4 bits = dice_.roll(Draw::pixels);
      result_.programme.key = uint64_t{bits.v[0]} << 32 | bits.v[1];
    }
    return std::move(result_);
  }

private:
  void step(PictureOp op, double a = 0, double b = 0) {
    PictureProgramme& p = result_.programme;
    p.steps[p.count++] = {op, static_cast<float>(a), static_cast<float>(b)};
  }
  void note(std::string operation, std::vector<double> values = {}) {
    result_.drawn.push_back({std::move(operation), std::move(values)});
  }
  void add(const Affine& inverse) { result_.map = result_.map * inverse; }

  Space space(double shear, double width_part, double height_part, double degrees, double enhance, int least_bits,
              int most_bits) const {
    return {shear, width_part, height_part, degrees, enhance, least_bits, most_bits};
  }

  // Turns, shears and shifts that one sampling of the source does, but in a chain of a mixture.
  bool is_geometry(PolicyOp op, double v, bool in_chain) {
    const double cx = o_.width / 2.0, cy = o_.height / 2.0, radians = v * std::numbers::pi / 180;
    const double c = std::cos(radians), s = std::sin(radians);
    switch (op) {
      case PolicyOp::shear_x:
        in_chain ? step(PictureOp::shear_x, v) : add({{1, v, 0, 0, 1, 0}});
        return true;
      case PolicyOp::shear_y:
        in_chain ? step(PictureOp::shear_y, v) : add({{1, 0, 0, v, 1, 0}});
        return true;
      case PolicyOp::translate_x:
        in_chain ? step(PictureOp::translate, v, 0) : add({{1, 0, -v, 0, 1, 0}});
        return true;
      case PolicyOp::translate_y:
        in_chain ? step(PictureOp::translate, 0, v) : add({{1, 0, 0, 0, 1, -v}});
        return true;
      case PolicyOp::rotate:
        in_chain ? step(PictureOp::rotate, c, s) : add({{c, -s, cx - c * cx + s * cy, s, c, cy - s * cx - c * cy}});
        return true;
      default:
        return false;
    }
  }

  void apply(PolicyOp op, double v, bool in_chain = false) {
    const bool has_amount =
        op != PolicyOp::identity && op != PolicyOp::auto_contrast && op != PolicyOp::equalize && op != PolicyOp::invert;
    note(std::string("policy ") + name_of(op), has_amount ? std::vector{v} : std::vector<double>{});
    if (is_geometry(op, v, in_chain)) return;
    switch (op) {
      case PolicyOp::brightness:
        return step(PictureOp::brightness, v);
      case PolicyOp::color:
        return step(PictureOp::saturation, v);
      case PolicyOp::contrast:
        return step(PictureOp::contrast, v);
      case PolicyOp::sharpness:
        return step(PictureOp::sharpness, v);
      case PolicyOp::posterize:
        if (v < 8) step(PictureOp::posterize, v);
        return;
      case PolicyOp::solarize:
        return step(PictureOp::solarize, v);
      case PolicyOp::auto_contrast:
        return step(PictureOp::auto_contrast);
      case PolicyOp::equalize:
        return step(PictureOp::equalize);
      case PolicyOp::invert:
        return step(PictureOp::invert);
      case PolicyOp::solarize_add:
        return step(PictureOp::solarize_add, v, 128);
      default:
        return;
    }
  }

  void torchvision_ops() {
    const bool wide = o_.policy == Policy::trivial_wide;
    const Space s = wide ? space(0.99, 32, 32, 135, 0.99, 2, 8)
                         : space(0.3, 150.0 / 331 * o_.width, 150.0 / 331 * o_.height, 30, 0.9, 4, 8);
    constexpr int kBins = 31;
    for (int k = 0; k < (wide ? 1 : o_.policy_ops); ++k) {
      const Philox4 bits = dice_.roll(Draw::policy, k);
      const auto op = static_cast<PolicyOp>(below(bits.v[0], kTorchvisionOps));
      const double bin = wide ? below(bits.v[1], kBins) : static_cast<double>(o_.magnitude);
      apply(op, torchvision_amount(op, s, bin, kBins, bits.v[2] >> 31 != 0));
    }
  }

  void sub_policy() {
    const Space s = space(0.3, 150.0 / 331 * o_.width, 150.0 / 331 * o_.height, 30, 0.9, 4, 8);
    const std::span<const SubPolicy> all = sub_policies(o_.policy);
    const SubPolicy& chosen = all[static_cast<size_t>(below(dice_.roll(Draw::policy, 2).v[0], 25))];
    for (int k = 0; k < 2; ++k) {
      const auto& [op, probability, magnitude] = chosen.ops[k];
      const Philox4 bits = dice_.roll(Draw::policy, k);
      if (uniform(bits.v[3]) < probability)
        apply(op, torchvision_amount(op, s, std::max(magnitude, 0), 10, bits.v[2] >> 31 != 0));
    }
  }

  // Normal by Box and Muller; a deviation above 100 stands for uniform magnitudes, as in timm.
  double timm_level(int k) const {
    double level = o_.magnitude;
    const Philox4 bits = dice_.roll(Draw::policy_level, k);
    if (o_.magnitude_std > 100)
      level = between(bits.v[0], 0, level);
    else if (o_.magnitude_std > 0)
      level += o_.magnitude_std * std::sqrt(-2 * std::log(1 - static_cast<double>(uniform(bits.v[0])))) *
               std::cos(2 * std::numbers::pi * static_cast<double>(uniform(bits.v[1])));
    return std::clamp(level, 0.0, 10.0);
  }
  void timm_ops() {
    for (int k = 0; k < o_.policy_ops; ++k) {
      const Philox4 bits = dice_.roll(Draw::policy, k);
      const PolicyOp op = kTimmOps[below(bits.v[0], static_cast<int>(std::size(kTimmOps)))];
      if (uniform(bits.v[3]) < o_.policy_probability)
        apply(op, timm_amount(op, o_, timm_level(k), bits.v[2] >> 31 != 0));
    }
  }

  // H. Touvron, M. Cord, H. Jegou, "DeiT III", ECCV 2022.
  void one_of_three() {
    const Philox4 bits = dice_.roll(Draw::policy);
    switch (below(bits.v[0], 3)) {
      case 0:
        note("policy grayscale");
        return step(PictureOp::saturation, 0);
      case 1:
        note("policy solarize", {128});
        return step(PictureOp::solarize, 128);
      default:
        return blur(between(bits.v[1], 0.1, 2), "policy blur");
    }
  }

  void blur(double sigma, const char* name) {
    note(name, {sigma});
    const int radius = static_cast<int>(std::ceil(3 * sigma));
    step(PictureOp::blur, sigma, std::clamp(radius, 1, kMostBlurRadius));
  }

  // D. Hendrycks et al., ICLR 2020, as torchvision has it: three chains of one to three operations, their weights
  // Dirichlet(1, 1, 1) (E / sum E, E exponential), the picture's own part uniform.
  void augmix() {
    const Space s = space(0.3, o_.width / 3.0, o_.height / 3.0, 30, 0.9, 0, 4);
    const Philox4 weights = dice_.roll(Draw::mixture), depths = dice_.roll(Draw::mixture, 1);
    std::array<double, 3> part{};
    double sum = 0;
    for (size_t c = 0; c < 3; ++c)
      sum += part[c] = -std::log(1 - (static_cast<double>(uniform(weights.v[c])) * (1 - 0x1p-24)));
    const double own = uniform(weights.v[3]);
    step(PictureOp::keep);
    for (int c = 0; c < 3; ++c) {
      const int depth = 1 + below(depths.v[c], 3);
      for (int d = 0; d < depth; ++d) {
        const Philox4 bits = dice_.roll(Draw::policy, 3 * c + d);
        const PolicyOp op = kMixOps[below(bits.v[0], static_cast<int>(std::size(kMixOps)))];
        const int bin = below(bits.v[1], static_cast<int>(o_.magnitude));
        apply(op, torchvision_amount(op, s, bin, 10, bits.v[2] >> 31 != 0), true);
      }
      const double share = sum > 0 ? part[static_cast<size_t>(c)] / sum : 1.0 / 3;
      note("policy chain", {share * (1 - own)});
      step(PictureOp::end_chain, share * (1 - own), c);
    }
    note("policy own part", {own});
    step(PictureOp::mix, own);
  }

  // Of the operations that have a probability of their own.
  bool drawn(Draw draw, float probability, const char* name, std::vector<double> values = {1}) {
    if (probability <= 0) return false;
    const bool happens = dice_.decide(draw, probability);
    note(name, happens ? std::move(values) : std::vector<double>{});
    return happens;
  }

  void single_geometry() {
    if (drawn(Draw::perspective, o_.perspective, "perspective", {o_.distortion})) perspective();
    // Its spline has the deviation of noise that a Gaussian smoothed, as torchvision's: a uniform's, sqrt(1/3), divided
    // by 2 sqrt(pi) sigma; the splines' own factor is 151/315. A cubic spline of spacing sqrt(3) sigma is as wide.
    if (drawn(Draw::elastic, o_.elastic, "elastic", {o_.elastic_alpha, o_.elastic_sigma})) {
      const double least = (std::max(o_.width, o_.height) - 1) / (kMostKnots - 4.0);
      const double sigma = o_.elastic_sigma, alpha = o_.elastic_alpha / 2;
      const double amount = alpha / (2 * std::sqrt(std::numbers::pi) * sigma) / (151.0 / 315);
      step(PictureOp::elastic, amount, std::max({std::sqrt(3.0) * sigma, least, 1.0}));
    }
  }

  void single_colours() {
    if (drawn(Draw::invert, o_.invert, "invert")) step(PictureOp::invert);
    if (drawn(Draw::posterize, o_.posterize, "posterize", {static_cast<double>(o_.posterize_bits)}) &&
        o_.posterize_bits < 8)
      step(PictureOp::posterize, o_.posterize_bits);
    if (drawn(Draw::solarize, o_.solarize, "solarize", {o_.solarize_threshold}))
      step(PictureOp::solarize, o_.solarize_threshold);
    if (drawn(Draw::auto_contrast, o_.auto_contrast, "autocontrast")) step(PictureOp::auto_contrast);
    if (drawn(Draw::equalize, o_.equalize, "equalize")) step(PictureOp::equalize);
    if (drawn(Draw::sharpness, o_.sharpness, "sharpness", {o_.sharpness_factor}))
      step(PictureOp::sharpness, o_.sharpness_factor);
  }

  void single_noises() {
    if (o_.blur > 0) {
      const Philox4 bits = dice_.roll(Draw::blur);
      if (uniform(bits.v[0]) < o_.blur)
        blur(between(bits.v[1], o_.blur_sigma[0], o_.blur_sigma[1]), "gaussian-blur");
      else
        note("gaussian-blur");
    }
    if (drawn(Draw::noise, o_.noise, "gaussian-noise", {o_.noise_sigma}))
      step(PictureOp::noise, 255 * double{o_.noise_sigma});
    if (o_.jpeg > 0) {
      const Philox4 bits = dice_.roll(Draw::jpeg);
      const bool happens = uniform(bits.v[0]) < o_.jpeg;
      const int quality = o_.jpeg_quality[0] + below(bits.v[1], o_.jpeg_quality[1] - o_.jpeg_quality[0] + 1);
      note("jpeg", happens ? std::vector{static_cast<double>(quality)} : std::vector<double>{});
      if (happens) step(PictureOp::jpeg, quality);
    }
  }

  // torchvision's RandomPerspective.get_params, and the map from its end points back to its start points.
  void perspective() {
    const int w = o_.width, h = o_.height;
    const int dx = static_cast<int>(double{o_.distortion} * (w / 2)),
              dy = static_cast<int>(double{o_.distortion} * (h / 2));
    const Philox4 x = dice_.roll(Draw::perspective, 1), y = dice_.roll(Draw::perspective, 2);
    const double left[2] = {static_cast<double>(below(x.v[0], dx + 1)), static_cast<double>(below(x.v[3], dx + 1))};
    const double right[2] = {w - dx - 1.0 + below(x.v[1], dx + 1), w - dx - 1.0 + below(x.v[2], dx + 1)};
    const double top[2] = {static_cast<double>(below(y.v[0], dy + 1)), static_cast<double>(below(y.v[1], dy + 1))};
    const double bottom[2] = {h - dy - 1.0 + below(y.v[3], dy + 1), h - dy - 1.0 + below(y.v[2], dy + 1)};
    const double from[4][2] = {{left[0], top[0]}, {right[0], top[1]}, {right[1], bottom[1]}, {left[1], bottom[0]}};
    const double to[4][2] = {{0, 0}, {w - 1.0, 0}, {w - 1.0, h - 1.0}, {0, h - 1.0}};
    const std::array<double, 8> map = projective(from, to);
    std::transform(map.begin(), map.end(), result_.programme.map, [](double v) { return static_cast<float>(v); });
    step(PictureOp::perspective);
  }

  // The projective map of four points onto four others (P. Heckbert, "Fundamentals of texture mapping", 1989), by
  // elimination. No three of the points lie on a line.
  static std::array<double, 8> projective(const double (&from)[4][2], const double (&to)[4][2]) {
    double a[8][9] = {};
    for (int i = 0; i < 4; ++i) {
      const double x = from[i][0], y = from[i][1];
      const double rows[2][9] = {{x, y, 1, 0, 0, 0, -x * to[i][0], -y * to[i][0], to[i][0]},
                                 {0, 0, 0, x, y, 1, -x * to[i][1], -y * to[i][1], to[i][1]}};
      std::copy(rows[0], rows[0] + 9, a[2 * i]);
      std::copy(rows[1], rows[1] + 9, a[2 * i + 1]);
    }
    for (int k = 0; k < 8; ++k) {
      int pivot = k;
      for (int i = k + 1; i < 8; ++i)
        if (std::abs(a[i][k]) > std::abs(a[pivot][k])) pivot = i;
      std::swap_ranges(a[k], a[k] + 9, a[pivot]);
      if (a[k][k] == 0) return {1, 0, 0, 0, 1, 0, 0, 0};  // a picture of one row or column stays as it is
      for (int i = 0; i < 8; ++i) {
        if (i == k) continue;
        const double factor = a[i][k] / a[k][k];
        for (int j = k; j < 9; ++j) a[i][j] -= factor * a[k][j];
      }
    }
    std::array<double, 8> map{};
    for (size_t i = 0; i < 8; ++i) map[i] = a[i][8] / a[i][i];
    return map;
  }

  const AugmentOptions& o_;
  const Dice& dice_;
  DrawnProgramme result_;
};

int single_ops(const AugmentOptions& o) {
  int count = 0;
  for (const float p : {o.perspective, o.elastic, o.invert, o.posterize, o.solarize, o.auto_contrast, o.equalize,
                        o.sharpness, o.blur, o.noise, o.jpeg})
    count += p > 0 ? 1 : 0;
  return count;
}

}  // namespace

DrawnProgramme draw_programme(const AugmentOptions& options, const Dice& dice) { return Drawing(options, dice).draw(); }

int most_steps(const AugmentOptions& o) {
  int of_policy = 0;
  switch (o.policy) {
    case Policy::none:
      break;
    case Policy::rand_augment:
    case Policy::timm_rand:
    case Policy::timm_rand_increasing:
      of_policy = o.policy_ops;
      break;
    case Policy::trivial_wide:
    case Policy::three_augment:
      of_policy = 1;
      break;
    case Policy::imagenet:
    case Policy::cifar10:
    case Policy::svhn:
      of_policy = 2;
      break;
    case Policy::augmix:
      of_policy = 14;
      break;
  }
  return of_policy + single_ops(o);
}
bool may_have_programme(const AugmentOptions& options) { return most_steps(options) > 0; }
bool mixes_chains(const AugmentOptions& options) { return options.policy == Policy::augmix; }
bool blurs(const AugmentOptions& options) { return options.blur > 0 || options.policy == Policy::three_augment; }

}  // namespace convolt
