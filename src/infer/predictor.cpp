#include "convolt/predictor.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <numeric>
#include <thread>

#include "augment/policy.h"
#include "convolt/error.h"
#include "convolt/evaluation.h"
#include "convolt/plan.h"
#include "data/loader_setup.h"
#include "data/parallel_for.h"
#include "data/slot_ring.h"
#include "data/view.h"
#include "train/derived_options.h"
#include "train/views.h"

namespace convolt {
namespace {

// Pictures in memory as a data set.
class PictureSpan final : public Dataset {
public:
  explicit PictureSpan(std::span<const RawSample> pictures) : pictures_(pictures) {}
  int64_t size() const override { return static_cast<int64_t>(pictures_.size()); }
  RawSample read(int64_t i) const override { return pictures_[static_cast<size_t>(i)]; }
  std::string name(int64_t i) const override { return "picture " + std::to_string(i); }

private:
  std::span<const RawSample> pictures_;
};

struct Picture {
  View view;
  std::vector<uint8_t> pixels;
  std::string error;
};

// Consecutive pictures that pass through the network together.
struct Group {
  int64_t first = 0;
  std::vector<Picture> pictures;
  StepInput input;  // of its step
};

DecodeLimits limits_of(const ModelCard& card, const PredictorOptions& o) {
  if (o.workers < 1 || o.workers > kMostThreads)
    throw UsageError("a predictor has 1 to " + std::to_string(kMostThreads) + " decode threads, found " +
                     std::to_string(o.workers));
  if (o.decode.max_side < 0)
    throw UsageError("a predictor's max_side is a length in pixels, or 0; found " + std::to_string(o.decode.max_side));
  if (o.decode.max_pixels < 1)
    throw UsageError("a predictor's max_pixels is at least 1, found " + std::to_string(o.decode.max_pixels));
  LoaderOptions loader;
  loader.decode = o.decode;
  loader.decode.full_decode |= are_crops(o.views);
  loader.augment = card.preprocessing;
  check(loader.augment);
  return decode_limits(loader);
}

ModelCard fitting(ModelCard card, const Graph& graph) {
  fit_card(card, graph);
  return card;
}

}  // namespace

struct Predictor::Impl {
  Impl(const Graph& graph, Params& params, const ModelCard& c, const PredictorOptions& o)
      : card(fitting(c, graph)),
        context(params.context()),
        limits(limits_of(c, o)),
        workers(o.workers),
        views(checked_views(o.views, c.preprocessing)),
        plan(graph, params, inference_plan(c.preprocessing, o.batch, o.dtype, o.tf32, o.kernels)) {
    prepare_decoder();
  }
  Impl(Network n, const PredictorOptions& o) : Impl(*n.graph, *n.params, n.card, o) { network = std::move(n); }

  void predict(const Dataset& pictures, const Answer& answer) {
    if (!answer) throw UsageError("a prediction needs a function that takes the answers, found an empty one");
    if (at_work == std::this_thread::get_id())
      throw UsageError("a predictor was asked while it answers: ask when predict() has returned, or use another one");
    const std::lock_guard lock(turn);
    const AtWork mark(at_work);
    Group running;
    for (int64_t first = 0; first < pictures.size(); first += plan.options().batch) {
      Group next = decode_group(pictures, first);  // while the device works on the one before
      finish(running, answer);
      running = std::move(next);
      submit(running);
    }
    finish(running, answer);
  }

private:
  // Notes which thread has the turn.
  class AtWork {
  public:
    explicit AtWork(std::atomic<std::thread::id>& who) : who_(who) { who_ = std::this_thread::get_id(); }
    ~AtWork() { who_ = std::thread::id(); }
    AtWork(const AtWork&) = delete;
    AtWork& operator=(const AtWork&) = delete;

  private:
    std::atomic<std::thread::id>& who_;
  };

  Group decode_group(const Dataset& pictures, int64_t first) const {
    const int64_t count = std::min<int64_t>(plan.options().batch, pictures.size() - first);
    Group group{first, std::vector<Picture>(static_cast<size_t>(count))};
    parallel_for(
        count, static_cast<int>(std::min<int64_t>(workers, count)),
        [&](int64_t i) { group.pictures[static_cast<size_t>(i)] = decode_picture(pictures, first + i); },
        /*chunk=*/1);
    return group;
  }

  Picture decode_picture(const Dataset& pictures, int64_t i) const {
    const std::string name = pictures.name(i);
    Picture p;
    try {
      const RawSample sample = pictures.read(i);
      p.pixels.resize(static_cast<size_t>(decoded_size(sample, limits).bytes()));
      p.view = decode_view(sample, card.preprocessing, {}, limits, p.pixels, name);
    } catch (const DataError& error) {
      p.error = reason_of(error, name);
      if (p.error.empty()) p.error = "it cannot be used";  // empty is a picture without an error
    }
    return p;
  }

  // Queues the group's copy and the step of its first view.
  void submit(Group& group) {
    context.compute().synchronize();  // idle, but where an answer threw: the slot is free from here on
    make_room(group);
    slot->begin();
    for (int row = 0; row < plan.options().batch; ++row) {
      slot->records()[row] = SampleRecord{};
      slot->labels()[row] = 0;
      slot->weights()[row] = 0;
    }
    for (size_t row = 0; row < group.pictures.size(); ++row) {
      const Picture& p = group.pictures[row];
      if (!p.error.empty()) continue;
      const int64_t offset = slot->reserve(p.view.bytes);
      std::copy_n(p.pixels.data(), p.view.bytes, slot->pictures() + offset);
      slot->records()[row] = p.view.record;
      slot->records()[row].offset += offset;
    }
    context.compute().copy(slot->device().data(), slot->host().data(), slot->used_bytes());
    Batch batch;
    slot->point_to_device(batch);
    group.input = input_of(batch);
    run_first_view(plan, group.input, views);
    slot->discard();
  }

  void make_room(const Group& group) {
    int64_t bytes = 0;
    for (const Picture& p : group.pictures)
      if (p.error.empty()) bytes += SlotLayout::aligned(p.view.bytes);
    const int64_t room = slot ? slot->layout().bytes - slot->layout().pictures : -1;
    if (bytes <= room) return;
    slot.reset();
    slot = std::make_unique<Slot>(context, SlotLayout(plan.options().batch, bytes));
  }

  void finish(const Group& group, const Answer& answer) {
    if (group.pictures.empty()) return;
    const std::vector<float> logits = mean_of_views(plan, group.input, views);
    for (size_t row = 0; row < group.pictures.size(); ++row) {
      Prediction prediction{.error = group.pictures[row].error};
      const auto first = logits.begin() + static_cast<int64_t>(row) * plan.classes();
      if (prediction.error.empty()) prediction.logits.assign(first, first + plan.classes());
      answer(group.first + static_cast<int64_t>(row), prediction);
    }
  }

public:
  const ModelCard card;

private:
  Network network;  // of a checkpoint; else empty
  Context& context;
  const DecodeLimits limits;
  const int workers, views;
  Plan plan;
  std::unique_ptr<Slot> slot;
  std::mutex turn;
  std::atomic<std::thread::id> at_work;
};

std::vector<double> Prediction::probabilities() const { return softmax(logits); }

std::vector<int> Prediction::top(int count) const {
  std::vector<int> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)]; });
  order.resize(std::min(order.size(), static_cast<size_t>(std::max(count, 0))));
  return order;
}

Predictor::Predictor(Context& context, const std::string& checkpoint, const PredictorOptions& options)
    : impl_(std::make_unique<Impl>(load_network(context, checkpoint), options)) {}
Predictor::Predictor(const Graph& graph, Params& params, const ModelCard& card, const PredictorOptions& options)
    : impl_(std::make_unique<Impl>(graph, params, card, options)) {}
Predictor::~Predictor() = default;
Predictor::Predictor(Predictor&&) noexcept = default;
Predictor& Predictor::operator=(Predictor&&) noexcept = default;

const ModelCard& Predictor::card() const { return impl_->card; }

void Predictor::predict(const Dataset& pictures, const Answer& answer) { impl_->predict(pictures, answer); }

std::vector<Prediction> Predictor::predict(std::span<const RawSample> pictures) {
  std::vector<Prediction> all;
  predict(PictureSpan(pictures), [&](int64_t, const Prediction& p) { all.push_back(p); });
  return all;
}

std::vector<Prediction> Predictor::predict_files(const std::vector<std::string>& paths) {
  std::vector<Prediction> all;
  predict(*picture_files(paths), [&](int64_t, const Prediction& p) { all.push_back(p); });
  return all;
}

}  // namespace convolt
