#include "data/view.h"

#include <algorithm>
#include <cmath>

#include "augment/policy.h"

namespace convolt {
namespace {

// All that the device reads of a picture.
Region box_of(const SampleRecord& record) {
  const auto left = static_cast<int>(record.box[0]), top = static_cast<int>(record.box[1]);
  return {left, top, static_cast<int>(record.box[2]) - left, static_cast<int>(record.box[3]) - top};
}

// The least distance in the source of two samples that are 1 apart, the smaller singular value of the map; half of it
// where the picture is turned: then its edges lie across the pixels, which part of them is outside is told pixel by
// pixel, and so it takes twice as many of them (tests/data/scaled_decode_test.cpp measures what comes of it).
double spacing_of(const SampleRecord& record) {
  const double a = record.map[0], b = record.map[1], c = record.map[3], d = record.map[4];
  if (record.axis_aligned) return std::min(std::abs(a), std::abs(d));
  const double squares = a * a + b * b + c * c + d * d, area = std::abs(a * d - b * c);
  const double larger = std::sqrt((squares + std::sqrt(std::max(squares * squares - 4 * area * area, 0.0))) / 2);
  return larger > 0 ? area / larger / 2 : 0;
}

// The record of the picture as it was decoded. The box may grow by a part of a pixel.
void rescale(SampleRecord& record, const DecodedRegion& decoded) {
  const Region box = covering(decoded, box_of(record));
  record.height = decoded.size.height;
  record.width = decoded.size.width;
  const Rescaled* const axes[] = {&decoded.x, &decoded.y};
  for (int axis = 0; axis < 2; ++axis)
    for (int i = 3 * axis; i < 3 * axis + 3; ++i) {
      const double shift = i % 3 == 2 ? axes[axis]->shift : 0;
      record.map[i] = static_cast<float>(record.map[i] * axes[axis]->factor + shift);
    }
  const int edges[] = {box.left, box.top, box.left + box.width, box.top + box.height};
  std::copy(edges, edges + 4, record.box);
}

}  // namespace

Wanted wanted_of(const SampleRecord& record, const AugmentOptions& options) {
  // The nearest pixel is the picture's own.
  const bool blends = options.interpolation != AugmentOptions::Interpolation::nearest;
  return {box_of(record), blends ? spacing_of(record) : 1};
}

View view_of(const SampleRecord& record, const Region& region) {
  View view{record, int64_t{region.height} * region.width * record.channels};
  view.record.stride = region.width;
  view.record.offset = -(int64_t{region.top} * region.width + region.left) * record.channels;
  return view;
}

void copy_rows(const PixelRows& from, uint8_t* to) {
  for (int64_t i = 0; i < from.count; ++i) std::copy_n(from.first + i * from.stride, from.bytes, to + i * from.bytes);
}

View decode_view(const RawSample& sample, const AugmentOptions& options, const ViewKey& key, const DecodeLimits& limits,
                 std::span<uint8_t> target, const std::string& name) {
  SampleRecord record;
  const auto choose = [&](const PictureSize& size) {
    record = make_record(options, size.height, size.width, size.channels, key.seed, key.epoch, key.sample);
    return wanted_of(record, options);
  };
  const DecodedRegion decoded = decode_region(sample, limits, choose, target, name);
  rescale(record, decoded);
  return view_of(record, decoded.region);
}

std::optional<View> view_in_place(const RawSample& sample, const AugmentOptions& options, const ViewKey& key,
                                  const DecodeLimits& limits, PixelRows& rows, const std::string& name) {
  if (sample.kept.empty() || !is_shown_as_is(sample, limits, name)) return std::nullopt;
  const SampleRecord record =
      make_record(options, sample.height, sample.width, sample.channels, key.seed, key.epoch, key.sample);
  const Region box = box_of(record);
  const int64_t pixel = sample.channels, stride = sample.width * pixel;
  rows = {sample.kept.data() + box.top * stride + box.left * pixel, box.height, box.width * pixel, stride};
  return view_of(record, box);
}

}  // namespace convolt
