#include "policy_flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <sstream>

#include "convolt/error.h"
#include "word_table.h"

namespace convolt::cli {
namespace {

using Policy = AugmentOptions::Policy;
using EraseMode = AugmentOptions::EraseMode;

// As torchvision's and timm's training scripts call them.
const WordTable<Policy> kPolicies{{"none", Policy::none},
                                  {"ra", Policy::rand_augment},
                                  {"ta_wide", Policy::trivial_wide},
                                  {"imagenet", Policy::imagenet},
                                  {"cifar10", Policy::cifar10},
                                  {"svhn", Policy::svhn},
                                  {"3a", Policy::three_augment},
                                  {"augmix", Policy::augmix},
                                  {"original", Policy::timm_original},
                                  {"originalr", Policy::timm_original_r},
                                  {"v0", Policy::timm_v0},
                                  {"v0r", Policy::timm_v0_r}};
const WordTable<EraseMode> kEraseModes{
    {"const", EraseMode::constant}, {"rand", EraseMode::colour}, {"pixel", EraseMode::pixels}};

bool is_timm_rand(Policy policy) { return policy == Policy::timm_rand || policy == Policy::timm_rand_increasing; }
bool is_timm_pair(Policy policy) {
  return policy == Policy::timm_original || policy == Policy::timm_original_r || policy == Policy::timm_v0 ||
         policy == Policy::timm_v0_r;
}

// The sets that timm's "rand" chooses from.
const WordTable<AugmentOptions::OpSet> kOpSets{{"tweights", AugmentOptions::OpSet::weights},
                                               {"t3a", AugmentOptions::OpSet::three},
                                               {"t3aw", AugmentOptions::OpSet::weighted_three}};

[[noreturn]] void refuse(const std::string& policy, const std::string& why) {
  throw UsageError(fmt::format("--auto-augment '{}': {}", policy, why));
}

// timm's "rand-m9-n2-mstd0.5-inc1" and "original-mstd0.5": sections of a key and a number, in any order.
struct Section {
  std::string key;
  float value;
};
std::vector<Section> read_sections(const std::string& text, AugmentOptions& o) {
  std::vector<Section> found;
  std::istringstream sections(text);
  std::string section;
  std::getline(sections, section, '-');
  while (std::getline(sections, section, '-')) {
    const auto set = std::find_if(kOpSets.begin(), kOpSets.end(), [&](const auto& s) { return s.first == section; });
    if (set != kOpSets.end() && is_timm_rand(o.policy)) {
      o.op_set = set->second;
      continue;
    }
    const size_t digits = std::min(section.find_first_of("0123456789."), section.size());
    const std::optional<double> value = to_number(section.substr(digits));
    if (!value)
      refuse(text, fmt::format("'{}' has no number; expected such as rand-m9-n2-mstd0.5-p0.5-inc1, or tweights, t3a or "
                               "t3aw",
                               section));
    found.push_back({section.substr(0, digits), static_cast<float>(*value)});
  }
  return found;
}

void read_rand(const std::string& text, AugmentOptions& o) {
  o.policy = Policy::timm_rand;
  o.magnitude = 10;
  o.policy_ops = 2;
  o.policy_probability = 0.5F;
  for (const auto& [key, value] : read_sections(text, o)) {
    if (key == "m")
      o.magnitude = value;
    else if (key == "n")
      o.policy_ops = static_cast<int>(value);
    else if (key == "mstd")
      o.magnitude_std = value;
    else if (key == "mmax")
      o.magnitude_max = value;
    else if (key == "p")
      o.policy_probability = value;
    else if (key == "inc")
      o.policy = value != 0 ? Policy::timm_rand_increasing : Policy::timm_rand;
    else
      refuse(text, fmt::format("'{}{}' is not known; expected m, n, mstd, mmax, p or inc with a number, tweights, t3a "
                               "or t3aw",
                               key, value));
  }
}

void read_policy(const std::string& text, AugmentOptions& o) {
  const std::string name = text.substr(0, text.find('-'));
  if (name == "rand") return read_rand(text, o);
  const auto found = std::find_if(kPolicies.begin(), kPolicies.end(), [&](const auto& p) { return p.first == name; });
  if (found == kPolicies.end())
    refuse(text,
           "expected none, ra, ta_wide, imagenet, cifar10, svhn, augmix, 3a, rand-..., original, originalr, v0 or v0r");
  o.policy = found->second;
  o.magnitude = o.policy == Policy::augmix ? 3 : 9;
  if (o.policy == Policy::augmix && name != text)
    refuse(text, "timm's keys of AugMix are not known; expected augmix, with --augmix-severity");
  for (const auto& [key, value] : read_sections(text, o)) {
    if (key != "mstd" || !is_timm_pair(o.policy))
      refuse(text, fmt::format("'{}{}' is not known; expected original, originalr, v0 or v0r with mstd and a number",
                               key, value));
    o.magnitude_std = value;
  }
}

std::string policy_name(const AugmentOptions& o) {
  if (is_timm_rand(o.policy)) {
    const std::string most = o.magnitude_max == 10 ? "" : fmt::format("-mmax{:g}", o.magnitude_max);
    const std::string set = o.op_set == AugmentOptions::OpSet::all ? "" : "-" + name_of(o.op_set, kOpSets);
    return fmt::format("rand-m{:g}-n{}-mstd{:g}{}-p{:g}-inc{:d}{}", o.magnitude, o.policy_ops, o.magnitude_std, most,
                       o.policy_probability, o.policy == Policy::timm_rand_increasing, set);
  }
  const std::string name = name_of(o.policy, kPolicies);
  return is_timm_pair(o.policy) && o.magnitude_std > 0 ? fmt::format("{}-mstd{:g}", name, o.magnitude_std) : name;
}

bool has_magnitude(Policy policy) { return policy == Policy::rand_augment || policy == Policy::augmix; }

// A probability, then amounts, as many as are given.
template <class... Amounts>
void take(const std::vector<float>& values, float& probability, Amounts&... amounts) {
  if (values.empty()) return;
  probability = values[0];
  size_t i = 1;
  ((i < values.size() ? void(amounts = static_cast<Amounts>(values[i++])) : void()), ...);
}

// Flags of a probability and amounts, in the order in which they are applied.
struct Chance {
  const char* flag;
  std::vector<float> values;
};
std::vector<Chance> chances_of(const AugmentOptions& o) {
  return {{"perspective", {o.perspective, o.distortion}},
          {"elastic", {o.elastic, o.elastic_alpha, o.elastic_sigma}},
          {"invert", {o.invert}},
          {"posterize", {o.posterize, static_cast<float>(o.posterize_bits)}},
          {"solarize", {o.solarize, o.solarize_threshold}},
          {"autocontrast", {o.auto_contrast}},
          {"equalize", {o.equalize}},
          {"sharpness", {o.sharpness, o.sharpness_factor}},
          {"gaussian-blur", {o.blur, o.blur_sigma[0], o.blur_sigma[1]}},
          {"gaussian-noise", {o.noise, o.noise_sigma}},
          {"jpeg", {o.jpeg, static_cast<float>(o.jpeg_quality[0]), static_cast<float>(o.jpeg_quality[1])}}};
}

void add_chance(FlagSet& flags, const char* name, std::vector<float>& values, int most, const std::string& help) {
  flags.option(name, values, help).delimiter(',').expected(1, most);
}

}  // namespace

void PolicyFlags::add(FlagSet& flags) {
  flags.option(
      "--auto-augment,--aa", policy,
      "policy: none, ra (RandAugment), ta_wide (TrivialAugment), imagenet, cifar10, svhn (AutoAugment), augmix, "
      "3a (ThreeAugment), or timm's rand-m9-n2-mstd0.5-p0.5-inc1 (also mmax12, tweights, t3a, t3aw), original, "
      "originalr, v0 and v0r");
  flags.option("--ra-magnitude,--augmix-severity", magnitude, "of ra, 0 to 30 [9]; of augmix, 1 to 10 [3]");
  flags.option("--ra-ops", operations, "operations that ra gives each picture [2]").check(between(1, 12));
  add_chance(flags, "--perspective", perspective, 2, "P[,DISTORTION]: probability of a perspective [0,0.5]");
  add_chance(flags, "--elastic", elastic, 3, "P[,ALPHA,SIGMA]: of an elastic deformation [0,50,5]");
  add_chance(flags, "--invert", invert, 1, "P: of inverted colours [0]");
  add_chance(flags, "--posterize", posterize, 2, "P[,BITS]: of so many bits a colour [0,4]");
  add_chance(flags, "--solarize", solarize, 2, "P[,THRESHOLD]: of inverted levels from there, of 255, on [0,128]");
  add_chance(flags, "--autocontrast", autocontrast, 1, "P: of levels stretched to all 256 [0]");
  add_chance(flags, "--equalize", equalize, 1, "P: of an equalised histogram [0]");
  add_chance(flags, "--sharpness", sharpness, 2, "P[,FACTOR]: of sharpening, below 1 of blurring [0,2]");
  add_chance(flags, "--gaussian-blur", blur, 3, "P[,LOW,HIGH]: of a blur, sigma uniform in pixels [0,0.1,2]");
  add_chance(flags, "--gaussian-noise", noise, 2, "P[,SIGMA]: of noise, sigma of 0..1 [0,0.1]");
  add_chance(flags, "--jpeg", jpeg, 3, "P[,LOW,HIGH]: of compression as JPEG, quality uniform [0,30,95]");
  flags
      .option("--remode,--erase-mode", erase_mode, "erased rectangles become const, rand (one colour) or pixel [const]")
      .check(name_in(kEraseModes));
  flags.option("--erase-value", erase_value, "of const, after normalisation [0]");
  flags.option("--erase-scale", erase_scale, "area of erased rectangles, LOW,HIGH [0.02,0.33]")
      .delimiter(',')
      .expected(2);
  flags.option("--erase-ratio", erase_ratio, "their height / width, LOW,HIGH [0.3,3.3]").delimiter(',').expected(2);
}

void PolicyFlags::apply_to(AugmentOptions& o) const {
  read_policy(policy, o);
  if (magnitude) {
    if (!has_magnitude(o.policy)) throw UsageError("--ra-magnitude is for --auto-augment ra or augmix");
    o.magnitude = *magnitude;
  }
  if (operations) {
    if (o.policy != Policy::rand_augment) throw UsageError("--ra-ops is for --auto-augment ra");
    o.policy_ops = *operations;
  }
  take(perspective, o.perspective, o.distortion);
  take(elastic, o.elastic, o.elastic_alpha, o.elastic_sigma);
  take(invert, o.invert);
  take(posterize, o.posterize, o.posterize_bits);
  take(solarize, o.solarize, o.solarize_threshold);
  take(autocontrast, o.auto_contrast);
  take(equalize, o.equalize);
  take(sharpness, o.sharpness, o.sharpness_factor);
  take(blur, o.blur, o.blur_sigma[0], o.blur_sigma[1]);
  take(noise, o.noise, o.noise_sigma);
  take(jpeg, o.jpeg, o.jpeg_quality[0], o.jpeg_quality[1]);
  if (erase_mode) o.erase_mode = value_of(*erase_mode, kEraseModes);
  if (erase_value) o.erase_value = *erase_value;
  if (!erase_scale.empty()) std::copy(erase_scale.begin(), erase_scale.end(), o.erase_scale.begin());
  if (!erase_ratio.empty()) std::copy(erase_ratio.begin(), erase_ratio.end(), o.erase_ratio.begin());
}

void resolve_policy(const AugmentOptions& o, Resolved& r) {
  const auto numbers = [](const auto& values) {
    std::vector<std::string> words;
    for (const float v : values) words.push_back(fmt::format("{}", v));
    return words;
  };
  r["auto-augment"] = {policy_name(o)};
  if (has_magnitude(o.policy)) r["ra-magnitude"] = {fmt::format("{}", o.magnitude)};
  if (o.policy == Policy::rand_augment) r["ra-ops"] = {fmt::format("{}", o.policy_ops)};
  for (const Chance& c : chances_of(o)) r[c.flag] = numbers(c.values);
  r["remode"] = {name_of(o.erase_mode, kEraseModes)};
  r["erase-value"] = {fmt::format("{}", o.erase_value)};
  r["erase-scale"] = numbers(o.erase_scale);
  r["erase-ratio"] = numbers(o.erase_ratio);
}

std::vector<std::string> describe_policy(const AugmentOptions& o) {
  std::vector<std::string> parts;
  if (o.policy != Policy::none) parts.push_back("policy " + policy_name(o));
  for (const Chance& c : chances_of(o))
    if (c.values[0] > 0) parts.push_back(fmt::format("{} {:g}", c.flag, fmt::join(c.values, ",")));
  return parts;
}

}  // namespace convolt::cli
