// What a training minimises.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace convolt {

// With x the logits of a row, t its target, p = softmax(x), s = sigmoid(x), c the class weights (1 where none):
enum class LossKind : uint8_t {
  cross_entropy,         // -sum_k c_k t_k log p_k
  focal,                 // -sum_k c_k t_k (1 - p_k)^gamma log p_k (T.-Y. Lin et al., arXiv 1708.02002)
  binary_cross_entropy,  // -mean_k c_k (q_k t_k log s_k + (1 - t_k) log(1 - s_k)), q the positive weights
  sigmoid_focal,         // -mean_k (a t_k (1 - s_k)^gamma log s_k + (1 - a) (1 - t_k) s_k^gamma log(1 - s_k)) for t_k
                         // of 0 or 1, a = focal_alpha; between them as torchvision.ops.sigmoid_focal_loss
  mean_squared_error,    // mean_k (x_k - t_k)^2
};

// A batch as a loss of your own sees it, in host memory during the call.
struct LossBatch {
  int rows = 0, classes = 0;        // of the batch; outputs of the network
  const float* logits = nullptr;    // [rows, classes]
  const int32_t* labels = nullptr;  // [rows], each in 0..classes-1; null with dense targets
  const float* targets = nullptr;   // [rows, classes] with dense targets, else null
  const float* weights = nullptr;   // [rows]; rows of weight 0 (padding, ignore_index) have no picture, and label 0
  // To be written, zero before; what is written to rows of weight 0 is not used.
  float* losses = nullptr;  // [rows]: the loss of each row, neither weighted nor divided
  float* gradient =
      nullptr;  // [rows, classes]: the derivative of the sum of `losses` by each logit; null in evaluation
};

// Writes losses and gradient of a batch. Runs within the step: on the CPU on the thread of the compute queue, on CUDA
// on the thread that calls Plan::run(), which then waits for the logits and copies losses and gradient in. Must not
// call the plan or its context. What it throws ends the step: the next synchronisation throws it, as DeviceError with
// its text.
using CustomLoss = std::function<void(const LossBatch& batch)>;

// A batch's loss is the mean of its rows' by the rows' weights, as with torch's reduction "mean". Cross-entropy of
// labels with class weights divides by the sum of weight times class weight of the label, as torch does; everything
// else by the sum of the weights. Rows of weight 0 may hold anything.
//
// With PlanOptions::mixing the target of row n is part t_n + (1 - part) t_(N-1-n) of its label's and its partner's
// target, smoothed or not, its class weight where cross-entropy divides by it likewise; its weight stays its own. It is
// counted as right by the label of the larger part, its own where both are equal.
//
// Evaluation plans compute the same kind without smoothing, threshold, class weights, positive weights and teacher:
// plain cross-entropy where training smooths it, so that losses of validation can be compared.
struct LossOptions {
  // What the logits are compared with.
  enum class Target : uint8_t {
    labels,  // StepInput::labels, i32 [N]: the target is 1 at the label, 0 elsewhere
    dense,   // StepInput::targets, f32 [N, K]: probabilities, several labels at once, or values to fit
  };
  LossKind kind = LossKind::cross_entropy;  // the formula
  Target target = Target::labels;           // what the logits are compared with
  float smoothing = 0;  // the target becomes (1 - smoothing) t + smoothing / K; all but mean_squared_error
  // binary_cross_entropy: targets above it, smoothed and mixed as they are, become 1 and all others 0 (timm's
  // target_threshold).
  std::optional<float> target_threshold;
  std::vector<float> class_weights;     // [K], or empty; not sigmoid_focal and mean_squared_error
  std::vector<float> positive_weights;  // [K], or empty; binary_cross_entropy
  std::optional<int32_t> ignore_index;  // rows of this label count as of weight 0
  float focal_gamma = 2;                // exponent of focal and sigmoid_focal
  float focal_alpha = 0.25F;            // of sigmoid_focal; below 0: neither side is weighted
  // Above 0: (1 - distill_alpha) times the above plus distill_alpha T^2 KL(softmax(z / T) || softmax(x / T)), with z
  // the teacher's logits, f32 [N, K] at StepInput::teacher (G. Hinton et al., arXiv 1503.02531). Class weights do not
  // touch the second part, but in the sum of micro-batches.
  float distill_alpha = 0;
  float temperature = 1;  // T
  // A loss of your own in place of `kind`: target, ignore_index, weights of rows, loss scaling and meters work as ever;
  // smoothing, threshold, class and positive weights and distillation are its own business and must be left alone here.
  CustomLoss custom = {};
};

}  // namespace convolt
