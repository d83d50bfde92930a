#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <optional>
#include <thread>
#include <unordered_set>

#include "augment/policy.h"
#include "convolt/error.h"
#include "convolt/loader.h"
#include "data/decode.h"
#include "data/loader_setup.h"
#include "data/order.h"
#include "data/resident.h"
#include "data/sampler.h"
#include "data/slot_ring.h"
#include "data/view.h"

namespace convolt {
namespace {

constexpr int kReplacements = 64;  // a set of which two thirds are broken still trains

class SlotLoader final : public Loader {
public:
  SlotLoader(Context& context, const Dataset& dataset, const LoaderOptions& options, const DecodeLimits& limits,
             const PictureSizes& sizes)
      : context_(context),
        dataset_(dataset),
        options_(options),
        limits_(limits),
        order_(dataset, options.training ? options.sampler : Sampler::shuffle, options.seed),
        rows_per_claim_(dataset.fixed_height() > 0 ? 32 : 1),
        largest_picture_(sizes.largest) {
    if (options.resident) {
      resident_.emplace(context, sizes.each, options.threads,
                        [this](int64_t i, std::span<uint8_t> into) { return decode_whole(i, into); });
    }
    const SlotLayout layout(options.batch, options.resident ? 0 : sizes.capacity);
    for (int i = 0; i < options.slots; ++i) slots_.push_back(std::make_unique<Slot>(context, layout));
    for (int i = 0; i < options.threads; ++i) threads_.emplace_back([this] { work(); });
  }

  ~SlotLoader() override {
    stop();
    threads_.clear();  // joins
    // Copies and kernels that were submitted still use the slots. Their errors belong to whoever synchronises next.
    for (Queue* queue : {&context_.copies(), &context_.compute()}) {
      try {
        queue->record().wait();
      } catch (...) {
      }
    }
  }
  SlotLoader(const SlotLoader&) = delete;
  SlotLoader& operator=(const SlotLoader&) = delete;

  int64_t steps_per_epoch() const override {
    const int64_t n = dataset_.size(), batch = options_.batch;
    return options_.training ? n / batch / options_.group * options_.group : (n + batch - 1) / batch;
  }

  bool next(Batch& batch) override {
    std::unique_lock lock(mutex_);
    if (!options_.training && taken_ == steps_per_epoch()) return false;
    Slot& slot = slot_of(taken_);
    if (slot.state() == SlotState::in_use)
      throw UsageError("all " + std::to_string(slots_.size()) +
                       " slots of the loader are in use: release() a batch before the next one");
    changed_.wait(lock, [&] { return stopped_ || slot.state() == SlotState::ready; });
    if (stopped_) throw Error("the loader was stopped");
    if (slot.error) std::rethrow_exception(slot.error);
    slot.advance(SlotState::ready, SlotState::in_use);
    batch = describe(slot, taken_++);
    context_.compute().wait(slot.copied);
    return true;
  }

  void release(const Batch& batch) override {
    const std::lock_guard lock(mutex_);
    if (batch.slot < 0 || batch.slot >= static_cast<int>(slots_.size()))
      throw UsageError("release() needs a batch that next() gave");
    Slot& slot = *slots_[static_cast<size_t>(batch.slot)];
    slot.advance(SlotState::in_use, SlotState::free);
    slot.released = context_.compute().record();
    changed_.notify_all();
  }

  void restart() override {
    if (options_.training) throw UsageError("restart() is for evaluation: a training loader goes on over epochs");
    std::unique_lock lock(mutex_);
    for (const auto& slot : slots_)
      if (slot->state() == SlotState::in_use) throw UsageError("restart() needs all batches of the loader released");
    paused_ = true;
    changed_.wait(lock, [this] { return active_ == 0; });
    for (const auto& slot : slots_) slot->discard();
    taken_ = filling_ = 0;
    paused_ = false;
    changed_.notify_all();
  }

  void stop() override {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    changed_.notify_all();
  }

  std::vector<BadSample> bad_samples() const override {
    const std::lock_guard lock(bad_mutex_);
    return bad_;
  }
  int64_t slot_bytes() const override { return slots_.front()->layout().bytes; }

private:
  // Rows of one batch that a decode thread has taken.
  struct Claim {
    Slot& slot;
    int64_t sequence;
    int first, end;
  };

  struct Decoded {
    View view;
    int32_t label;
  };

  // Batches are numbered from 0 at the start (and restart) of the loader; batch s goes through slot s mod slots.
  Slot& slot_of(int64_t sequence) const { return *slots_[static_cast<size_t>(sequence) % slots_.size()]; }

  int64_t step_of(int64_t sequence) const { return sequence + (options_.training ? options_.first_step : 0); }

  Batch describe(const Slot& slot, int64_t sequence) const {
    Batch batch;
    batch.step = step_of(sequence);
    batch.epoch = batch.step / steps_per_epoch();
    batch.index = batch.step % steps_per_epoch();
    for (int row = 0; row < options_.batch; ++row) {
      batch.rows += slot.samples[static_cast<size_t>(row)] >= 0 ? 1 : 0;
      batch.weight_sum += slot.weights()[row];
    }
    slot.point_to_device(batch);
    if (resident_) batch.pixels = resident_->pixels();
    batch.samples = slot.samples.data();
    batch.skipped = slot.skipped.data();
    batch.slot = static_cast<int>(static_cast<size_t>(sequence) % slots_.size());
    return batch;
  }

  void work() {
    std::vector<uint8_t> scratch(static_cast<size_t>(largest_picture_));
    while (const std::optional<Claim> claim = take_rows()) {
      if (claim->first == 0) announce(claim->sequence);
      for (int row = claim->first; row < claim->end; ++row) fill_row_or_note_error(*claim, row, scratch);
      finish(*claim);
    }
  }

  // Waits for rows to decode; none when the loader stops.
  std::optional<Claim> take_rows() {
    std::unique_lock lock(mutex_);
    for (;;) {
      if (stopped_) return std::nullopt;
      Slot& slot = slot_of(filling_);
      const bool wanted = !paused_ && (options_.training || filling_ < steps_per_epoch());
      if (wanted && slot.state() == SlotState::free && slot.host_reusable()) slot.begin();
      // A slot whose rows are all claimed still belongs to an earlier batch.
      if (wanted && slot.state() == SlotState::decoding && slot.next_row < options_.batch) {
        const int first = slot.next_row, end = std::min(first + rows_per_claim_, options_.batch);
        slot.next_row = end;
        ++active_;
        Claim claim{slot, filling_, first, end};
        if (end == options_.batch) ++filling_;
        return claim;
      }
      // Events cannot wake a host thread without blocking it, so the short time until the copy has ended is polled.
      if (wanted && slot.state() == SlotState::free)
        changed_.wait_for(lock, std::chrono::microseconds(200));
      else
        changed_.wait(lock);
    }
  }

  // The thread that finishes the last row hands the batch to the copy queue.
  void finish(const Claim& claim) {
    Slot& slot = claim.slot;
    std::unique_lock lock(mutex_);
    slot.rows_left -= claim.end - claim.first;
    if (slot.rows_left == 0) {
      slot.advance(SlotState::decoding, SlotState::copying);
      if (!slot.error) slot.error = nothing_to_train_on(slot);
      if (!slot.error) {
        lock.unlock();
        std::exception_ptr error = copy_to_device(slot);
        lock.lock();
        slot.error = error;
      }
      slot.advance(SlotState::copying, SlotState::ready);
    }
    --active_;
    if (slot.rows_left == 0 || paused_) changed_.notify_all();
  }

  // A data set that is no longer there must not become a training on nothing.
  std::exception_ptr nothing_to_train_on(const Slot& slot) const {
    const auto weights = std::span(slot.weights(), static_cast<size_t>(options_.batch));
    if (!options_.training || std::any_of(weights.begin(), weights.end(), [](float w) { return w > 0; }))
      return nullptr;
    return std::make_exception_ptr(DataError(dataset_.name(slot.samples[0]) +
                                             ": cannot be read, and neither can any other sample of its batch of " +
                                             std::to_string(options_.batch) + "; check the data set"));
  }

  std::exception_ptr copy_to_device(Slot& slot) {
    try {
      Queue& copies = context_.copies();
      copies.wait(slot.released);
      copies.copy(slot.device().data(), slot.host().data(), slot.used_bytes());
      slot.copied = copies.record();
    } catch (...) {
      return std::current_exception();
    }
    return nullptr;
  }

  void fill_row_or_note_error(const Claim& claim, int row, std::span<uint8_t> scratch) {
    std::exception_ptr error;
    try {
      fill_row(claim, row, scratch);
    } catch (...) {
      error = std::current_exception();
    }
    if (!error) return;
    const std::lock_guard lock(mutex_);
    if (row > claim.slot.error_row) return;
    claim.slot.error = error;
    claim.slot.error_row = row;
  }

  uint32_t epoch_of(int64_t sequence) const {
    return static_cast<uint32_t>(options_.training ? step_of(sequence) / steps_per_epoch() : 0);
  }
  int64_t position_of(int64_t sequence, int row) const {
    return step_of(sequence) % steps_per_epoch() * options_.batch + row;
  }
  Shown shown_at(int64_t sequence, int64_t position) const {
    return options_.training ? order_(epoch_of(sequence), position) : Shown{position, static_cast<uint64_t>(position)};
  }

  // While a batch is decoded, the disk can look for the next one.
  void announce(int64_t sequence) const {
    if (resident_) return;
    std::vector<int64_t> coming;
    for (int64_t s = sequence == 0 ? 0 : sequence + 1; s <= sequence + 1; ++s) {
      if (!options_.training && s >= steps_per_epoch()) break;
      for (int row = 0; row < options_.batch && position_of(s, row) < dataset_.size(); ++row)
        coming.push_back(shown_at(s, position_of(s, row)).sample);
    }
    dataset_.expect(coming);
  }

  void fill_row(const Claim& claim, int row, std::span<uint8_t> scratch) {
    const int64_t n = dataset_.size(), position = position_of(claim.sequence, row);
    if (position >= n) return store_nothing(claim.slot, row, -1);
    const uint32_t epoch = epoch_of(claim.sequence);
    const Shown shown = shown_at(claim.sequence, position);
    const int64_t first = shown.sample;
    if (!options_.training || options_.bad_samples == BadSamplePolicy::skip) {
      if (const auto decoded = decode_sample(first, shown.drawn_as, epoch, scratch))
        store(claim.slot, row, first, *decoded, scratch);
      else
        store_nothing(claim.slot, row, first);
      return;
    }
    int64_t sample = first;
    uint64_t drawn_as = shown.drawn_as;
    for (int attempt = 0; attempt <= kReplacements; ++attempt) {
      if (const auto decoded = decode_sample(sample, drawn_as, epoch, scratch))
        return store(claim.slot, row, sample, *decoded, scratch);
      sample = replacement_sample(options_.seed, epoch, position, attempt, n);
      drawn_as = static_cast<uint64_t>(sample);
    }
    throw DataError(dataset_.name(first) + ": cannot be read, and neither can the " + std::to_string(kReplacements) +
                    " samples drawn in its place; check the data set");
  }

  // What the epoch shows of the sample, in `scratch` unless it is resident, or nothing when it is bad. Throws, with the
  // name, what is not the data's fault.
  std::optional<Decoded> decode_sample(int64_t sample, uint64_t drawn_as, uint32_t epoch, std::span<uint8_t> scratch) {
    const ViewKey key{options_.seed, epoch, drawn_as};
    if (resident_) return show_resident(sample, key);
    if (is_bad(sample)) return std::nullopt;
    return unless_bad(sample, [&](const RawSample& raw, const std::string& name) {
      const View view = decode_view(raw, options_.augment, key, limits_, scratch, name);
      return Decoded{view, label_of(raw, sample)};
    });
  }

  std::optional<ResidentPicture> decode_whole(int64_t sample, std::span<uint8_t> into) {
    return unless_bad(sample, [&](const RawSample& raw, const std::string& name) {
      return ResidentPicture{decode(raw, limits_, into, name), label_of(raw, sample)};
    });
  }

  std::optional<Decoded> show_resident(int64_t sample, const ViewKey& key) const {
    const std::optional<ResidentPicture>& picture = (*resident_)[sample];
    if (!picture) return std::nullopt;
    const PictureSize& size = picture->size;
    View view;
    view.record =
        make_record(options_.augment, size.height, size.width, size.channels, key.seed, key.epoch, key.sample);
    view.record.stride = size.width;
    view.record.offset = picture->offset;
    return Decoded{view, picture->label};
  }

  int32_t label_of(const RawSample& raw, int64_t sample) const {
    return raw.label ? *raw.label : dataset_.label(sample);
  }

  // decode(raw sample, its name), or nothing, and the sample is noted as bad.
  template <class F>
  auto unless_bad(int64_t sample, const F& decode)
      -> std::optional<std::invoke_result_t<F, const RawSample&, const std::string&>> {
    const std::string name = dataset_.name(sample);
    try {
      const RawSample raw = dataset_.read(sample);
      const double start = thread_seconds();
      const auto decoded = decode(raw, name);
      if (thread_seconds() - start > limits_.max_seconds)
        throw DataError(name + ": took longer to decode than a sample may");
      return decoded;
    } catch (const DataError& error) {
      if (options_.bad_samples == BadSamplePolicy::fail)
        throw DataError(std::string(error.what()) + "; --bad-images skip goes on without it");
      note_bad(sample, name, reason_of(error, name));
      return std::nullopt;
    } catch (const UsageError&) {
      throw;
    } catch (const std::bad_alloc&) {
      throw OutOfMemoryError(name + ": there is no memory to decode it; try fewer threads (-j)");
    } catch (const std::exception& error) {
      throw Error(name + ": " + error.what());
    }
  }

  void store(Slot& slot, int row, int64_t sample, const Decoded& decoded, std::span<const uint8_t> pixels) {
    const View& view = decoded.view;
    const int64_t offset = slot.reserve(view.bytes);
    if (offset < 0)
      throw DataError(dataset_.name(sample) +
                      ": does not fit, since too many pictures of its batch cannot be read; check the data set");
    std::copy_n(pixels.data(), view.bytes, slot.pictures() + offset);
    slot.records()[row] = view.record;
    if (!resident_) slot.records()[row].offset += offset;
    slot.labels()[row] = decoded.label;
    const bool weighs = options_.training && options_.sampler != Sampler::weighted;
    slot.weights()[row] = weighs ? dataset_.weight(sample) : 1;
    slot.samples[static_cast<size_t>(row)] = sample;
    slot.skipped[static_cast<size_t>(row)] = 0;
  }

  // A row without a picture: padding (sample -1), or a sample that cannot be read.
  static void store_nothing(Slot& slot, int row, int64_t sample) {
    slot.records()[row] = SampleRecord{};
    slot.labels()[row] = 0;
    slot.weights()[row] = 0;
    slot.samples[static_cast<size_t>(row)] = sample;
    slot.skipped[static_cast<size_t>(row)] = sample < 0 ? 0 : 1;
  }

  bool is_bad(int64_t sample) const {
    const std::lock_guard lock(bad_mutex_);
    return known_bad_.contains(sample);
  }

  void note_bad(int64_t sample, const std::string& name, std::string reason) {
    const std::lock_guard lock(bad_mutex_);
    if (!known_bad_.insert(sample).second) return;
    bad_.push_back({name, std::move(reason)});
    if (static_cast<double>(bad_.size()) <= options_.max_bad * static_cast<double>(dataset_.size())) return;
    throw DataError(std::to_string(bad_.size()) + " of " + std::to_string(dataset_.size()) +
                    " pictures cannot be used, more than --max-bad allows; the last is " + name + ": " +
                    bad_.back().reason + "; convolt verify names them all");
  }

  Context& context_;
  const Dataset& dataset_;
  const LoaderOptions options_;
  const DecodeLimits limits_;
  const Order order_;
  const int rows_per_claim_;  // more than one where a row is only a small copy
  const int64_t largest_picture_;
  std::optional<ResidentSet> resident_;
  std::vector<std::unique_ptr<Slot>> slots_;

  std::mutex mutex_;  // guards what follows and the plain members of the slots
  std::condition_variable changed_;
  int64_t filling_ = 0;  // the batch whose rows are handed out
  int64_t taken_ = 0;    // the batch that next() gives next
  int active_ = 0;       // claims in work
  bool paused_ = false, stopped_ = false;

  mutable std::mutex bad_mutex_;
  std::unordered_set<int64_t> known_bad_;
  std::vector<BadSample> bad_;

  std::vector<std::jthread> threads_;  // last: they use all of the above
};

}  // namespace

StepInput input_of(const Batch& batch) {
  StepInput input;
  input.step = batch.step;
  input.epoch = batch.epoch;
  input.weight_sum = batch.weight_sum;
  input.records = batch.records;
  input.pixels = batch.pixels;
  input.labels = batch.labels;
  input.weights = batch.weights;
  return input;
}

std::unique_ptr<Loader> Loader::create(Context& context, const Dataset& dataset, const LoaderOptions& options) {
  check(options, dataset);
  prepare_decoder();
  const DecodeLimits limits = decode_limits(options);
  const PictureSizes sizes = measure_pictures(dataset, limits, options.batch, options.threads);
  if (options.training && sizes.largest == 0)
    throw DataError(dataset.name(0) + ": is not a picture that can be read, nor is any other of the " +
                    std::to_string(dataset.size()) + " samples");
  return std::make_unique<SlotLoader>(context, dataset, options, limits, sizes);
}

}  // namespace convolt
