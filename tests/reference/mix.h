// Mixtures of the rows of a batch in double, one pixel and one class after the other.
#pragma once

#include <cstdint>
#include <vector>

#include "convolt/step.h"

namespace convolt::reference {

struct PictureSize {
  int height = 0, width = 0, channels = 0;
};
// Pictures [rows, height, width, channels], mixed as convolt/step.h says.
std::vector<double> mixed(const std::vector<double>& pictures, PictureSize size, const std::vector<RowMix>& mixes);

// [rows, classes] of labels: timm's mixup_target (timm/data/mixup.py) with a part for each row.
std::vector<double> mixed_targets(const std::vector<int32_t>& labels, int64_t classes, double smoothing,
                                  const std::vector<RowMix>& mixes);

}  // namespace convolt::reference
