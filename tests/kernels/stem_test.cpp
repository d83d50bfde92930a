// Pictures in blocks, and the weights that belong to them, element by element.
#include "stem.h"

#include <gtest/gtest.h>

#include "augment.h"
#include "kernel_test.h"
#include "pictures_in_blocks.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

using Vector = std::vector<double>;

class StemKernelTest : public OpTest {};

TEST_P(StemKernelTest, LoadsPicturesInBlocks) {
  for (const PixelBlocks& l : kLayouts)
    for (const int w : {12, 5 * l.block})          // not all are multiples of four
      for (const size_t floats_before : {0, 1}) {  // nor do pictures always begin on 16 bytes
        const int n = 3, h = 8;
        const Vector values = random_values(n * h * w * l.channels, 3);
        Vector moved = values;
        moved.insert(moved.begin(), floats_before, 0.);
        const DeviceTensor images(ctx(), DType::f32, {static_cast<int64_t>(moved.size())}, moved);
        const DeviceTensor plain(ctx(), dtype(), {n, h, w, l.channels}, values);  // rounds
        const Shape wide = wide_shape(l, n, h, w);
        const DeviceTensor y(ctx(), dtype(), wide, Vector(static_cast<size_t>(wide.elements())));
        StepInput input;
        input.images = images.as<float>() + floats_before;
        const DeviceArray<StepInput> step(ctx(), {input});
        run(ctx(), [&](Stream s) { load_images(s, step.get(), l, y); });
        EXPECT_EQ(y.values(), in_blocks(plain.values(), l, n, h, w));
        y.check_guards();
      }
}

TEST_P(StemKernelTest, WeightsMoveThereAndBack) {
  for (PixelBlocks l : kLayouts)
    for (const int kernel : {1, 3, 4, 7})
      for (int shift = 0; shift < l.block; ++shift) {
        l.border = {};  // weights have none
        const int wide = (kernel + shift + l.block - 1) / l.block, outputs = 5, b = l.block;
        const DeviceTensor w(ctx(), dtype(), {outputs, kernel, kernel, l.channels},
                             random_values(outputs * kernel * kernel * l.channels, 4));
        const DeviceTensor y(ctx(), dtype(), {outputs, wide, wide, b * b * l.stored}),
            back(ctx(), dtype(), {outputs, kernel, kernel, l.channels});
        run(ctx(), [&](Stream s) {
          stem_weights(s, w, l, {shift, shift}, y);
          stem_weights_backward(s, y, l, {shift, shift}, back);
        });
        EXPECT_EQ(back.values(), w.values());
        // A window of whole blocks that begins `shift` pixels early, with zeros around.
        const int side = wide * b;
        Vector padded(static_cast<size_t>(outputs * side * side * l.channels));
        const Vector narrow = w.values();
        for (int o = 0; o < outputs; ++o)
          for (int r = 0; r < kernel; ++r)
            for (int s = 0; s < kernel; ++s)
              for (int c = 0; c < l.channels; ++c)
                padded[static_cast<size_t>(((o * side + r + shift) * side + s + shift) * l.channels + c)] =
                    narrow[static_cast<size_t>(((o * kernel + r) * kernel + s) * l.channels + c)];
        EXPECT_EQ(y.values(), in_blocks(padded, l, outputs, side, side));
        y.check_guards();
        back.check_guards();
      }
}

// Whatever the augmentation does, in blocks it is the same.
TEST_P(StemKernelTest, AugmentsIntoBlocks) {
  for (const PixelBlocks& l : kLayouts)
    for (const float saturation : {1.F, 0.5F}) {
      const int n = 2, h = 8, w = 16;
      std::vector<uint8_t> pixels(20 * 30 * 3);
      for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<uint8_t>(i * 37 + i / 90 * 11);
      SampleRecord record;
      record.height = 20;
      record.width = record.stride = 30;
      record.map[0] = 1.5F;
      record.map[4] = 1.25F;
      record.box[2] = 30;
      record.box[3] = 20;
      record.saturation = saturation;
      record.contrast = 0.7F;
      record.erase[0] = record.erase[1] = 2;
      record.erase[2] = record.erase[3] = 3;
      const std::vector<SampleRecord> records{record, SampleRecord{}};
      const DeviceArray<uint8_t> on_device(ctx(), pixels);
      const DeviceArray<SampleRecord> device_records(ctx(), records);
      StepInput input;
      input.records = device_records.get();
      input.pixels = on_device.get();
      const DeviceArray<StepInput> step(ctx(), {input});
      const DeviceTensor plain(ctx(), dtype(), {n, h, w, l.channels}), sums(ctx(), DType::f32, {n, h});
      const Shape wide = wide_shape(l, n, h, w);
      const DeviceTensor y(ctx(), dtype(), wide, Vector(static_cast<size_t>(wide.elements())));
      AugmentArgs args;
      args.input = step.get();
      args.std[0] = args.std[1] = args.std[2] = 0.25F;
      args.fill[0] = 0.3F;
      args.contrast = saturation != 1.F;
      args.grey_sums = sums.as<float>();
      args.y = plain;
      run(ctx(), [&](Stream s) { augment(s, args); });
      args.y = y;
      args.blocks = l;
      run(ctx(), [&](Stream s) { augment(s, args); });
      EXPECT_EQ(y.values(), in_blocks(plain.values(), l, n, h, w));
      y.check_guards();
    }
}

INSTANTIATE_OP_TEST(StemKernelTest);

}  // namespace
}  // namespace convolt::test
