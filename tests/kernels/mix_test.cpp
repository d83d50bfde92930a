// Mixtures of pictures, pixel by pixel.
#include "mix.h"

#include <gtest/gtest.h>

#include "kernel_test.h"
#include "pictures_in_blocks.h"
#include "reference/mix.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

using Vector = std::vector<double>;

// Blends, boxes at every edge, of one pixel and of all, rows that only their partner takes from, and whole pairs left
// alone.
std::vector<RowMix> some_mixes(int rows, int height, int width) {
  const RowMix kinds[] = {{0.25F, {}},
                          {0.5F, {0, 0, width / 2, height}},
                          {1, {}},
                          {0.5F, {width - 1, height - 1, 1, 1}},
                          {0, {0, 0, width, height}},
                          {0, {}},
                          {0.9F, {1, 1, width - 1, 1}},
                          {1, {}}};
  std::vector<RowMix> mixes;
  for (int n = 0; n < rows; ++n) mixes.push_back(kinds[n % 8]);
  if (rows % 2 == 1) mixes[static_cast<size_t>(rows) / 2] = {};
  return mixes;
}

class MixTest : public OpTest {
protected:
  // Of y as the kernel leaves it.
  Vector run_mix(const DeviceTensor& y, const std::vector<RowMix>& mixes, const PixelBlocks& blocks = {}) const {
    const DeviceArray<RowMix> on_device(ctx(), mixes);
    StepInput input;
    input.mixes = on_device.get();
    const DeviceArray<StepInput> step(ctx(), {input});
    run(ctx(), [&](Stream s) { mix(s, {step.get(), y, blocks}); });
    y.check_guards();
    return y.values();
  }
};

TEST_P(MixTest, ByHand) {
  // Four rows of 1 x 2 grey pixels: the outer pair blends, and of the inner one a row takes a pixel.
  const DeviceTensor y(ctx(), dtype(), {4, 1, 2, 1}, {8, 4, 1, 2, 3, 5, 16, 0});
  EXPECT_EQ(run_mix(y, {{0.75F, {}}, {0.5F, {1, 0, 1, 1}}, {1, {}}, {0.5F, {}}}), (Vector{10, 3, 1, 5, 3, 5, 12, 2}));
}

// In packets and element by element; of batches of every kind of size.
TEST_P(MixTest, AgainstReference) {
  for (const reference::PictureSize size :
       {reference::PictureSize{4, 6, 3}, {3, 5, 3}, {7, 8, 1}, {1, 1, 3}, {5, 3, 1}})
    for (const int rows : {1, 2, 3, 8, 11, 16}) {
      const Shape shape{rows, size.height, size.width, size.channels};
      const Vector before = rounded(random_values(shape.elements(), 3), dtype());
      const DeviceTensor y(ctx(), dtype(), shape, before);
      const std::vector<RowMix> mixes = some_mixes(rows, size.height, size.width);
      expect_near(run_mix(y, mixes), reference::mixed(before, size, mixes), 2e-7, epsilon(dtype()), shape.to_string());
    }
}

TEST_P(MixTest, InBlocksAsInPixels) {
  for (const PixelBlocks& l : kLayouts) {
    const int rows = 9, height = 8, width = 12;
    const Vector before = rounded(random_values(rows * height * width * l.channels, 4), dtype());
    const DeviceTensor plain(ctx(), dtype(), {rows, height, width, l.channels}, before);
    const DeviceTensor y(ctx(), dtype(), wide_shape(l, rows, height, width), in_blocks(before, l, rows, height, width));
    const std::vector<RowMix> mixes = some_mixes(rows, height, width);
    EXPECT_EQ(run_mix(y, mixes, l), in_blocks(run_mix(plain, mixes), l, rows, height, width));
  }
}

TEST_P(MixTest, WithoutMixesNothingChanges) {
  const Vector before = rounded(random_values(6 * 12, 5), dtype());
  const DeviceTensor y(ctx(), dtype(), {6, 2, 2, 3}, before);
  EXPECT_EQ(run_mix(y, std::vector<RowMix>(6)), before);
  const DeviceArray<StepInput> step(ctx(), {StepInput{}});
  run(ctx(), [&](Stream s) { mix(s, {step.get(), y, {}}); });
  EXPECT_EQ(y.values(), before);
}

INSTANTIATE_OP_TEST(MixTest);

}  // namespace
}  // namespace convolt::test
