#include "reference/mix.h"

#include <cstddef>

namespace convolt::reference {

std::vector<double> mixed(const std::vector<double>& pictures, PictureSize size, const std::vector<RowMix>& mixes) {
  std::vector<double> out = pictures;
  const size_t rows = mixes.size(), row_size = pictures.size() / rows;
  for (size_t n = 0; n < rows; ++n)
    for (size_t i = 0; i < row_size; ++i) {
      const double own = pictures[n * row_size + i], partner = pictures[(rows - 1 - n) * row_size + i];
      const int pixel = static_cast<int>(i) / size.channels, x = pixel % size.width, y = pixel / size.width;
      const auto& [part, box] = mixes[n];
      const bool in_box = x >= box[0] && x < box[0] + box[2] && y >= box[1] && y < box[1] + box[3];
      const double kept = box[2] == 0 ? static_cast<double>(part) : in_box ? 0 : 1;
      out[n * row_size + i] = kept * own + (1 - kept) * partner;
    }
  return out;
}

std::vector<double> mixed_targets(const std::vector<int32_t>& labels, int64_t classes, double smoothing,
                                  const std::vector<RowMix>& mixes) {
  const double off = smoothing / static_cast<double>(classes), on = 1 - smoothing + off;
  std::vector<double> targets;
  for (size_t n = 0; n < labels.size(); ++n) {
    const int32_t own = labels[n], other = labels[labels.size() - 1 - n];
    const auto part = static_cast<double>(mixes[n].part);
    for (int32_t k = 0; k < classes; ++k)
      targets.push_back(part * (k == own ? on : off) + (1 - part) * (k == other ? on : off));
  }
  return targets;
}

}  // namespace convolt::reference
