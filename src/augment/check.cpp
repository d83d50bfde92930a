#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "augment/policy.h"
#include "convolt/error.h"

namespace convolt {
namespace {

void require(bool holds, const char* option, const char* range, auto... found) {
  if (holds) return;
  std::string values;
  ((values += fmt::format("{}{}", values.empty() ? "" : ", ", found)), ...);
  throw UsageError(fmt::format("augmentation option {} must be {}, found {}", option, range, values));
}

// Comparisons are written so that NaN fails them.
bool probability(float p) { return p >= 0 && p <= 1; }
bool amount(float v) { return v >= 0 && std::isfinite(v); }
bool range(const std::array<float, 2>& v) { return v[0] > 0 && v[0] <= v[1] && std::isfinite(v[1]); }

void check_programme(const AugmentOptions& o) {
  const std::pair<const char*, float> chances[] = {{"perspective", o.perspective},
                                                   {"elastic", o.elastic},
                                                   {"invert", o.invert},
                                                   {"posterize", o.posterize},
                                                   {"solarize", o.solarize},
                                                   {"auto_contrast", o.auto_contrast},
                                                   {"equalize", o.equalize},
                                                   {"sharpness", o.sharpness},
                                                   {"blur", o.blur},
                                                   {"noise", o.noise},
                                                   {"jpeg", o.jpeg},
                                                   {"policy_probability", o.policy_probability}};
  for (const auto& [name, p] : chances) require(probability(p), name, "a probability, 0 to 1", p);
  constexpr int kMostOps = 12;
  static_assert(kMostOps + 11 <= kMostPictureOps && 14 + 11 <= kMostPictureOps);
  require(o.policy_ops >= 1 && o.policy_ops <= kMostOps, "policy_ops", "1 to 12", o.policy_ops);
  using Policy = AugmentOptions::Policy;
  const float least = o.policy == Policy::augmix ? 1 : 0;
  const float most = o.policy == Policy::rand_augment ? 30 : o.policy == Policy::augmix ? 10 : o.magnitude_max;
  require(o.magnitude_max >= 1 && o.magnitude_max <= 30, "magnitude_max", "1 to 30", o.magnitude_max);
  require(o.magnitude >= least && o.magnitude <= most, "magnitude", fmt::format("{} to {}", least, most).c_str(),
          o.magnitude);
  require(o.magnitude_std >= 0, "magnitude_std", "0 or more", o.magnitude_std);
  require(probability(o.distortion), "distortion", "0 to 1", o.distortion);
  require(amount(o.elastic_alpha), "elastic_alpha", "0 or more", o.elastic_alpha);
  require(o.elastic_sigma > 0 && std::isfinite(o.elastic_sigma), "elastic_sigma", "above 0", o.elastic_sigma);
  require(o.posterize_bits >= 0 && o.posterize_bits <= 8, "posterize_bits", "0 to 8", o.posterize_bits);
  require(o.solarize_threshold >= 0 && o.solarize_threshold <= 256, "solarize_threshold", "0 to 256",
          o.solarize_threshold);
  require(amount(o.sharpness_factor), "sharpness_factor", "0 or more", o.sharpness_factor);
  require(range(o.blur_sigma) && o.blur_sigma[1] <= 10, "blur_sigma", "a rising pair above 0 and at most 10",
          o.blur_sigma[0], o.blur_sigma[1]);
  require(amount(o.noise_sigma), "noise_sigma", "0 or more", o.noise_sigma);
  require(o.jpeg_quality[0] >= 1 && o.jpeg_quality[0] <= o.jpeg_quality[1] && o.jpeg_quality[1] <= 100, "jpeg_quality",
          "a rising pair in 1 to 100", o.jpeg_quality[0], o.jpeg_quality[1]);
}

}  // namespace

void check(const SizeRamp& ramp, const AugmentOptions& full) {
  if (ramp.least == 0) return;
  if (full.height != full.width)
    throw UsageError(fmt::format("pictures that grow (--min-res) are square, found {} x {}", full.width, full.height));
  if (ramp.least < 1 || ramp.least > full.width)
    throw UsageError(
        fmt::format("the side that pictures begin with (--min-res) is 1 to {}, the side that they end with "
                    "(--train-crop-size); found {}",
                    full.width, ramp.least));
  if (ramp.start < 0 || ramp.end <= ramp.start)
    throw UsageError(
        fmt::format("pictures grow from an epoch of at least 0 (--start-ramp) to a later one (--end-ramp), "
                    "found {} and {}",
                    ramp.start, ramp.end));
  if (ramp.step < 1)
    throw UsageError(fmt::format("pictures grow by at least 1 pixel (--res-step), found {}", ramp.step));
}

void check(const AugmentOptions& options) {
  const auto& o = options;
  require(o.height >= 1 && o.height <= 16384 && o.width >= 1 && o.width <= 16384, "height and width", "1 to 16384",
          o.height, o.width);
  require(o.channels == 1 || o.channels == 3, "channels", "1 (grey) or 3 (RGB)", o.channels);
  require(o.geometry != AugmentOptions::Geometry::resize_centre_crop || (o.resize >= 1 && o.resize <= 16384), "resize",
          "1 to 16384", o.resize);
  require(o.crop_window >= 0 && o.crop_window <= 16384, "crop_window", "0 to 16384", o.crop_window);
  require(o.crop_padding >= 0 && o.crop_padding <= 16384, "crop_padding", "0 to 16384", o.crop_padding);
  require(range(o.scale) && o.scale[1] <= 1, "scale", "a rising pair above 0 and at most 1", o.scale[0], o.scale[1]);
  require(range(o.ratio), "ratio", "a rising pair above 0", o.ratio[0], o.ratio[1]);
  require(probability(o.hflip), "hflip", "a probability, 0 to 1", o.hflip);
  require(probability(o.vflip), "vflip", "a probability, 0 to 1", o.vflip);
  require(probability(o.erase), "erase", "a probability, 0 to 1", o.erase);
  require(range(o.erase_scale) && o.erase_scale[1] <= 1, "erase_scale", "a rising pair above 0 and at most 1",
          o.erase_scale[0], o.erase_scale[1]);
  require(range(o.erase_ratio), "erase_ratio", "a rising pair above 0", o.erase_ratio[0], o.erase_ratio[1]);
  require(std::isfinite(o.erase_value), "erase_value", "finite", o.erase_value);
  check_programme(o);
  require(o.rotate >= 0 && o.rotate <= 180, "rotate", "0 to 180 degrees", o.rotate);
  for (const float s : o.shear) require(s >= 0 && s <= 89, "shear", "0 to 89 degrees", s);
  require(probability(o.translate), "translate", "0 to 1 of the size", o.translate);
  // A far smaller picture would make the filter, and the time, unbounded.
  require(range(o.zoom) && o.zoom[0] >= 0.01F && o.zoom[1] <= 100, "zoom", "a rising pair in 0.01 to 100", o.zoom[0],
          o.zoom[1]);
  require(amount(o.brightness), "brightness", "0 or more", o.brightness);
  require(amount(o.contrast), "contrast", "0 or more", o.contrast);
  require(amount(o.saturation), "saturation", "0 or more", o.saturation);
  require(o.hue >= 0 && o.hue <= 0.5F, "hue", "0 to 0.5 of the circle", o.hue);
  require(probability(o.grayscale), "grayscale", "a probability, 0 to 1", o.grayscale);
  for (int c = 0; c < o.channels; ++c) {
    require(std::isfinite(o.mean[c]), "mean", "finite", o.mean[c]);
    require(o.std[c] > 0 && std::isfinite(o.std[c]), "std", "above 0", o.std[c]);
    require(probability(o.fill[c]), "fill", "0 to 1", o.fill[c]);
  }
}

}  // namespace convolt
