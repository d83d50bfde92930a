#include "convolt/loader.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "augment/mixing.h"
#include "convolt/error.h"
#include "data/copy_watch.h"
#include "data/decode.h"
#include "data/device_decoder.h"
#include "data/loader_setup.h"
#include "data/row_filler.h"
#include "data/slot_ring.h"

namespace convolt {
namespace {

class SlotLoader final : public Loader {
public:
  SlotLoader(Context& context, const Dataset& dataset, const LoaderOptions& options, const DecodeLimits& limits,
             const PictureSizes& sizes, std::unique_ptr<DeviceDecoder> decoder)
      : context_(context),
        dataset_(dataset),
        options_(options),
        decoder_(std::move(decoder)),
        rows_(context, dataset, options, limits, sizes),
        rows_per_claim_(dataset.fixed_height() > 0 ? 32 : 1) {
    if (options.trace != nullptr) copy_watch_.emplace(options.trace->track("copies to the device"));
    const SlotLayout layout(options.batch, options.resident ? 0 : sizes.capacity,
                            options.training && mixes(options.mixing));
    const int slots = slots_that_fit(options, layout.bytes, rows_.scratch_bytes(), !context.device().is_cuda());
    for (int i = 0; i < slots; ++i) slots_.push_back(std::make_unique<Slot>(context, layout));
    for (int i = 0; decoder_ && i < options.threads; ++i) on_device_.push_back(decoder_->make_worker());
    start_threads();
  }

  ~SlotLoader() override { finish_all(); }
  SlotLoader(const SlotLoader&) = delete;
  SlotLoader& operator=(const SlotLoader&) = delete;

  int64_t steps_per_epoch() const override { return rows_.order().steps_per_epoch(); }

  bool next(Batch& batch) override {
    std::unique_lock lock(mutex_);
    if (!rows_.order().has(taken_)) return false;
    Slot& slot = slot_of(taken_);
    if (slot.state() == SlotState::in_use)
      throw UsageError("all " + std::to_string(slots_.size()) +
                       " slots of the loader are in use: release() a batch before the next one");
    const auto begin = Trace::Clock::now();
    changed_.wait(lock, [&] { return stopped_ || slot.state() == SlotState::ready; });
    times_.waited += seconds_between(begin, Trace::Clock::now());
    if (failure_) std::rethrow_exception(failure_);
    if (stopped_) throw Error("the loader was stopped");
    rows_.count_bad(slot);
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
    changed_.wait(lock, [this] { return active_ == 0 || failure_; });
    if (failure_) std::rethrow_exception(failure_);
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

  std::vector<BadSample> bad_samples() const override { return rows_.bad_samples(); }
  LoaderTimes times() const override {
    const std::lock_guard lock(mutex_);
    return times_;
  }
  int64_t slot_bytes() const override { return slots_.front()->layout().bytes; }

private:
  // Rows of one batch that a decode thread has taken.
  struct Claim {
    Slot& slot;
    int64_t sequence;
    int first, end;
  };

  // The threads that did start would wait for one another without end.
  void start_threads() {
    try {
      for (int i = 0; i < options_.threads; ++i) threads_.emplace_back([this, i] { work(i); });
    } catch (const std::system_error& error) {
      const size_t started = threads_.size();
      finish_all();
      throw Error("only " + std::to_string(started) + " of " + std::to_string(options_.threads) +
                  " decode threads can be started (" + error.code().message() + "); use fewer (-j)");
    } catch (...) {
      finish_all();
      throw;
    }
  }

  void finish_all() {
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

  // Batches are numbered from 0 at the start (and restart) of the loader; batch s goes through slot s mod slots.
  Slot& slot_of(int64_t sequence) const { return *slots_[static_cast<size_t>(sequence) % slots_.size()]; }

  Batch describe(const Slot& slot, int64_t sequence) const {
    Batch batch;
    batch.step = rows_.order().step_of(sequence);
    batch.epoch = batch.step / steps_per_epoch();
    batch.index = batch.step % steps_per_epoch();
    batch.first_row = rows_.order().first_row();
    for (int row = 0; row < options_.batch; ++row) {
      batch.rows += slot.samples[static_cast<size_t>(row)] >= 0 ? 1 : 0;
      batch.weight_sum += slot.weights()[row];
    }
    slot.point_to_device(batch);
    if (const uint8_t* pixels = rows_.resident_pixels()) batch.pixels = pixels;
    batch.samples = slot.samples.data();
    batch.skipped = slot.skipped.data();
    batch.slot = static_cast<int>(static_cast<size_t>(sequence) % slots_.size());
    return batch;
  }

  // What fails here is no sample's fault, but a device's, which says so to whoever asks it next, or want of memory.
  void work(int number) {
    try {
      decode_rows(number);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
      stopped_ = true;
      changed_.notify_all();
    }
  }

  void decode_rows(int number) {
    DecodeThread thread;
    thread.scratch.resize(static_cast<size_t>(rows_.scratch_bytes()));
    if (decoder_) thread.on_device = on_device_[static_cast<size_t>(number)].get();
    if (options_.trace != nullptr) thread.track = &options_.trace->track("decode thread " + std::to_string(number + 1));
    while (const std::optional<Claim> claim = take_rows(thread)) {
      if (claim->first == 0) rows_.announce(claim->sequence);
      for (int row = claim->first; row < claim->end; ++row) fill_row_or_note_error(*claim, row, thread);
      finish(*claim, thread);
    }
  }

  // Waits for rows to decode; none when the loader stops.
  std::optional<Claim> take_rows(DecodeThread& thread) {
    std::unique_lock lock(mutex_);
    for (;;) {
      if (stopped_) return std::nullopt;
      Slot& slot = slot_of(filling_);
      const bool wanted = !paused_ && rows_.order().has(filling_);
      if (wanted && slot.state() == SlotState::free && slot.host_reusable()) begin_batch(slot);
      // A slot whose rows are all claimed still belongs to an earlier batch.
      if (wanted && slot.state() == SlotState::decoding && slot.next_row < options_.batch) {
        const int first = slot.next_row, end = std::min(first + rows_per_claim_, options_.batch);
        slot.next_row = end;
        ++active_;
        Claim claim{slot, filling_, first, end};
        if (end == options_.batch) ++filling_;
        return claim;
      }
      if (wanted && slot.state() == SlotState::free)
        wait_for_copy(lock, slot.copied, thread);
      else
        changed_.wait(lock);
    }
  }

  void begin_batch(Slot& slot) {
    slot.begin();
    // The device makes pictures in the block from the first row on.
    if (decoder_) context_.copies().wait(slot.released);
  }

  // One thread waits for the device, by an event of its own, since others may change the slot; it wakes the rest.
  void wait_for_copy(std::unique_lock<std::mutex>& lock, const Event copied, DecodeThread& thread) {
    const auto begin = Trace::Clock::now();
    if (copy_awaited_) {
      changed_.wait(lock);
    } else {
      copy_awaited_ = true;
      lock.unlock();
      copied.sleep_until_reached();
      lock.lock();
      copy_awaited_ = false;
      changed_.notify_all();
    }
    const auto end = Trace::Clock::now();
    times_.copy += seconds_between(begin, end);
    if (thread.track != nullptr) thread.track->span("wait for copy", begin, end);
  }

  // The thread that finishes the last row hands the batch to the copy queue.
  void finish(const Claim& claim, DecodeThread& thread) {
    Slot& slot = claim.slot;
    std::unique_lock lock(mutex_);
    count(std::exchange(thread.times, {}));
    slot.rows_left -= claim.end - claim.first;
    if (slot.rows_left == 0) {
      slot.advance(SlotState::decoding, SlotState::copying);
      if (!slot.error) slot.error = nothing_to_train_on(slot);
      if (!slot.error) {
        lock.unlock();
        mix_rows(slot, claim.sequence);
        std::exception_ptr error = copy_to_device(slot);
        lock.lock();
        slot.error = error;
      }
      slot.advance(SlotState::copying, SlotState::ready);
    }
    --active_;
    if (slot.rows_left == 0 || paused_) changed_.notify_all();
  }

  void count(const LoaderTimes& more) {
    times_.read += more.read;
    times_.decode += more.decode;
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

  void mix_rows(const Slot& slot, int64_t sequence) const {
    if (slot.mixes().empty()) return;
    const auto weights = std::span(slot.weights(), static_cast<size_t>(options_.batch));
    const uint32_t epoch = rows_.order().epoch_of(sequence);
    const AugmentOptions pictures = pictures_of(options_, epoch);
    draw_mixes(options_.mixing, pictures.height, pictures.width,
               {options_.seed, epoch, rows_.order().position_of(sequence, 0)}, weights, slot.mixes());
  }

  std::exception_ptr copy_to_device(Slot& slot) {
    try {
      Queue& copies = context_.copies();
      copies.wait(slot.released);
      Event begin = copy_watch_ ? copies.record() : Event();
      copies.copy(slot.device().data(), slot.host().data(), slot.used_bytes());
      slot.copied = copies.record();
      if (copy_watch_) copy_watch_->watch(std::move(begin), slot.copied);
    } catch (...) {
      return std::current_exception();
    }
    return nullptr;
  }

  void fill_row_or_note_error(const Claim& claim, int row, DecodeThread& thread) {
    std::exception_ptr error;
    try {
      rows_.fill(claim.slot, claim.sequence, row, thread);
    } catch (...) {
      error = std::current_exception();
    }
    if (!error) return;
    const std::lock_guard lock(mutex_);
    if (row > claim.slot.error_row) return;
    claim.slot.error = error;
    claim.slot.error_row = row;
  }

  Context& context_;
  const Dataset& dataset_;
  const LoaderOptions options_;
  const std::unique_ptr<DeviceDecoder> decoder_;                   // null: the CPU decodes all
  std::vector<std::unique_ptr<DeviceDecoder::Worker>> on_device_;  // then of each thread, its own
  RowFiller rows_;
  const int rows_per_claim_;  // more than one where a row is only a small copy
  std::vector<std::unique_ptr<Slot>> slots_;

  std::optional<CopyWatch> copy_watch_;

  mutable std::mutex mutex_;  // guards what follows and the plain members of the slots
  std::condition_variable changed_;
  int64_t filling_ = 0;  // the batch whose rows are handed out
  int64_t taken_ = 0;    // the batch that next() gives next
  int active_ = 0;       // claims in work
  bool paused_ = false, stopped_ = false;
  std::exception_ptr failure_;  // why it stopped by itself
  bool copy_awaited_ = false;   // by one of the threads
  LoaderTimes times_;

  std::vector<std::jthread> threads_;  // last: they use all of the above
};

// Why a sample is not a picture.
std::string reason_against(const Dataset& dataset, int64_t sample, const DecodeLimits& limits) {
  try {
    decoded_size(dataset.read(sample), limits);
  } catch (const DataError& e) {
    return reason_of(e, dataset.name(sample));
  }
  return "its size cannot be told";
}

}  // namespace

StepInput input_of(const Batch& batch) {
  StepInput input;
  input.step = batch.step;
  input.epoch = batch.epoch;
  input.first_row = batch.first_row;
  input.weight_sum = batch.weight_sum;
  input.rows = batch.size;
  input.records = batch.records;
  input.pixels = batch.pixels;
  input.mixes = batch.mixes;
  input.labels = batch.labels;
  input.weights = batch.weights;
  return input;
}

std::unique_ptr<Loader> Loader::create(Context& context, const Dataset& dataset, const LoaderOptions& options) {
  return make_loader(context, dataset, options, make_device_decoder(context, options));
}

std::unique_ptr<Loader> make_loader(Context& context, const Dataset& dataset, const LoaderOptions& options,
                                    std::unique_ptr<DeviceDecoder> decoder) {
  check(options, dataset);
  prepare_decoder();
  const DecodeLimits limits = decode_limits(options);
  const PictureSizes sizes = measure_pictures(dataset, limits, options);
  if (options.training && sizes.largest == 0)
    throw DataError(dataset.name(0) + ": " + reason_against(dataset, 0, limits) +
                    "; it is not a picture that can be read, nor is any other of the " +
                    std::to_string(dataset.size()) + " samples");
  return std::make_unique<SlotLoader>(context, dataset, options, limits, sizes, std::move(decoder));
}

}  // namespace convolt
