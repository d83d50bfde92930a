// A data set that lies on the device, decoded: batches then need nothing of their pictures but where they are.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "convolt/context.h"
#include "data/decode.h"

namespace convolt {

struct ResidentPicture {
  PictureSize size;
  int32_t label = 0;
  int64_t offset = 0;  // of its first byte from ResidentSet::pixels()
};

class ResidentSet {
public:
  // Decodes sample i, whole, into the first bytes of the span; nothing where it cannot be read. From several threads.
  using DecodeOne = std::function<std::optional<ResidentPicture>(int64_t i, std::span<uint8_t> into)>;

  // `sizes`: bytes of each decoded sample, 0 where there are none. Returns when all of them are on the device. Throws
  // OutOfMemoryError, and what `decode` throws.
  ResidentSet(Context& context, const std::vector<int64_t>& sizes, int threads, const DecodeOne& decode);

  const uint8_t* pixels() const { return memory_.as<const uint8_t>(); }  // device
  // Nothing where the sample could not be read.
  const std::optional<ResidentPicture>& operator[](int64_t i) const { return pictures_[static_cast<size_t>(i)]; }

private:
  Buffer memory_;
  std::vector<std::optional<ResidentPicture>> pictures_;
};

}  // namespace convolt
