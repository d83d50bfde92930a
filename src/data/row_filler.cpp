#include "data/row_filler.h"

#include <algorithm>
#include <new>

#include "augment/policy.h"
#include "convolt/error.h"
#include "data/decode.h"
#include "data/sampler.h"

namespace convolt {
namespace {

constexpr int kReplacements = 64;  // a set of which two thirds are broken still trains

// A row without a picture: padding (sample -1), or a sample that cannot be read.
void store_nothing(Slot& slot, int row, int64_t sample) {
  slot.records()[row] = SampleRecord{};
  slot.labels()[row] = 0;
  slot.weights()[row] = 0;
  slot.samples[static_cast<size_t>(row)] = sample;
  slot.skipped[static_cast<size_t>(row)] = sample < 0 ? 0 : 1;
}

// Counts what was read and decoded between those moments.
void note(DecodeThread& thread, Trace::Clock::time_point begin, Trace::Clock::time_point read,
          Trace::Clock::time_point end) {
  thread.times.read += seconds_between(begin, read);
  thread.times.decode += seconds_between(read, end);
  if (thread.track == nullptr) return;
  thread.track->span("read", begin, read);
  thread.track->span("decode", read, end);
}

[[noreturn]] void throw_named(const DeviceError& error, const std::string& name) {
  const std::string message = name + ": " + reason_of(error, name);
  if (dynamic_cast<const OutOfMemoryError*>(&error) != nullptr) throw OutOfMemoryError(message);
  throw DeviceError(message);
}

}  // namespace

RowFiller::RowFiller(Context& context, const Dataset& dataset, const LoaderOptions& options, const DecodeLimits& limits,
                     const PictureSizes& sizes)
    : dataset_(dataset), options_(options), limits_(limits), order_(dataset, options), largest_picture_(sizes.largest) {
  if (!options.resident) {
    sound_ = std::vector<std::atomic<uint64_t>>(static_cast<size_t>((dataset.size() + 63) / 64));
    return;
  }
  resident_.emplace(context, sizes.each, options.threads,
                    [this](int64_t i, std::span<uint8_t> into) { return decode_whole(i, into); });
  for (int64_t i = 0; i < dataset.size(); ++i)
    if (!(*resident_)[i]) count_bad(i);
}

void RowFiller::fill(Slot& slot, int64_t batch, int row, DecodeThread& thread) {
  slot.bad[static_cast<size_t>(row)].clear();
  const std::optional<Shown> shown = order_(batch, row);
  if (!shown) return store_nothing(slot, row, -1);
  const uint32_t epoch = order_.epoch_of(batch);
  const int64_t first = shown->sample;
  if (!options_.training || options_.bad_samples == BadSamplePolicy::skip) {
    if (const auto decoded = try_sample(first, {options_.seed, epoch, shown->drawn_as}, slot, row, thread))
      store(slot, row, first, *decoded, thread);
    else
      store_nothing(slot, row, first);
    return;
  }
  int64_t sample = first;
  uint64_t drawn_as = shown->drawn_as;
  for (int attempt = 0; attempt <= kReplacements; ++attempt) {
    if (const auto decoded = try_sample(sample, {options_.seed, epoch, drawn_as}, slot, row, thread))
      return store(slot, row, sample, *decoded, thread);
    sample = replacement_sample(options_.seed, epoch, order_.position_of(batch, row), attempt, dataset_.size());
    drawn_as = static_cast<uint64_t>(sample);
  }
  throw DataError(dataset_.name(first) + ": cannot be read, and neither can the " + std::to_string(kReplacements) +
                  " samples drawn in its place; check the data set");
}

void RowFiller::announce(int64_t batch) const {
  if (resident_ || !dataset_.fetches_ahead()) return;
  std::vector<int64_t> coming;
  for (int64_t b = batch == 0 ? 0 : batch + 1; b <= batch + 1 && order_.has(b); ++b)
    for (int row = 0; row < options_.batch; ++row)
      if (const auto shown = order_(b, row)) coming.push_back(shown->sample);
  dataset_.expect(coming);
}

// As decode_sample(), and what is bad is noted for count_bad().
std::optional<RowFiller::Decoded> RowFiller::try_sample(int64_t sample, const ViewKey& key, Slot& slot, int row,
                                                        DecodeThread& thread) {
  auto decoded = decode_sample(sample, key, thread);
  if (!decoded) slot.bad[static_cast<size_t>(row)].push_back(sample);
  return decoded;
}

// What the epoch shows of the sample, or nothing when it is bad. Throws, with the name, what is not the data's fault.
std::optional<RowFiller::Decoded> RowFiller::decode_sample(int64_t sample, const ViewKey& key, DecodeThread& thread) {
  if (resident_) return show_resident(sample, key);
  if (is_bad(sample)) return std::nullopt;
  return unless_bad(sample, thread, [&](const RawSample& raw, const std::string& name) {
    const AugmentOptions augment = pictures_of(options_, key.epoch);
    if (thread.on_device != nullptr)
      if (const auto view = read_view(*thread.on_device, raw, augment, key, limits_, scratch_bytes()))
        return Decoded{*view, label_of(raw, sample), {}, true};
    PixelRows rows;
    if (const auto view = view_in_place(raw, augment, key, limits_, rows, name))
      return Decoded{*view, label_of(raw, sample), rows};
    DecodeLimits limits = limits_;
    limits.known_sound = is_sound(sample);
    const View view = decode_view(raw, augment, key, limits, thread.scratch, name);
    if (!limits.known_sound) note_sound(sample);
    return Decoded{view, label_of(raw, sample), {thread.scratch.data(), 1, view.bytes, view.bytes}};
  });
}

std::optional<ResidentPicture> RowFiller::decode_whole(int64_t sample, std::span<uint8_t> into) {
  DecodeThread here;
  return unless_bad(sample, here, [&](const RawSample& raw, const std::string& name) {
    return ResidentPicture{decode(raw, limits_, into, name), label_of(raw, sample)};
  });
}

std::optional<RowFiller::Decoded> RowFiller::show_resident(int64_t sample, const ViewKey& key) const {
  const std::optional<ResidentPicture>& picture = (*resident_)[sample];
  if (!picture) return std::nullopt;
  const PictureSize& size = picture->size;
  View view;
  view.record = make_record(pictures_of(options_, key.epoch), size.height, size.width, size.channels, key.seed,
                            key.epoch, key.sample);
  view.record.stride = size.width;
  view.record.offset = picture->offset;
  return Decoded{view, picture->label, {}};
}

int32_t RowFiller::label_of(const RawSample& raw, int64_t sample) const {
  const int32_t label = raw.label ? *raw.label : dataset_.label(sample);
  // In training a negative one is the loss's to refuse, which names the row: it may be what --nan-policy is for.
  if (options_.classes > 0 && (label >= options_.classes || (label < 0 && !options_.training)))
    throw DataError(dataset_.name(sample) + ": its label is " + std::to_string(label) + ", but the network has " +
                    std::to_string(options_.classes) + " classes, from 0 on");
  return label;
}

// decode(raw sample, its name), or nothing, and the sample is noted as bad.
template <class F>
auto RowFiller::unless_bad(int64_t sample, DecodeThread& thread, const F& decode)
    -> std::optional<std::invoke_result_t<F, const RawSample&, const std::string&>> {
  const std::string name = dataset_.name(sample);
  try {
    const auto begin = Trace::Clock::now();
    const RawSample raw = dataset_.read(sample);
    const auto read = Trace::Clock::now();
    const double start = thread_seconds();
    const auto decoded = decode(raw, name);
    if (thread_seconds() - start > limits_.max_seconds)
      throw DataError(name + ": took longer to decode than a sample may");
    note(thread, begin, read, Trace::Clock::now());
    return decoded;
  } catch (const DataError& error) {
    if (options_.bad_samples == BadSamplePolicy::fail)
      throw DataError(std::string(error.what()) + "; --bad-images skip goes on without it");
    note_bad(sample, reason_of(error, name));
    return std::nullopt;
  } catch (const UsageError&) {
    throw;
  } catch (const DeviceError& error) {
    throw_named(error, name);
  } catch (const std::bad_alloc&) {
    throw OutOfMemoryError(name + ": there is no memory to decode it; try fewer threads (-j)");
  } catch (const std::exception& error) {
    throw Error(name + ": " + reason_of(error, name));
  }
}

// Where it lies in the slot.
int64_t RowFiller::store_picture(Slot& slot, int64_t sample, const Decoded& decoded, DecodeThread& thread) const {
  const int64_t bytes = decoded.view.bytes;
  const int64_t offset = decoded.on_device ? slot.reserve_on_device(bytes) : slot.reserve(bytes);
  if (offset < 0)
    throw DataError(dataset_.name(sample) +
                    ": does not fit, since too many pictures of its batch cannot be read; check the data set");
  if (!decoded.on_device) {
    copy_rows(decoded.rows, slot.pictures() + offset);
    return offset;
  }
  try {
    thread.on_device->write(slot.device_pictures() + offset);
  } catch (const DeviceError& error) {
    throw_named(error, dataset_.name(sample));
  }
  return offset;
}

void RowFiller::store(Slot& slot, int row, int64_t sample, const Decoded& decoded, DecodeThread& thread) const {
  const int64_t offset = store_picture(slot, sample, decoded, thread);
  slot.records()[row] = decoded.view.record;
  if (!resident_) slot.records()[row].offset += offset;
  slot.labels()[row] = decoded.label;
  const bool weighs = options_.training && options_.sampler != Sampler::weighted;
  slot.weights()[row] = weighs ? dataset_.weight(sample) : 1;
  slot.samples[static_cast<size_t>(row)] = sample;
  slot.skipped[static_cast<size_t>(row)] = 0;
}

std::vector<BadSample> RowFiller::bad_samples() const {
  const std::lock_guard lock(bad_mutex_);
  return bad_;
}

bool RowFiller::is_bad(int64_t sample) const {
  const std::lock_guard lock(bad_mutex_);
  return known_bad_.contains(sample);
}

bool RowFiller::is_sound(int64_t sample) const {
  const auto i = static_cast<uint64_t>(sample);
  return (sound_[i / 64].load(std::memory_order_relaxed) >> (i % 64) & 1) != 0;
}

void RowFiller::note_sound(int64_t sample) {
  const auto i = static_cast<uint64_t>(sample);
  sound_[i / 64].fetch_or(uint64_t{1} << (i % 64), std::memory_order_relaxed);
}

void RowFiller::note_bad(int64_t sample, std::string reason) {
  const std::lock_guard lock(bad_mutex_);
  known_bad_.try_emplace(sample, Fault{std::move(reason)});
}

void RowFiller::count_bad(const Slot& slot) {
  for (const std::vector<int64_t>& samples : slot.bad)
    for (const int64_t sample : samples) count_bad(sample);
}

void RowFiller::count_bad(int64_t sample) {
  const std::lock_guard lock(bad_mutex_);
  Fault& fault = known_bad_.at(sample);
  if (!fault.counted) bad_.push_back({dataset_.name(sample), fault.reason});
  fault.counted = true;
  if (static_cast<double>(bad_.size()) <= options_.max_bad * static_cast<double>(dataset_.size())) return;
  throw DataError(std::to_string(bad_.size()) + " of " + std::to_string(dataset_.size()) +
                  " pictures cannot be used, more than --max-bad allows; the last is " + bad_.back().name + ": " +
                  bad_.back().reason + "; convolt verify names them all");
}

}  // namespace convolt
