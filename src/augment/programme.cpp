#include "augment/programme.h"

#include <array>
#include <initializer_list>
#include <numbers>
#include <numeric>
#include <span>
#include <utility>

#include "augment/policy_ops.h"

namespace convolt {
namespace {

using Policy = AugmentOptions::Policy;
using OpSet = AugmentOptions::OpSet;

class Drawing {
public:
  Drawing(const AugmentOptions& options, const Dice& dice, std::vector<DrawnValues>* drawn)
      : o_(options), dice_(dice), drawn_(drawn) {}

  DrawnProgramme draw() {
    switch (o_.policy) {
      case Policy::none:
        break;
      case Policy::rand_augment:
      case Policy::trivial_wide:
        several_of_torchvision();
        break;
      case Policy::imagenet:
      case Policy::cifar10:
      case Policy::svhn:
      case Policy::timm_original:
      case Policy::timm_original_r:
      case Policy::timm_v0:
      case Policy::timm_v0_r:
        sub_policy();
        break;
      case Policy::timm_rand:
      case Policy::timm_rand_increasing:
        several_of_timm();
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
  // For explain() alone: loaders draw for every sample.
  void note(const char* operation, std::initializer_list<double> values = {}) {
    if (drawn_ != nullptr) drawn_->push_back({operation, values});
  }
  void add(const Affine& inverse) { result_.map = result_.map * inverse; }

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
    has_amount(op) ? note(name_of(op), {v}) : note(name_of(op));
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
      case PolicyOp::desaturate:
        return step(PictureOp::saturation, v);
      case PolicyOp::blur:
        return blur(v);
      default:
        return;
    }
  }

  void several_of_torchvision() {
    const bool wide = o_.policy == Policy::trivial_wide;
    const OpSpace space = wide ? trivial_wide_space() : rand_augment_space(o_);
    constexpr int kBins = 31;
    for (int k = 0; k < (wide ? 1 : o_.policy_ops); ++k) {
      const Philox4 bits = dice_.roll(Draw::policy, k);
      const PolicyOp op = one_of(torchvision_ops(), bits);
      const double magnitude = wide ? below(bits.v[1], kBins) : static_cast<double>(o_.magnitude);
      apply(op, torchvision_amount(op, space, magnitude, kBins, is_negative(bits)));
    }
  }

  // Of the words of operation k: which, its magnitude, its sign, and whether it is done.
  static PolicyOp one_of(std::span<const PolicyOp> ops, const Philox4& bits) {
    return ops[static_cast<size_t>(below(bits.v[0], static_cast<int>(ops.size())))];
  }
  static bool is_negative(const Philox4& bits) { return bits.v[2] >> 31 != 0; }
  static bool is_done(const Philox4& bits, float probability) { return uniform(bits.v[3]) < probability; }

  void sub_policy() {
    constexpr int kBins = 10;
    const bool of_timm = o_.policy != Policy::imagenet && o_.policy != Policy::cifar10 && o_.policy != Policy::svhn;
    const std::span<const SubPolicy> all = sub_policies(o_.policy);
    const int chosen = below(dice_.roll(Draw::policy, 2).v[0], static_cast<int>(all.size()));
    for (int k = 0; k < 2; ++k) {
      const auto& [op, probability, magnitude] = all[static_cast<size_t>(chosen)].ops[k];
      const Philox4 bits = dice_.roll(Draw::policy, k);
      if (!is_done(bits, probability)) continue;
      const int level = std::max(magnitude, 0);
      apply(op, of_timm ? timm_amount(op, o_, timm_level(level, k), is_negative(bits))
                        : torchvision_amount(op, rand_augment_space(o_), level, kBins, is_negative(bits)));
    }
  }

  // A deviation above 100 stands for uniform magnitudes, as in timm.
  double timm_level(double level, int k) const {
    const Philox4 bits = dice_.roll(Draw::policy_level, k);
    if (o_.magnitude_std > 100)
      level = between(bits.v[0], 0, level);
    else if (o_.magnitude_std > 0)
      level += o_.magnitude_std * normal(bits.v[0], bits.v[1]);
    return std::clamp(level, 0.0, double{o_.magnitude_max});
  }
  void several_of_timm() {
    const std::span<const PolicyOp> ops = timm_ops(o_.op_set);
    const std::span<const double> weights = timm_weights(o_.op_set);
    std::array<double, 16> left{};  // the weights of what may still be chosen
    std::copy(weights.begin(), weights.end(), left.begin());
    for (int k = 0; k < o_.policy_ops; ++k) {
      const Philox4 bits = dice_.roll(Draw::policy, k);
      const PolicyOp op = weights.empty() ? one_of(ops, bits) : ops[take(left, bits)];
      if (is_done(bits, o_.policy_probability))
        apply(op, timm_amount(op, o_, timm_level(o_.magnitude, k), is_negative(bits)));
    }
  }
  // One of those with a weight, which then has none.
  static size_t take(std::span<double> weights, const Philox4& bits) {
    double at = uniform(bits.v[0]) * std::accumulate(weights.begin(), weights.end(), 0.0);
    size_t taken = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
      if (weights[i] == 0) continue;
      taken = i;
      at -= weights[i];
      if (at < 0) break;
    }
    weights[taken] = 0;
    return taken;
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
        const double sigma = between(bits.v[1], 0.1, 2);
        note("policy blur", {sigma});
        return blur(sigma);
    }
  }

  void blur(double sigma) {
    const int radius = static_cast<int>(std::ceil(3 * sigma));
    step(PictureOp::blur, sigma, std::clamp(radius, 1, kMostBlurRadius));
  }

  // D. Hendrycks et al., ICLR 2020, as torchvision has it: three chains of one to three operations, their weights
  // Dirichlet(1, 1, 1) (E / sum E, E exponential), the picture's own part uniform.
  void augmix() {
    const OpSpace space = augmix_space(o_);
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
        const PolicyOp op = one_of(augmix_ops(), bits);
        const int bin = below(bits.v[1], static_cast<int>(o_.magnitude));
        apply(op, torchvision_amount(op, space, bin, 10, is_negative(bits)), true);
      }
      const double share = sum > 0 ? part[static_cast<size_t>(c)] / sum : 1.0 / 3;
      note("policy chain", {share * (1 - own)});
      step(PictureOp::end_chain, share * (1 - own), c);
    }
    note("policy own part", {own});
    step(PictureOp::mix, own);
  }

  // Whether an operation that has a probability of its own is done.
  bool drawn(Draw draw, float probability, const char* name, std::initializer_list<double> values = {1}) {
    if (probability <= 0) return false;
    const bool happens = dice_.decide(draw, probability);
    happens ? note(name, values) : note(name);
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
    const double sigma = between(dice_.roll(Draw::blur).v[1], o_.blur_sigma[0], o_.blur_sigma[1]);
    if (drawn(Draw::blur, o_.blur, "gaussian-blur", {sigma})) blur(sigma);
    if (drawn(Draw::noise, o_.noise, "gaussian-noise", {o_.noise_sigma}))
      step(PictureOp::noise, 255 * double{o_.noise_sigma});
    const auto [low, high] = o_.jpeg_quality;
    const int quality = low + below(dice_.roll(Draw::jpeg).v[1], high - low + 1);
    if (drawn(Draw::jpeg, o_.jpeg, "jpeg", {static_cast<double>(quality)})) step(PictureOp::jpeg, quality);
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
  std::vector<DrawnValues>* const drawn_;
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

DrawnProgramme draw_programme(const AugmentOptions& options, const Dice& dice, std::vector<DrawnValues>* drawn) {
  return Drawing(options, dice, drawn).draw();
}

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
    case Policy::timm_original:
    case Policy::timm_original_r:
    case Policy::timm_v0:
    case Policy::timm_v0_r:
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
bool blurs(const AugmentOptions& o) {
  const bool by_timm = o.op_set == OpSet::three || o.op_set == OpSet::weighted_three;
  return o.blur > 0 || o.policy == Policy::three_augment || by_timm;
}

}  // namespace convolt
