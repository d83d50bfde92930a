#include "data/loader_setup.h"

#include <fmt/format.h>

#include <algorithm>

#include "augment/mixing.h"
#include "augment/policy.h"
#include "convolt/error.h"
#include "data/parallel_for.h"
#include "data/slot_ring.h"

namespace convolt {
namespace {

void require(bool good, const std::string& name, const std::string& expected, const std::string& found) {
  if (!good) throw UsageError("the loader's " + name + " is " + found + ": expected " + expected);
}

// 0 for a sample without a good header.
int64_t picture_bytes(const Dataset& dataset, int64_t i, const DecodeLimits& limits) {
  try {
    if (const auto known = dataset.extent(i))
      return known->height == 0 ? 0 : decoded_size(known->height, known->width, known->channels, limits).bytes();
    if (!dataset.reads_parts()) return decoded_size(dataset.read(i), limits).bytes();
    PictureBytes bytes([&](int64_t offset, std::span<uint8_t> into) { return dataset.read_part(i, offset, into); });
    return decoded_size(read_picture_header(bytes), limits).bytes();
  } catch (const DataError&) {
    return 0;
  }
}

}  // namespace

void check(const LoaderOptions& options, const Dataset& dataset) {
  if (dataset.size() < 1) throw DataError("the data set is empty");
  require(options.batch >= 1, "batch", "at least 1", std::to_string(options.batch));
  require(options.threads >= 1 && options.threads <= 1024, "number of threads", "1 to 1024",
          std::to_string(options.threads));
  require(options.slots >= 2 && options.slots <= 1024, "number of slots", "2 to 1024", std::to_string(options.slots));
  require(options.memory >= 0, "memory", "a number of bytes, or 0", std::to_string(options.memory));
  require(options.decode.max_side >= 0, "max_side", "a length in pixels, or 0",
          std::to_string(options.decode.max_side));
  require(options.max_bad >= 0 && options.max_bad <= 1, "max_bad", "0 to 1", std::to_string(options.max_bad));
  require(options.decode.max_pixels >= 1, "max_pixels", "at least 1", std::to_string(options.decode.max_pixels));
  require(options.first_step >= 0, "first_step", "at least 0", std::to_string(options.first_step));
  require(options.group >= 1, "group", "at least 1", std::to_string(options.group));
  require(options.repeats >= 1 && options.repeats <= dataset.size(), "number of repeats (--repeats)",
          "1 to the " + std::to_string(dataset.size()) + " samples of the data set", std::to_string(options.repeats));
  require(options.ranks >= 1, "number of ranks", "at least 1", std::to_string(options.ranks));
  require(options.rank >= 0 && options.rank < options.ranks, "rank", "0 to " + std::to_string(options.ranks - 1),
          std::to_string(options.rank));
  require(!options.resident || options.decoder != Decoder::nvjpeg, "decoder",
          "cpu or auto with a resident set, which is decoded once", "nvjpeg");
  check(options.augment);
  check(options.sizes, options.augment);
  check(options.mixing);
  if (!options.training) return;
  const int64_t batch = int64_t{options.batch} * options.ranks;
  if (dataset.size() < batch)
    throw DataError("the training set has " + std::to_string(dataset.size()) + " samples, fewer than one batch of " +
                    std::to_string(batch) + "; use a smaller batch (-b)");
  if (dataset.size() / batch < options.group)
    throw DataError("the training set has " + std::to_string(dataset.size() / batch) + " batches of " +
                    std::to_string(batch) + ", fewer than the " + std::to_string(options.group) +
                    " of one update; use a smaller batch (-b) or accumulate fewer (--accum)");
}

DecodeLimits decode_limits(const LoaderOptions& options) {
  constexpr int kDefaultTimes = 8;  // of the network's input
  const int side = std::max(options.augment.height, options.augment.width);
  DecodeLimits limits;
  limits.max_pixels = options.decode.max_pixels;
  limits.max_side = options.decode.max_side;
  if (limits.max_side == 0) {
    limits.max_side = kDefaultTimes * side;
    limits.min_side = side;  // a strip would be a thread
  }
  limits.background = options.decode.background;
  limits.full_decode = options.decode.full_decode;
  limits.max_seconds = options.max_decode_seconds;
  return limits;
}

AugmentOptions pictures_of(const LoaderOptions& options, uint32_t epoch) {
  return options.training ? at_epoch(options.augment, options.sizes, epoch) : options.augment;
}

PictureSizes measure_pictures(const Dataset& dataset, const DecodeLimits& limits, const LoaderOptions& options) {
  std::vector<int64_t> sizes(static_cast<size_t>(dataset.size()));
  if (dataset.fixed_height() > 0) {
    const PictureSize size = decoded_size(dataset.fixed_height(), dataset.fixed_width(), dataset.channels(), limits);
    std::fill(sizes.begin(), sizes.end(), size.bytes());
  } else {
    parallel_for(dataset.size(), options.threads,
                 [&](int64_t i) { sizes[static_cast<size_t>(i)] = picture_bytes(dataset, i, limits); });
  }
  const int64_t largest = *std::max_element(sizes.begin(), sizes.end());
  const bool at_will = options.training && options.sampler != Sampler::shuffle;
  const int repeats = at_will ? options.batch : options.training ? options.repeats : 1;
  const int64_t capacity = picture_capacity(sizes, options.batch, repeats);
  return {std::move(sizes), largest, capacity};
}

int slots_that_fit(const LoaderOptions& options, int64_t slot_bytes, int64_t scratch_bytes, bool on_cpu) {
  if (options.memory <= 0) return options.slots;
  const int64_t each = on_cpu ? 2 * slot_bytes : slot_bytes;  // there the host is the device too
  const int64_t threads = options.threads * scratch_bytes;
  const int64_t slots = (options.memory - threads) / each;
  if (slots >= 2) return static_cast<int>(std::min<int64_t>(slots, options.slots));
  const auto megabytes = [](int64_t bytes) { return static_cast<double>(bytes) / 1e6; };
  throw UsageError(fmt::format(
      "two batches of {} pictures take {:.1f} MB and the decode threads {:.1f} MB, more than the {:.1f} MB that a "
      "loader may have (--loader-memory): expected a smaller batch (-b), fewer threads (-j), smaller pictures "
      "(--max-side) or more memory",
      options.batch, megabytes(2 * each), megabytes(threads), megabytes(options.memory)));
}

}  // namespace convolt
