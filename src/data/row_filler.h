// What becomes of one row of a batch: its sample is read, decoded and stored in the batch's slot.
#pragma once

#include <atomic>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <vector>

#include "data/batch_order.h"
#include "data/device_decoder.h"
#include "data/loader_setup.h"
#include "data/resident.h"
#include "data/slot_ring.h"
#include "data/view.h"
#include "io/trace.h"

namespace convolt {

// What a decode thread has of its own.
struct DecodeThread {
  std::vector<uint8_t> scratch;                // for a picture on its way
  DeviceDecoder::Worker* on_device = nullptr;  // where there is one
  LoaderTimes times;                           // of its work that is not yet counted
  Trace::Track* track = nullptr;               // where there is a profile
};

// Thread-safe.
class RowFiller {
public:
  // Decodes all pictures where the options ask for a resident set. The data set must outlive it.
  RowFiller(Context& context, const Dataset& dataset, const LoaderOptions& options, const DecodeLimits& limits,
            const PictureSizes& sizes);

  const BatchOrder& order() const { return order_; }
  // Of DecodeThread::scratch.
  int64_t scratch_bytes() const { return largest_picture_; }
  // The row of that batch, in its slot. Throws, with the name of the sample, what ends the loader.
  void fill(Slot& slot, int64_t batch, int row, DecodeThread& thread);
  // Counts what the batch in the slot, the next in order, could not use: so neither what is counted nor where a loader
  // ends depends on which thread met it first. Throws DataError where that is more than the options allow.
  void count_bad(const Slot& slot);
  // While a batch is decoded, the disk can look for the next one.
  void announce(int64_t batch) const;
  // Where SampleRecord::offset counts from, when that is not the slot; else null.
  const uint8_t* resident_pixels() const { return resident_ ? resident_->pixels() : nullptr; }
  std::vector<BadSample> bad_samples() const;

private:
  struct Decoded {
    View view;
    int32_t label;
    PixelRows rows;          // of its pixels
    bool on_device = false;  // instead: read by the thread's device decoder
  };

  std::optional<Decoded> decode_sample(int64_t sample, const ViewKey& key, DecodeThread& thread);
  std::optional<ResidentPicture> decode_whole(int64_t sample, std::span<uint8_t> into);
  std::optional<Decoded> show_resident(int64_t sample, const ViewKey& key) const;
  template <class F>
  auto unless_bad(int64_t sample, DecodeThread& thread, const F& decode)
      -> std::optional<std::invoke_result_t<F, const RawSample&, const std::string&>>;
  int32_t label_of(const RawSample& raw, int64_t sample) const;
  void store(Slot& slot, int row, int64_t sample, const Decoded& decoded, DecodeThread& thread) const;
  int64_t store_picture(Slot& slot, int64_t sample, const Decoded& decoded, DecodeThread& thread) const;
  std::optional<Decoded> try_sample(int64_t sample, const ViewKey& key, Slot& slot, int row, DecodeThread& thread);
  bool is_bad(int64_t sample) const;
  bool is_sound(int64_t sample) const;
  void note_sound(int64_t sample);
  void note_bad(int64_t sample, std::string reason);
  void count_bad(int64_t sample);

  const Dataset& dataset_;
  const LoaderOptions options_;
  const DecodeLimits limits_;
  const BatchOrder order_;
  const int64_t largest_picture_;
  std::optional<ResidentSet> resident_;
  // A bit for each sample that was decoded without an error. It decides how far a file is read again, and nothing else.
  std::vector<std::atomic<uint64_t>> sound_;

  mutable std::mutex bad_mutex_;
  struct Fault {
    std::string reason;
    bool counted = false;
  };
  std::unordered_map<int64_t, Fault> known_bad_;
  std::vector<BadSample> bad_;  // those that are counted
};

}  // namespace convolt
