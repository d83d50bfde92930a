#include "data/render.h"

#include <algorithm>
#include <cmath>

#include "augment/policy.h"
#include "data/loader_setup.h"
#include "mix.h"

namespace convolt {
namespace {

std::vector<uint8_t> denormalised(std::span<const float> values, const AugmentOptions& options) {
  std::vector<uint8_t> levels(values.size());
  const auto channels = static_cast<size_t>(options.channels);
  for (size_t i = 0; i < values.size(); ++i) {
    const float value = values[i] * options.std[i % channels] + options.mean[i % channels];
    levels[i] = static_cast<uint8_t>(std::lround(255 * std::clamp(value, 0.F, 1.F)));
  }
  return levels;
}

}  // namespace

DecodedPicture decode_sample(const Dataset& dataset, int64_t i, const AugmentOptions& options,
                             const DecodeOptions& decoding) {
  prepare_decoder();
  const DecodeLimits limits = decode_limits({.decode = decoding, .augment = options});
  const RawSample raw = dataset.read(i);
  DecodedPicture picture;
  try {
    picture.size = raw.height > 0 ? decoded_size(raw.height, raw.width, raw.channels, limits)
                                  : decoded_size(read_picture_header(raw.content()), limits);
  } catch (const DataError& error) {
    throw DataError(dataset.name(i) + ": " + error.what());
  }
  picture.pixels.resize(static_cast<size_t>(picture.size.bytes()));
  decode(raw, limits, picture.pixels, dataset.name(i));
  return picture;
}

std::vector<uint8_t> shown(Context& context, const AugmentOptions& options, const StepInput& input, int64_t count) {
  const Shape shape{count, options.height, options.width, options.channels};
  const Buffer device_input(context, sizeof(StepInput));
  const Buffer scratch(context, std::max<int64_t>(augment_scratch(options, count), 1));
  const Buffer output(context, shape.elements() * int64_t{sizeof(float)});
  AugmentArgs args = augment_args(options, count, scratch.data());
  args.input = device_input.as<const StepInput>();
  args.y = {DType::f32, shape, output.data()};
  std::vector<float> values(static_cast<size_t>(shape.elements()));
  Queue& queue = context.compute();
  queue.copy(device_input.data(), &input, device_input.bytes());
  queue.run([args](Stream s) { augment(s, args); });
  queue.run([args](Stream s) { mix(s, {args.input, args.y, args.blocks}); });
  queue.copy(values.data(), output.data(), output.bytes());
  queue.synchronize();
  return denormalised(values, options);
}

std::vector<uint8_t> render(Context& context, const DecodedPicture& picture, const AugmentOptions& options,
                            uint64_t seed, int64_t sample, std::span<const uint32_t> epochs) {
  check(options);
  std::vector<SampleRecord> records;
  for (const uint32_t epoch : epochs)
    records.push_back(make_record(options, picture.size.height, picture.size.width, picture.size.channels, seed, epoch,
                                  static_cast<uint64_t>(sample)));
  const auto n = static_cast<int64_t>(records.size());
  const Buffer pixels(context, picture.size.bytes());
  const Buffer device_records(context, n * static_cast<int64_t>(sizeof(SampleRecord)));
  context.compute().copy(pixels.data(), picture.pixels.data(), pixels.bytes());
  context.compute().copy(device_records.data(), records.data(), device_records.bytes());
  StepInput input;
  input.records = device_records.as<const SampleRecord>();
  input.pixels = pixels.as<const uint8_t>();
  return shown(context, options, input, n);
}

}  // namespace convolt
