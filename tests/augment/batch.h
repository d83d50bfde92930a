// Runs the augment kernel on a few pictures, on any device.
#pragma once

#include <algorithm>
#include <cstring>

#include "reference/augment.h"
#include "support/device.h"

namespace convolt::test {

// A picture shown as it is.
inline AugmentSample plain_sample(std::vector<uint8_t> picture, int height, int width, int channels) {
  AugmentSample sample;
  sample.record.height = height;
  sample.record.width = sample.record.stride = width;
  sample.record.channels = channels;
  sample.record.box[2] = static_cast<float>(width);
  sample.record.box[3] = static_cast<float>(height);
  sample.picture = std::move(picture);
  return sample;
}

// The window of the picture stretched over the output.
inline void stretch(SampleRecord& r, int left, int top, int right, int bottom, const AugmentOutput& output) {
  const float box[4] = {static_cast<float>(left), static_cast<float>(top), static_cast<float>(right),
                        static_cast<float>(bottom)};
  std::copy(box, box + 4, r.box);
  r.map[0] = static_cast<float>((right - left) / static_cast<double>(output.width));
  r.map[2] = box[0];
  r.map[4] = static_cast<float>((bottom - top) / static_cast<double>(output.height));
  r.map[5] = box[1];
}

inline Buffer uploaded(Context& context, const void* data, size_t bytes) {
  Buffer buffer(context, static_cast<int64_t>(bytes));
  context.compute().copy(buffer.data(), data, buffer.bytes());
  context.compute().synchronize();
  return buffer;
}

// The batch [N, H, W, C] as the kernel writes it, one sample after another. Offsets count from the sample's pixels.
inline std::vector<double> augmented(Context& context, DType dtype, std::vector<AugmentSample> samples,
                                     const AugmentOutput& output, StepInput input = {}) {
  std::vector<uint8_t> pixels;
  std::vector<SampleRecord> records;
  AugmentArgs args;
  bool programmes = false;
  for (AugmentSample& sample : samples) {
    sample.record.offset += static_cast<int64_t>(pixels.size());
    pixels.insert(pixels.end(), sample.picture.begin(), sample.picture.end());
    records.push_back(sample.record);
    args.contrast |= sample.record.contrast != 1;
    programmes |= sample.record.programme.count > 0;
  }
  if (pixels.empty()) pixels.push_back(0);
  const Buffer device_pixels = uploaded(context, pixels.data(), pixels.size());
  const Buffer device_records = uploaded(context, records.data(), records.size() * sizeof(SampleRecord));
  input.records = device_records.as<const SampleRecord>();
  input.pixels = device_pixels.as<const uint8_t>();
  const Buffer device_input = uploaded(context, &input, sizeof input);

  const auto n = static_cast<int64_t>(samples.size());
  const DeviceTensor y(context, dtype, {n, output.height, output.width, output.channels});
  const DeviceTensor sums(context, DType::f32, {n, output.height});
  const DeviceTensor drafts(context, DType::u8, y.tensor().shape), spare(context, DType::u8, y.tensor().shape);
  const DeviceTensor kept(context, DType::u8, y.tensor().shape), wide(context, DType::f16, y.tensor().shape);
  if (programmes) {
    args.drafts = {drafts.as<uint8_t>(), spare.as<uint8_t>(), kept.as<uint8_t>(), wide.as<uint16_t>()};
  }
  args.input = device_input.as<const StepInput>();
  args.grey_sums = sums.as<float>();
  args.y = y;
  args.interpolation = output.interpolation;
  args.border = output.border;
  for (int c = 0; c < 3; ++c) {
    args.mean[c] = static_cast<float>(output.mean[static_cast<size_t>(c)]);
    args.std[c] = static_cast<float>(output.std[static_cast<size_t>(c)]);
    args.fill[c] = static_cast<float>(output.fill[static_cast<size_t>(c)]);
  }
  run(context, [&](Stream s) { augment(s, args); });
  y.check_guards();
  for (const DeviceTensor* tensor : {&sums, &drafts, &spare, &kept, &wide}) tensor->check_guards();
  return y.values();
}

// Rounding of values of the size that augmentation gives (a few units) and of positions and weights in float.
inline double augment_tolerance(DType dtype) { return 1e-4 + 4 * epsilon(dtype); }

}  // namespace convolt::test
