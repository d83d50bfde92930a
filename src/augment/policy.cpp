#include "augment/policy.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "augment/dice.h"
#include "augment/programme.h"

namespace convolt {
namespace {

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
  const int height = options.crop_window > 0 ? options.crop_window : options.height;
  const int width = options.crop_window > 0 ? options.crop_window : options.width;
  const int top = random_crop_start(bits.v[0], whole.height, options.crop_padding, height);
  const int left = random_crop_start(bits.v[1], whole.width, options.crop_padding, width);
  return {stretched(options, {left, top, width, height}).map, whole};
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

// torchvision's RandomErasing.get_params; after ten misfits nothing is erased.
void place_erasing(const AugmentOptions& options, const Dice& dice, SampleRecord& record) {
  if (!dice.decide(Draw::erase, options.erase)) return;
  const double area = static_cast<double>(options.width) * options.height;
  const auto [low, high] = options.erase_ratio;
  for (int attempt = 0; attempt < 10; ++attempt) {
    const Philox4 bits = dice.roll(Draw::erase_place, attempt);
    const double target = area * between(bits.v[0], options.erase_scale[0], options.erase_scale[1]);
    const double ratio = std::exp(between(bits.v[1], std::log(low), std::log(high)));
    const int height = round_half_even(std::sqrt(target * ratio)), width = round_half_even(std::sqrt(target / ratio));
    if (height >= options.height || width >= options.width) continue;
    record.erase[0] = below(bits.v[3], options.width - width + 1);
    record.erase[1] = below(bits.v[2], options.height - height + 1);
    record.erase[2] = width;
    record.erase[3] = height;
    return;
  }
}

// As kernels/exec/normals.h does it for pixels.
std::array<float, 3> colour_of(const Philox4& bits) {
  const double above_0 = 1 - static_cast<double>(uniform(bits.v[0])), turns = uniform(bits.v[1]);
  return {static_cast<float>(box_muller(above_0, turns)), static_cast<float>(box_muller(above_0, turns - 0.25)),
          static_cast<float>(normal(bits.v[2], bits.v[3]))};
}

void fill_erasing(const AugmentOptions& options, const Dice& dice, SampleRecord& record) {
  place_erasing(options, dice, record);
  if (record.erase[2] == 0) return;
  std::array<float, 3> colour;
  colour.fill(options.erase_value);
  if (options.erase_mode == AugmentOptions::EraseMode::colour) colour = colour_of(dice.roll(Draw::erase_colour));
  std::copy(colour.begin(), colour.end(), record.erase_value);
  if (options.erase_mode != AugmentOptions::EraseMode::pixels) return;
  const Philox4 bits = dice.roll(Draw::erase_colour, 1);
  record.erase_key = std::max<uint64_t>(uint64_t{bits.v[0]} << 32 | bits.v[1], 1);
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
  Affine of_policy;
  if (may_have_programme(options)) {
    const DrawnProgramme drawn = draw_programme(options, dice);
    of_policy = drawn.map;
    record.programme = drawn.programme;
  }
  const Affine map = placement.map * flipped(options, draw_flips(options, dice)) * of_policy *
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
  fill_erasing(options, dice, record);
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
  draw_programme(o, dice, &drawn);
  add(o.brightness > 0, "brightness", one(record.brightness));
  add(o.contrast > 0, "contrast", one(record.contrast));
  add(o.saturation > 0, "saturation", one(record.saturation));
  add(o.hue > 0, "hue", one(record.hue));
  add(o.grayscale > 0, "grayscale", {static_cast<double>(record.to_grey)});
  const bool erased = record.erase[2] > 0;
  add(o.erase > 0, "erase", erased ? std::vector<double>(record.erase, record.erase + 4) : std::vector<double>{});
  return drawn;
}

namespace {

// Where the parts of the scratch begin.
struct ScratchLayout {
  int64_t drafts, spare, kept, wide, bytes;  // grey_sums are at 0; a part that is not needed is empty

  ScratchLayout(const AugmentOptions& o, int64_t batch) {
    const auto aligned = [](int64_t n) { return (n + 255) / 256 * 256; };
    const int64_t pictures = may_have_programme(o) ? batch * o.height * o.width * o.channels : 0;
    drafts = o.contrast > 0 ? aligned(batch * o.height * 4) : 0;
    spare = drafts + aligned(pictures);
    kept = spare + aligned(pictures);
    wide = kept + (mixes_chains(o) ? aligned(pictures) : 0);
    bytes = wide + (mixes_chains(o) || blurs(o) ? aligned(2 * pictures) : 0);
  }
};

}  // namespace

int64_t augment_scratch(const AugmentOptions& options, int64_t batch) { return ScratchLayout(options, batch).bytes; }

int augment_launches(const AugmentOptions& options) {
  return 1 + (options.contrast > 0 ? 1 : 0) + (may_have_programme(options) ? 2 : 0);
}

// A draft is written and read, and read and written by each step.
int64_t augment_scratch_traffic(const AugmentOptions& options, int64_t batch) {
  const int64_t picture = int64_t{options.height} * options.width * options.channels;
  const int64_t moves = may_have_programme(options) ? 2 + 2 * most_steps(options) : 0;
  return batch * picture * moves;
}

AugmentArgs augment_args(const AugmentOptions& options, int64_t batch, void* scratch) {
  AugmentArgs args;
  const ScratchLayout layout(options, batch);
  auto* const memory = static_cast<uint8_t*>(scratch);
  if (options.contrast > 0) args.grey_sums = reinterpret_cast<float*>(memory);
  if (may_have_programme(options)) {
    args.drafts.bytes = memory + layout.drafts;
    args.drafts.spare = memory + layout.spare;
    if (layout.wide > layout.kept) args.drafts.kept = memory + layout.kept;
    if (layout.bytes > layout.wide) args.drafts.wide = reinterpret_cast<uint16_t*>(memory + layout.wide);
  }
  std::copy(options.mean.begin(), options.mean.end(), args.mean);
  std::copy(options.std.begin(), options.std.end(), args.std);
  std::copy(options.fill.begin(), options.fill.end(), args.fill);
  args.interpolation = options.interpolation;
  args.border = options.border;
  args.contrast = options.contrast > 0;
  return args;
}

}  // namespace convolt
