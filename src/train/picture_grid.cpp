#include "train/picture_grid.h"

#include <algorithm>
#include <vector>

#include "data/encode_png.h"
#include "data/render.h"

namespace convolt {

EncodedPicture picture_grid(Context& context, const AugmentOptions& o, const Batch& batch) {
  constexpr int kMost = 16, kColumns = 4;
  const int count = std::min(kMost, batch.rows), columns = std::min(count, kColumns);
  const int height = (count + kColumns - 1) / kColumns * o.height, width = columns * o.width;
  std::vector<uint8_t> levels = shown(context, o, input_of(batch), batch.mixes != nullptr ? batch.rows : count);
  std::vector<uint8_t> grid(static_cast<size_t>(height) * static_cast<size_t>(width) * static_cast<size_t>(o.channels));
  levels.resize(std::min(levels.size(), grid.size()));  // the partners were there to be mixed in
  for (size_t i = 0; i < levels.size(); ++i) {
    const auto c = i % static_cast<size_t>(o.channels);
    const int pixel = static_cast<int>(i / static_cast<size_t>(o.channels));
    const int picture = pixel / (o.height * o.width), y = pixel / o.width % o.height, x = pixel % o.width;
    const size_t place =
        static_cast<size_t>((picture / kColumns * o.height + y) * width + picture % kColumns * o.width + x);
    grid[place * static_cast<size_t>(o.channels) + c] = levels[i];
  }
  return {height, width, o.channels, encode_png(grid, height, width, o.channels)};
}

}  // namespace convolt
