// A loss of the user's own, computed on the host: what it reads is copied out of the device, what it writes back in.
#include <algorithm>
#include <cstring>
#include <string>

#include "conv/widen.h"
#include "convolt/error.h"
#include "graph/op.h"

namespace convolt {
namespace {

class HostLoss {
public:
  HostLoss(const Op& op, const Binding& b)
      : options_(std::get<LossAttrs>(op.attrs).options),
        queue_(*b.queue),
        input_(b.input),
        logits_(b.in(op, 0)),
        losses_(b.out(op, 0)),
        gradient_(b.out(op, 1)),
        rows_(static_cast<int>(logits_.shape[0])),
        classes_(static_cast<int>(logits_.shape[1])),
        stored_(static_cast<size_t>(logits_.bytes())),
        x_(elements()),
        targets_(dense() ? elements() : 0),
        weights_(static_cast<size_t>(rows_)),
        labels_(dense() ? 0 : static_cast<size_t>(rows_)),
        row_losses_(static_cast<size_t>(rows_)),
        slopes_(gradient_.data != nullptr ? elements() : 0) {}

  void operator()(Stream s) {
    read(s);
    std::fill(row_losses_.begin(), row_losses_.end(), 0.F);
    std::fill(slopes_.begin(), slopes_.end(), 0.F);
    if (std::any_of(weights_.begin(), weights_.end(), [](float w) { return w > 0; })) options_.custom(batch());
    copy(s, losses_.data, row_losses_.data(), losses_.bytes());
    if (gradient_.data != nullptr) copy(s, gradient_.data, slopes_.data(), gradient_.bytes());
  }

private:
  bool dense() const { return options_.target == LossOptions::Target::dense; }
  size_t elements() const { return static_cast<size_t>(logits_.elements()); }

  LossBatch batch() {
    LossBatch b;
    b.rows = rows_;
    b.classes = classes_;
    b.logits = x_.data();
    b.labels = dense() ? nullptr : labels_.data();
    b.targets = dense() ? targets_.data() : nullptr;
    b.weights = weights_.data();
    b.losses = row_losses_.data();
    b.gradient = slopes_.empty() ? nullptr : slopes_.data();
    return b;
  }

  // On CUDA the closure runs on the caller's thread, and copies later; on the CPU this is the queue's thread.
  void copy(Stream s, void* to, const void* from, int64_t bytes) {
    if (s.cuda)
      queue_.copy(to, from, bytes);
    else
      std::memcpy(to, from, static_cast<size_t>(bytes));
  }
  void wait(Stream s) {
    if (s.cuda) queue_.synchronize();
  }

  void read(Stream s) {
    StepInput input;
    copy(s, &input, input_, sizeof input);
    copy(s, stored_.data(), logits_.data, logits_.bytes());
    wait(s);  // also for what the last step copied in
    copy(s, weights_.data(), input.weights, rows_ * int64_t{4});
    if (dense())
      copy(s, targets_.data(), input.targets, static_cast<int64_t>(elements()) * 4);
    else
      copy(s, labels_.data(), input.labels, rows_ * int64_t{4});
    wait(s);
    widen(stored_.data(), logits_.dtype, x_.data(), logits_.elements());
    if (!dense()) check_labels();
  }

  // The function may index by any label it is given.
  void check_labels() {
    for (size_t n = 0; n < labels_.size(); ++n) {
      if (options_.ignore_index && labels_[n] == *options_.ignore_index) weights_[n] = 0;
      if (!(weights_[n] > 0)) labels_[n] = 0;
      if (labels_[n] < 0 || labels_[n] >= classes_)
        throw DataError("row " + std::to_string(n) + " has the label " + std::to_string(labels_[n]) +
                        ": expected 0 to " + std::to_string(classes_ - 1));
    }
  }

  LossOptions options_;
  Queue& queue_;
  const StepInput* input_;
  Tensor logits_, losses_, gradient_;
  int rows_, classes_;
  std::vector<char> stored_;
  std::vector<float> x_, targets_, weights_;
  std::vector<int32_t> labels_;
  std::vector<float> row_losses_, slopes_;
};

}  // namespace

namespace ops {

// logits -> (the loss of each row, f32 [N]; for training the derivative of their sum, f32 [N, K])
const OpDef custom_loss{.name = "custom_loss",
                        .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
                          const Shape& logits = p[op.in[0]].shape;
                          if (!std::get<LossAttrs>(op.attrs).gradient) return {{DType::f32, {logits[0]}}};
                          return {{DType::f32, {logits[0]}}, {DType::f32, logits}};
                        },
                        .bind = [](const Op& op, const Binding& b) -> Launch {
                          return [loss = std::make_shared<HostLoss>(op, b)](Stream s) { (*loss)(s); };
                        },
                        .launches = [](const Op&) { return 0; }};

}  // namespace ops

}  // namespace convolt
