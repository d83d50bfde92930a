#include <gif_lib.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "convolt/error.h"
#include "data/codecs.h"

namespace convolt {
namespace {

int on_read(GifFileType* gif, GifByteType* into, int count) {
  auto& left = *static_cast<std::span<const uint8_t>*>(gif->UserData);
  const size_t got = std::min(left.size(), static_cast<size_t>(count));
  std::memcpy(into, left.data(), got);
  left = left.subspan(got);
  return static_cast<int>(got);
}

struct CloseGif {
  void operator()(GifFileType* gif) const { DGifCloseFile(gif, nullptr); }
};
using Gif = std::unique_ptr<GifFileType, CloseGif>;

[[noreturn]] void refuse(int error) {
  const char* const reason = GifErrorString(error);
  throw DataError("the GIF is broken: " + std::string(reason ? reason : "it ends before its picture does"));
}
void check(const Gif& gif, int result) {
  if (result == GIF_ERROR) refuse(gif->Error);
}

// Which index is transparent, if any: the last graphic control block before the picture says it.
void read_extension(const Gif& gif, int& transparent) {
  int label = 0;
  GifByteType* block = nullptr;
  check(gif, DGifGetExtension(gif.get(), &label, &block));
  GraphicsControlBlock control;
  if (label == GRAPHICS_EXT_FUNC_CODE && block != nullptr &&
      DGifExtensionToGCB(block[0], block + 1, &control) == GIF_OK)
    transparent = control.TransparentColor;
  while (block != nullptr) check(gif, DGifGetExtensionNext(gif.get(), &block));
}

void begin_picture(const Gif& gif, int& transparent) {
  for (;;) {
    GifRecordType type = UNDEFINED_RECORD_TYPE;
    check(gif, DGifGetRecordType(gif.get(), &type));
    if (type == TERMINATE_RECORD_TYPE) throw DataError("the GIF has no picture");
    if (type == EXTENSION_RECORD_TYPE) read_extension(gif, transparent);
    if (type == IMAGE_DESC_RECORD_TYPE) return check(gif, DGifGetImageDesc(gif.get()));
  }
}

class Frame {
public:
  Frame(const Gif& gif, const PictureHeader& header, int transparent) : gif_(gif), header_(header), place_(gif->Image) {
    const ColorMapObject* const map = place_.ColorMap != nullptr ? place_.ColorMap : gif->SColorMap;
    if (map == nullptr) throw DataError("the GIF has no colours");
    for (int i = 0; i < map->ColorCount; ++i) {
      const GifColorType& colour = map->Colors[i];
      colours_[static_cast<size_t>(i)] = {colour.Red, colour.Green, colour.Blue, 255};
    }
    if (transparent != NO_TRANSPARENT_COLOR) colours_[static_cast<size_t>(transparent)][3] = 0;
    outside_ = colours_[static_cast<size_t>(transparent != NO_TRANSPARENT_COLOR ? transparent : 0)];
    outside_[3] = 0;
    if (place_.Left < 0 || place_.Top < 0 || place_.Width < 1 || place_.Height < 1 ||
        place_.Width > header.width - place_.Left || place_.Height > header.height - place_.Top)
      throw DataError("the GIF's first picture is of another size than its header says");
  }

  // rgba: of the whole picture. What the frame does not cover has, without its transparency, the colour that Pillow
  // gives it.
  void read(uint8_t* rgba) {
    for (int64_t i = 0; i < int64_t{header_.width} * header_.height; ++i) std::memcpy(rgba + 4 * i, outside_.data(), 4);
    if (place_.Interlace) {
      // GIF 89a, appendix E.
      for (const auto& [first, step] : {std::pair{0, 8}, {4, 8}, {2, 4}, {1, 2}})
        for (int y = first; y < place_.Height; y += step) read_row(y, rgba);
      return;
    }
    for (int y = 0; y < place_.Height; ++y) read_row(y, rgba);
  }

private:
  void read_row(int y, uint8_t* rgba) {
    check(gif_, DGifGetLine(gif_.get(), row_.data(), place_.Width));
    uint8_t* out = rgba + (int64_t{place_.Top + y} * header_.width + place_.Left) * 4;
    for (int x = 0; x < place_.Width; ++x, out += 4) std::memcpy(out, colours_[row_[static_cast<size_t>(x)]].data(), 4);
  }

  const Gif& gif_;
  const PictureHeader& header_;
  const GifImageDesc place_;
  std::array<std::array<uint8_t, 4>, 256> colours_{};
  std::array<uint8_t, 4> outside_{};
  std::vector<GifPixelType> row_ = std::vector<GifPixelType>(static_cast<size_t>(std::max(place_.Width, 1)));
};

}  // namespace

void decode_gif(std::span<const uint8_t> file, const PictureHeader& header, uint8_t* rgba) {
  constexpr int64_t kBestLzw = 4096 * 8 / 12;  // pixels for one byte: a code of 12 bits stands for at most 4096
  if (int64_t{header.width} * header.height / kBestLzw > static_cast<int64_t>(file.size()))
    throw DataError("the GIF is too short for the size that it declares");
  std::span<const uint8_t> left = file;
  int error = 0;
  const Gif gif(DGifOpen(&left, on_read, &error));
  if (!gif) refuse(error);
  int transparent = NO_TRANSPARENT_COLOR;
  begin_picture(gif, transparent);
  Frame(gif, header, transparent).read(rgba);
}

}  // namespace convolt
