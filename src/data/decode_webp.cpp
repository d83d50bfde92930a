#include <webp/decode.h>
#include <webp/demux.h>

#include <cstring>
#include <memory>

#include "convolt/error.h"
#include "data/codecs.h"

namespace convolt {
namespace {

struct Delete {
  void operator()(WebPAnimDecoder* decoder) const { WebPAnimDecoderDelete(decoder); }
};

[[noreturn]] void refuse() { throw DataError("the WebP is broken or ends before its picture does"); }

void decode_first_frame(const WebPData& data, const PictureHeader& header, uint8_t* rgba) {
  WebPAnimDecoderOptions options;
  if (!WebPAnimDecoderOptionsInit(&options)) throw DataError("libwebpdemux is not the version that this was built for");
  options.color_mode = MODE_RGBA;
  const std::unique_ptr<WebPAnimDecoder, Delete> decoder(WebPAnimDecoderNew(&data, &options));
  WebPAnimInfo info;
  uint8_t* frame = nullptr;
  int time = 0;
  if (!decoder || !WebPAnimDecoderGetInfo(decoder.get(), &info) ||
      static_cast<int>(info.canvas_width) != header.width || static_cast<int>(info.canvas_height) != header.height ||
      !WebPAnimDecoderGetNext(decoder.get(), &frame, &time))
    refuse();
  std::memcpy(rgba, frame, static_cast<size_t>(header.width) * static_cast<size_t>(header.height) * 4);
}

}  // namespace

void decode_webp(std::span<const uint8_t> file, const PictureHeader& header, uint8_t* rgba) {
  WebPBitstreamFeatures features;
  if (WebPGetFeatures(file.data(), file.size(), &features) != VP8_STATUS_OK) refuse();
  if (features.has_animation) return decode_first_frame({file.data(), file.size()}, header, rgba);
  const int stride = header.width * 4;
  const auto bytes = static_cast<size_t>(stride) * static_cast<size_t>(header.height);
  if (features.width != header.width || features.height != header.height)
    throw DataError("the WebP declares two different sizes");
  if (WebPDecodeRGBAInto(file.data(), file.size(), rgba, bytes, stride) == nullptr) refuse();
}

}  // namespace convolt
