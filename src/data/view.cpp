#include "data/view.h"

#include "augment/policy.h"

namespace convolt {
namespace {

// All that the device reads of a picture.
Region box_of(const SampleRecord& record) {
  const auto left = static_cast<int>(record.box[0]), top = static_cast<int>(record.box[1]);
  return {left, top, static_cast<int>(record.box[2]) - left, static_cast<int>(record.box[3]) - top};
}

}  // namespace

View decode_view(const RawSample& sample, const AugmentOptions& options, const ViewKey& key, const DecodeLimits& limits,
                 std::span<uint8_t> target, const std::string& name) {
  View view;
  SampleRecord& record = view.record;
  const auto choose = [&](const PictureSize& size) {
    record = make_record(options, size.height, size.width, size.channels, key.seed, key.epoch, key.sample);
    return box_of(record);
  };
  const Region region = decode_region(sample, limits, choose, target, name).region;
  record.stride = region.width;
  record.offset = -(int64_t{region.top} * region.width + region.left) * record.channels;
  view.bytes = int64_t{region.height} * region.width * record.channels;
  return view;
}

}  // namespace convolt
