#include "train/picture_grid.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "augment/policy.h"
#include "data/encode_png.h"
#include "train/batch_input.h"

namespace convolt {
namespace {

// f32 [count, height, width, channels], normalised.
std::vector<float> augmented(Context& context, const AugmentOptions& o, const Batch& batch, int count) {
  const Shape shape{count, o.height, o.width, o.channels};
  const Buffer input(context, sizeof(StepInput)), pictures(context, shape.elements() * int64_t{sizeof(float)});
  const Buffer grey_sums(context, int64_t{count} * o.height * int64_t{sizeof(float)});
  const StepInput values = input_of(batch);
  AugmentArgs args = augment_args(o);
  args.input = input.as<const StepInput>();
  args.grey_sums = grey_sums.as<float>();
  args.y = {DType::f32, shape, pictures.data()};
  std::vector<float> result(static_cast<size_t>(shape.elements()));
  Queue& queue = context.compute();
  queue.copy(input.data(), &values, sizeof values);
  queue.run([&](Stream s) { augment(s, args); });
  queue.copy(result.data(), pictures.data(), pictures.bytes());
  queue.synchronize();
  return result;
}

}  // namespace

EncodedPicture picture_grid(Context& context, const AugmentOptions& o, const Batch& batch) {
  constexpr int kMost = 16, kColumns = 4;
  const int count = std::min(kMost, batch.rows), columns = std::min(count, kColumns);
  const int height = (count + kColumns - 1) / kColumns * o.height, width = columns * o.width;
  const std::vector<float> values = augmented(context, o, batch, count);
  std::vector<uint8_t> grid(static_cast<size_t>(height) * static_cast<size_t>(width) * static_cast<size_t>(o.channels));
  for (size_t i = 0; i < values.size(); ++i) {
    const auto c = i % static_cast<size_t>(o.channels);
    const int pixel = static_cast<int>(i / static_cast<size_t>(o.channels));
    const int picture = pixel / (o.height * o.width), y = pixel / o.width % o.height, x = pixel % o.width;
    const size_t place =
        static_cast<size_t>((picture / kColumns * o.height + y) * width + picture % kColumns * o.width + x);
    const float level = 255 * (values[i] * o.std[c] + o.mean[c]);
    grid[place * static_cast<size_t>(o.channels) + c] =
        static_cast<uint8_t>(std::lround(std::clamp(level, 0.F, 255.F)));
  }
  return {height, width, o.channels, encode_png(grid, height, width, o.channels)};
}

}  // namespace convolt
