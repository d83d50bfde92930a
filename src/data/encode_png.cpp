#include "data/encode_png.h"

#include <png.h>

#include "convolt/error.h"

namespace convolt {

std::string encode_png(std::span<const uint8_t> pixels, int height, int width, int channels) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.height = static_cast<png_uint_32>(height);
  image.width = static_cast<png_uint_32>(width);
  image.format = channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  std::string file(PNG_IMAGE_PNG_SIZE_MAX(image), '\0');
  png_alloc_size_t bytes = file.size();
  if (png_image_write_to_memory(&image, file.data(), &bytes, 0, pixels.data(), 0, nullptr) == 0)
    throw OutOfMemoryError(std::string("cannot encode a PNG: ") + image.message);
  file.resize(bytes);
  return file;
}

}  // namespace convolt
