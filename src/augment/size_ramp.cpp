#include <algorithm>

#include "augment/dice.h"
#include "augment/policy.h"

namespace convolt {
namespace {

int side_at(const SizeRamp& ramp, int full, int64_t epoch) {
  if (ramp.least == 0 || epoch >= ramp.end) return full;
  if (epoch <= ramp.start) return ramp.least;
  const double way = static_cast<double>(epoch - ramp.start) / (ramp.end - ramp.start);
  const double side = ramp.least + way * (full - ramp.least);
  return std::clamp(round_half_even(side / ramp.step) * ramp.step, ramp.least, full);
}

}  // namespace

AugmentOptions at_epoch(const AugmentOptions& full, const SizeRamp& ramp, int64_t epoch) {
  const int side = side_at(ramp, full.width, epoch);
  AugmentOptions o = full;
  if (side == full.width) return o;
  o.height = o.width = side;
  o.resize = std::max(side, round_half_even(static_cast<double>(full.resize) * side / full.width));
  if (o.crop_window == 0) o.crop_window = full.width;
  return o;
}

std::vector<AugmentOptions> sizes_of(const AugmentOptions& full, const SizeRamp& ramp) {
  std::vector<AugmentOptions> sizes{full};
  for (int64_t epoch = ramp.least == 0 ? 0 : ramp.end; epoch-- > 0;)
    if (const AugmentOptions o = at_epoch(full, ramp, epoch); o.width != sizes.back().width) sizes.push_back(o);
  return sizes;
}

}  // namespace convolt
