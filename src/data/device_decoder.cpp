#include "data/device_decoder.h"

#include <algorithm>

#include "augment/policy.h"
#include "convolt/error.h"
#include "data/plain_jpeg.h"

namespace convolt {

std::unique_ptr<DeviceDecoder> make_device_decoder(Context& context, const LoaderOptions& options) {
  if (options.decoder != Decoder::nvjpeg) return nullptr;
  if (!context.device().is_cuda())
    throw DeviceError("the decoder nvjpeg needs a CUDA device, found " + context.device().to_string() +
                      ": use --device cuda, or --decoder cpu");
  return make_nvjpeg_decoder(context);
}

Region region_on_device(const Region& wanted, const PictureSize& size) {
  constexpr int kBlock = 16, kBeside = 2;  // of 4:2:0: pixels of a block, and of a sample of chroma
  const auto begin = [](int first) { return std::max(first - kBeside, 0) / kBlock * kBlock; };
  const auto end = [](int last, int side) { return std::min((last + kBeside + kBlock - 1) / kBlock * kBlock, side); };
  const int left = begin(wanted.left), top = begin(wanted.top);
  return {left, top, end(wanted.left + wanted.width, size.width) - left,
          end(wanted.top + wanted.height, size.height) - top};
}

std::optional<View> read_view(DeviceDecoder::Worker& worker, const RawSample& sample, const AugmentOptions& options,
                              const ViewKey& key, const DecodeLimits& limits, int64_t room) {
  if (sample.height != 0 || !is_plain_jpeg(sample.content())) return std::nullopt;
  View view;
  Region region;
  try {
    const PictureHeader header = read_picture_header(sample.content());
    const PictureSize size = decoded_size(header, limits);
    const bool as_stored = header.orientation == 1 && size.height == header.height && size.width == header.width;
    if (!as_stored || size.bytes() > room) return std::nullopt;
    const SampleRecord record =
        make_record(options, size.height, size.width, size.channels, key.seed, key.epoch, key.sample);
    const Wanted wanted = wanted_of(record, options);
    if (scale_of(header, size, wanted.spacing, limits) > 1) return std::nullopt;
    region = region_on_device(wanted.region, size);
    view = view_of(record, region);
  } catch (const DataError&) {
    return std::nullopt;
  }
  if (!worker.read(sample.content(), region)) return std::nullopt;
  return view;
}

}  // namespace convolt
