#include "augment/policy.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/philox.h"

namespace convolt {
namespace {

// The numbers of one sample.
struct Dice {
  uint64_t seed;
  uint32_t epoch;
  uint64_t sample;

  Philox4 roll(Draw draw, int attempt = 0) const {
    const uint32_t index = static_cast<uint32_t>(draw) * kDrawAttempts + static_cast<uint32_t>(attempt);
    return random4(seed, RandomUse::augment, epoch, sample, index);
  }
  bool decide(Draw draw, float probability) const { return uniform(roll(draw).v[0]) < probability; }
  double between(Draw draw, double low, double high) const {
    return low + (high - low) * static_cast<double>(uniform(roll(draw).v[0]));
  }
};

double between(uint32_t bits, double low, double high) {
  return low + (high - low) * static_cast<double>(uniform(bits));
}

// Uniform in 0..count-1.
int below(uint32_t bits, int count) {
  return static_cast<int>((uint64_t{bits} * static_cast<uint64_t>(std::max(count, 1))) >> 32);
}

// Python's round(): halves go to the even neighbour, the default rounding mode.
int round_half_even(double value) { return static_cast<int>(std::nearbyint(value)); }

// A window of the picture in pixels.
struct Window {
  int left = 0, top = 0, width = 0, height = 0;
};

struct Placement {
  Affine map;  // output of the crop -> source
  Window box;  // the part of the source that exists for this sample
};

// `window` stretched over the whole output.
Placement stretched(const AugmentOptions& options, const Window& window) {
  return {{{static_cast<double>(window.width) / options.width, 0, static_cast<double>(window.left), 0,
            static_cast<double>(window.height) / options.height, static_cast<double>(window.top)}},
          window};
}

// torchvision's CenterCrop along one axis: where the crop begins in the resized picture, negative where that is padded.
int centre_crop_start(int size, int crop) {
  return crop > size ? -((crop - size) / 2) : round_half_even((size - crop) / 2.0);
}

Placement resize_centre_crop(const AugmentOptions& options, const Window& whole) {
  const auto [shorter, longer] = std::minmax({whole.width, whole.height});
  const int resized_longer = static_cast<int>(std::max<int64_t>(int64_t{options.resize} * longer / shorter, 1));
  const int width = whole.width <= whole.height ? options.resize : resized_longer;
  const int height = whole.width <= whole.height ? resized_longer : options.resize;
  const double x_scale = static_cast<double>(whole.width) / width, y_scale = static_cast<double>(whole.height) / height;
  return {{{x_scale, 0, x_scale * centre_crop_start(width, options.width), 0, y_scale,
            y_scale * centre_crop_start(height, options.height)}},
          whole};
}

// torchvision's RandomResizedCrop.get_params: ten attempts, then the largest centred window of an allowed ratio.
Window random_resized_crop(const AugmentOptions& options, const Window& whole, const Dice& dice) {
  const double area = static_cast<double>(whole.width) * whole.height;
  const auto [low, high] = options.ratio;
  for (int attempt = 0; attempt < 10; ++attempt) {
    const Philox4 bits = dice.roll(Draw::crop, attempt);
    const double target = area * between(bits.v[0], options.scale[0], options.scale[1]);
    const double ratio = std::exp(between(bits.v[1], std::log(low), std::log(high)));
    const int width = round_half_even(std::sqrt(target * ratio)), height = round_half_even(std::sqrt(target / ratio));
    if (width > 0 && width <= whole.width && height > 0 && height <= whole.height)
      return {below(bits.v[3], whole.width - width + 1), below(bits.v[2], whole.height - height + 1), width, height};
  }
  Window window = whole;
  const double ratio = static_cast<double>(whole.width) / whole.height;
  if (ratio < low) window.height = std::max(round_half_even(whole.width / double{low}), 1);
  if (ratio > high) window.width = std::max(round_half_even(whole.height * double{high}), 1);
  window.left = (whole.width - window.width) / 2;
  window.top = (whole.height - window.height) / 2;
  return window;
}

// torchvision's RandomCrop with padding and pad_if_needed along one axis: where the crop begins in the picture.
int random_crop_start(uint32_t bits, int size, int padding, int crop) {
  const int border = padding + std::max(crop - size - 2 * padding, 0);
  return below(bits, size + 2 * border - crop + 1) - border;
}

Placement crop_with_padding(const AugmentOptions& options, const Window& whole, const Dice& dice) {
  const Philox4 bits = dice.roll(Draw::crop);
  const int top = random_crop_start(bits.v[0], whole.height, options.crop_padding, options.height);
  const int left = random_crop_start(bits.v[1], whole.width, options.crop_padding, options.width);
  return {{{1, 0, static_cast<double>(left), 0, 1, static_cast<double>(top)}}, whole};
}

Placement place(const AugmentOptions& options, const Window& whole, const Dice& dice) {
  switch (options.geometry) {
    case AugmentOptions::Geometry::resize_centre_crop:
      return resize_centre_crop(options, whole);
    case AugmentOptions::Geometry::random_resized_crop:
      return stretched(options, random_resized_crop(options, whole, dice));
    case AugmentOptions::Geometry::crop_with_padding:
      return crop_with_padding(options, whole, dice);
    case AugmentOptions::Geometry::none:
      break;
  }
  return stretched(options, whole);
}

struct Flips {
  bool horizontal = false, vertical = false;
};
Flips draw_flips(const AugmentOptions& options, const Dice& dice) {
  const bool odd_epoch = options.alternating_flip && dice.epoch % 2 == 1;
  const Dice drawn{dice.seed, options.alternating_flip ? 0 : dice.epoch, dice.sample};
  return {drawn.decide(Draw::hflip, options.hflip) != odd_epoch, dice.decide(Draw::vflip, options.vflip)};
}
Affine flipped(const AugmentOptions& options, const Flips& flips) {
  Affine map;
  if (flips.horizontal) {
    map.m[0] = -1;
    map.m[2] = options.width;
  }
  if (flips.vertical) {
    map.m[4] = -1;
    map.m[5] = options.height;
  }
  return map;
}

Turn draw_turn(const AugmentOptions& options, const Dice& dice) {
  const Philox4 shear = dice.roll(Draw::shear), shift = dice.roll(Draw::translate);
  const double most_x = double{options.translate} * options.width, most_y = double{options.translate} * options.height;
  return {.angle = dice.between(Draw::rotate, -options.rotate, options.rotate),
          .shear_x = between(shear.v[0], -options.shear[0], options.shear[0]),
          .shear_y = between(shear.v[1], -options.shear[1], options.shear[1]),
          .zoom = dice.between(Draw::zoom, options.zoom[0], options.zoom[1]),
          .x = round_half_even(between(shift.v[0], -most_x, most_x)),
          .y = round_half_even(between(shift.v[1], -most_y, most_y))};
}

float jitter(const Dice& dice, Draw draw, float amount) {
  return static_cast<float>(dice.between(draw, std::max(0.0, 1 - double{amount}), 1 + double{amount}));
}

// torchvision's RandomErasing.get_params with its default scale and ratio; after ten misfits nothing is erased.
void place_erasing(const AugmentOptions& options, const Dice& dice, SampleRecord& record) {
  if (!dice.decide(Draw::erase, options.erase)) return;
  const double area = static_cast<double>(options.width) * options.height;
  for (int attempt = 0; attempt < 10; ++attempt) {
    const Philox4 bits = dice.roll(Draw::erase_place, attempt);
    const double target = area * between(bits.v[0], 0.02, 0.33);
    const double ratio = std::exp(between(bits.v[1], std::log(0.3), std::log(3.3)));
    const int height = round_half_even(std::sqrt(target * ratio)), width = round_half_even(std::sqrt(target / ratio));
    if (height >= options.height || width >= options.width) continue;
    record.erase[0] = below(bits.v[3], options.width - width + 1);
    record.erase[1] = below(bits.v[2], options.height - height + 1);
    record.erase[2] = width;
    record.erase[3] = height;
    return;
  }
}

void require(bool holds, const char* option, const char* range, auto... found) {
  if (holds) return;
  std::string values;
  ((values += fmt::format("{}{}", values.empty() ? "" : ", ", found)), ...);
  throw UsageError(fmt::format("augmentation option {} must be {}, found {}", option, range, values));
}

}  // namespace

Affine turned(const Turn& turn, int height, int width) {
  constexpr double kDegree = std::numbers::pi / 180;
  const double tan_x = std::tan(turn.shear_x * kDegree), tan_y = std::tan(turn.shear_y * kDegree);
  const double c = std::cos(turn.angle * kDegree), s = std::sin(turn.angle * kDegree);
  // Forward: [c, s; -s, c] [1, 0; -tan_y, 1] [1, -tan_x; 0, 1], of determinant 1.
  const double fa = c - s * tan_y, fc = -s - c * tan_y;
  const double fb = s - fa * tan_x, fd = c - fc * tan_x;
  const double m0 = fd / turn.zoom, m1 = -fb / turn.zoom, m3 = -fc / turn.zoom, m4 = fa / turn.zoom;
  const double cx = width / 2.0, cy = height / 2.0, x = cx + turn.x, y = cy + turn.y;
  return {{m0, m1, cx - m0 * x - m1 * y, m3, m4, cy - m3 * x - m4 * y}};
}

SampleRecord make_record(const AugmentOptions& options, int picture_height, int picture_width, int picture_channels,
                         uint64_t seed, uint32_t epoch, uint64_t sample) {
  SampleRecord record;
  if (picture_height <= 0 || picture_width <= 0) return record;
  record.height = picture_height;
  record.width = record.stride = picture_width;
  record.channels = picture_channels;

  const Dice dice{seed, epoch, sample};
  const Placement placement = place(options, {0, 0, picture_width, picture_height}, dice);
  const Affine map = placement.map * flipped(options, draw_flips(options, dice)) *
                     turned(draw_turn(options, dice), options.height, options.width);
  std::transform(map.m, map.m + 6, record.map, [](double v) { return static_cast<float>(v); });
  record.axis_aligned = record.map[1] == 0 && record.map[3] == 0 ? 1 : 0;
  const Window& box = placement.box;
  record.box[0] = static_cast<float>(box.left);
  record.box[1] = static_cast<float>(box.top);
  record.box[2] = static_cast<float>(box.left + box.width);
  record.box[3] = static_cast<float>(box.top + box.height);

  record.brightness = jitter(dice, Draw::brightness, options.brightness);
  record.contrast = jitter(dice, Draw::contrast, options.contrast);
  record.saturation = jitter(dice, Draw::saturation, options.saturation);
  record.hue = static_cast<float>(dice.between(Draw::hue, -options.hue, options.hue));
  record.to_grey = dice.decide(Draw::grayscale, options.grayscale) ? 1 : 0;
  place_erasing(options, dice, record);
  return record;
}

std::vector<DrawnValues> explain(const AugmentOptions& o, int picture_height, int picture_width, uint64_t seed,
                                 uint32_t epoch, uint64_t sample) {
  const SampleRecord record = make_record(o, picture_height, picture_width, 3, seed, epoch, sample);
  const Dice dice{seed, epoch, sample};
  const Affine crop = place(o, {0, 0, picture_width, picture_height}, dice).map;
  const Flips flips = draw_flips(o, dice);
  const Turn turn = draw_turn(o, dice);
  std::vector<DrawnValues> drawn{
      {"crop", {crop.m[2], crop.m[5], crop.m[2] + crop.m[0] * o.width, crop.m[5] + crop.m[4] * o.height}}};
  const auto add = [&](bool on, const char* operation, std::vector<double> values) {
    if (on) drawn.push_back({operation, std::move(values)});
  };
  const auto one = [](float v) { return std::vector{static_cast<double>(v)}; };
  add(o.hflip > 0 || o.alternating_flip, "hflip", {flips.horizontal ? 1.0 : 0.0});
  add(o.vflip > 0, "vflip", {flips.vertical ? 1.0 : 0.0});
  add(o.shear[0] > 0 || o.shear[1] > 0, "shear", {turn.shear_x, turn.shear_y});
  add(o.zoom != std::array{1.F, 1.F}, "zoom", {turn.zoom});
  add(o.rotate > 0, "rotate", {turn.angle});
  add(o.translate > 0, "translate", {static_cast<double>(turn.x), static_cast<double>(turn.y)});
  add(o.brightness > 0, "brightness", one(record.brightness));
  add(o.contrast > 0, "contrast", one(record.contrast));
  add(o.saturation > 0, "saturation", one(record.saturation));
  add(o.hue > 0, "hue", one(record.hue));
  add(o.grayscale > 0, "grayscale", {static_cast<double>(record.to_grey)});
  const bool erased = record.erase[2] > 0;
  add(o.erase > 0, "erase", erased ? std::vector<double>(record.erase, record.erase + 4) : std::vector<double>{});
  return drawn;
}

AugmentArgs augment_args(const AugmentOptions& options) {
  AugmentArgs args;
  std::copy(options.mean.begin(), options.mean.end(), args.mean);
  std::copy(options.std.begin(), options.std.end(), args.std);
  std::copy(options.fill.begin(), options.fill.end(), args.fill);
  args.interpolation = options.interpolation;
  args.border = options.border;
  args.contrast = options.contrast > 0;
  return args;
}

void check(const AugmentOptions& options) {
  const auto& o = options;
  // Comparisons are written so that NaN fails them.
  const auto probability = [](float p) { return p >= 0 && p <= 1; };
  const auto amount = [](float v) { return v >= 0 && std::isfinite(v); };
  const auto range = [](const std::array<float, 2>& v) { return v[0] > 0 && v[0] <= v[1] && std::isfinite(v[1]); };
  require(o.height >= 1 && o.height <= 16384 && o.width >= 1 && o.width <= 16384, "height and width", "1 to 16384",
          o.height, o.width);
  require(o.channels == 1 || o.channels == 3, "channels", "1 (grey) or 3 (RGB)", o.channels);
  require(o.geometry != AugmentOptions::Geometry::resize_centre_crop || (o.resize >= 1 && o.resize <= 16384), "resize",
          "1 to 16384", o.resize);
  require(o.crop_padding >= 0 && o.crop_padding <= 16384, "crop_padding", "0 to 16384", o.crop_padding);
  require(range(o.scale) && o.scale[1] <= 1, "scale", "a rising pair above 0 and at most 1", o.scale[0], o.scale[1]);
  require(range(o.ratio), "ratio", "a rising pair above 0", o.ratio[0], o.ratio[1]);
  require(probability(o.hflip), "hflip", "a probability, 0 to 1", o.hflip);
  require(probability(o.vflip), "vflip", "a probability, 0 to 1", o.vflip);
  require(probability(o.erase), "erase", "a probability, 0 to 1", o.erase);
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
