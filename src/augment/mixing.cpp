#include "augment/mixing.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "augment/dice.h"
#include "convolt/error.h"

namespace convolt {
namespace {

Philox4 roll(const MixKey& key, uint32_t index) {
  return random4(key.seed, RandomUse::mixing, key.epoch, static_cast<uint64_t>(key.position), index);
}

// Uniform in (0, 1), 32 bits.
double inner(uint32_t bits) { return (static_cast<double>(bits) + 0.5) * 0x1p-32; }

// The logarithm of a number from Gamma(alpha). `which`: 0 or 1 of the two that are drawn at a place.
double log_gamma(double alpha, const MixKey& key, uint32_t which) {
  const double d = (alpha < 1 ? alpha + 1 : alpha) - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  for (uint32_t attempt = 0;; ++attempt) {  // of which at least 19 in 20 are taken
    const Philox4 bits = roll(key, 1 + 2 * attempt + which);
    const double normal = box_muller(inner(bits.v[0]), inner(bits.v[1]));
    const double root = 1 + c * normal;
    if (root <= 0) continue;
    const double v = root * root * root;
    if (std::log(inner(bits.v[2])) >= normal * normal / 2 + d * (1 - v + std::log(v))) continue;
    return std::log(d * v) + (alpha < 1 ? std::log(inner(bits.v[3])) / alpha : 0);
  }
}

// Where [centre - half, centre + half) lies in [0, size).
struct Side {
  int begin, length;
};
Side cut(int size, double share, uint32_t bits) {
  const int half = static_cast<int>(size * share) / 2;
  const int centre = below(bits, size);
  const int begin = std::max(centre - half, 0);
  return {begin, std::min(centre + half, size) - begin};
}

// A box of 1 - `part` of the area, but for what is rounded and cut off.
RowMix boxed(double part, int height, int width, const Philox4& bits) {
  const double share = std::sqrt(1 - part);
  const Side y = cut(height, share, bits.v[2]), x = cut(width, share, bits.v[3]);
  const int64_t area = int64_t{x.length} * y.length;
  if (area == 0) return {};
  const double left = 1 - static_cast<double>(area) / (static_cast<double>(height) * width);
  return {static_cast<float>(left), {x.begin, y.begin, x.length, y.length}};
}

void require_mixing(bool good, const char* name, const char* expected, double found) {
  if (!good) throw UsageError(fmt::format("the mixing option {} is {}: expected {}", name, found, expected));
}

}  // namespace

void check(const MixOptions& o) {
  const auto at_least_0 = [](float v) { return v >= 0 && std::isfinite(v); };
  const auto chance = [](float v) { return v >= 0 && v <= 1; };
  require_mixing(at_least_0(o.mixup_alpha), "mixup_alpha", "at least 0", double{o.mixup_alpha});
  require_mixing(at_least_0(o.cutmix_alpha), "cutmix_alpha", "at least 0", double{o.cutmix_alpha});
  require_mixing(chance(o.prob), "prob", "0 to 1", double{o.prob});
  require_mixing(chance(o.switch_prob), "switch_prob", "0 to 1", double{o.switch_prob});
  require_mixing(o.off_epoch >= 0, "off_epoch", "at least 0", o.off_epoch);
}

double draw_beta(float alpha, const MixKey& key) {
  return 1 / (1 + std::exp(log_gamma(double{alpha}, key, 1) - log_gamma(double{alpha}, key, 0)));
}

RowMix draw_mix(const MixOptions& o, int height, int width, const MixKey& key) {
  const Philox4 bits = roll(key, 0);
  const bool off = o.off_epoch > 0 && key.epoch >= static_cast<uint32_t>(o.off_epoch);
  if (!mixes(o) || off || !(uniform(bits.v[0]) < o.prob)) return {};
  const bool both = o.mixup_alpha > 0 && o.cutmix_alpha > 0;
  const bool cuts = both ? uniform(bits.v[1]) < o.switch_prob : o.cutmix_alpha > 0;
  if (cuts) return boxed(draw_beta(o.cutmix_alpha, key), height, width, bits);
  return {static_cast<float>(draw_beta(o.mixup_alpha, key)), {}};
}

void draw_mixes(const MixOptions& o, int height, int width, const MixKey& first, std::span<const float> weights,
                std::span<RowMix> mixes) {
  const size_t rows = mixes.size();
  const RowMix of_batch = draw_mix(o, height, width, first);
  for (size_t n = 0; n < rows; ++n) {
    const size_t partner = rows - 1 - n;
    const size_t drawn_at = o.mode == MixOptions::Mode::pair ? std::min(n, partner) : n;
    if (partner == n || !(weights[n] > 0) || !(weights[partner] > 0))
      mixes[n] = {};
    else if (o.mode == MixOptions::Mode::batch)
      mixes[n] = of_batch;
    else
      mixes[n] = draw_mix(o, height, width, {first.seed, first.epoch, first.position + static_cast<int64_t>(drawn_at)});
  }
}

}  // namespace convolt
