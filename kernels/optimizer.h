// The optimizer: one update launch over all tensors of a network, before it what the update needs to know of all
// gradients together (their norm, whether they are finite), and the sum of micro-batches.
#pragma once

#include "convolt/context.h"
#include "convolt/optimizer_kind.h"
#include "convolt/tensor.h"
#include "step_state.h"

namespace convolt {

// A tensor to update. All pointers in device memory; the table itself too.
struct OptimizerTensor {
  float* weight = nullptr;                 // f32 master
  float* moments[2] = {nullptr, nullptr};  // f32, same shape; null where the kind has none
  const void* gradient = nullptr;  // of gradient_dtype, scaled by StepStatus::loss_scale; null: only averaged (EMA)
  float* gradient_sum = nullptr;   // f32, over micro-batches, read in place of the gradient; null without accumulation
  void* copy = nullptr;            // 16-bit copy of the weight, refreshed; may be null
  float* average = nullptr;        // f32, exponential moving average of the weight; may be null
  int64_t elements = 0;
  int64_t first_piece = 0, pieces = 0;  // of UpdateArgs::pieces
  int32_t unit = 0;  // adaptive clipping: elements of a unit; 0: this tensor is not clipped. Tensors then have fewer
                     // than 2^32 elements
  float rate_scale = 1;
  float weight_decay = 0;
  int32_t rate = 0;    // which: 0 StepInput::learning_rate, 1 + i StepInput::own_rates[i]
  bool adapts = true;  // LARS
  // Muon: the tensor as a matrix, and where it and its Gram matrix lie in the scratch, in floats; rows 0: updated by
  // SGD.
  int32_t rows = 0, columns = 0;
  int64_t values = 0, gram = 0;
  DType gradient_dtype = DType::f32;
  DType copy_dtype = DType::f32;
};

// `count` elements of one tensor from `first`. The update walks tiles of kOptimizerTile, the last one of a tensor
// shorter.
constexpr int kOptimizerTile = 2048;
struct OptimizerPiece {
  int32_t tensor = 0;
  int64_t first = 0, count = 0;
};

// Muon: a tile of a matrix, at most kMatrixTile rows and columns of it.
constexpr int kMatrixTile = 32;
struct MatrixTile {
  int32_t tensor = 0, row = 0, column = 0;
};
// Muon: floats of all matrices, and of their Gram matrices.
struct MatrixSizes {
  int64_t values = 0, grams = 0;
};

struct UpdateRule {
  OptimizerKind kind = OptimizerKind::sgd;
  float momentum = 0.9F;  // sgd, rmsprop, lars; muon: of what is no matrix
  bool nesterov = false;  // sgd
  double beta1 = 0.9, beta2 = 0.999, alpha = 0.99, eps = 1e-8;
  float trust = 0.001F;           // lars
  float matrix_momentum = 0.95F;  // muon
  int iterations = 3;             // muon: of Newton and Schulz
  bool renormalise = false;       // muon: the weights, before each update
  float clip_norm = 0;            // > 0: the norm that all gradients together may have
  float clip_adaptive = 0;        // > 0: the norm of a unit's gradient as a part of that of its weights
  double average_decay = 0;       // of OptimizerTensor::average
  bool check_finite = false;      // gradients that are not finite are not applied
  bool scale_loss = false;        // with check_finite: they lower the loss scale; else they make a bad step
  BadStepPolicy bad_steps = BadStepPolicy::stop;
  // Whether the update needs a pass over the gradients before it.
  bool needs_norms() const { return check_finite || clip_norm > 0 || clip_adaptive > 0 || kind == OptimizerKind::lars; }
  bool needs_sums() const { return needs_norms() || kind == OptimizerKind::muon || kind == OptimizerKind::lamb; }
};

struct UpdateArgs {
  UpdateRule rule;
  const OptimizerTensor* tensors = nullptr;
  int64_t tensor_count = 0;
  const OptimizerPiece* tiles = nullptr;
  int64_t tile_count = 0;
  // What norms are taken of: the tiles of the tensors with a gradient, or for adaptive clipping their units. Those of
  // one tensor side by side.
  const OptimizerPiece* pieces = nullptr;
  int64_t piece_count = 0;
  // Muon: the tiles of the Gram matrices on and below the diagonal, and those of the matrices (lay_out_matrix()).
  const MatrixTile* gram_tiles = nullptr;
  int64_t gram_tile_count = 0;
  const MatrixTile* matrix_tiles = nullptr;
  int64_t matrix_tile_count = 0;
  MatrixSizes matrices;
  const StepInput* input = nullptr;
  StepStatus* status = nullptr;
  int64_t* updates = nullptr;  // applied so far; steps that were skipped do not count
  void* scratch = nullptr;     // update_scratch_bytes()
};

int64_t update_scratch_bytes(const UpdateRule& rule, int64_t tensors, int64_t pieces, const MatrixSizes& matrices = {});
int update_launches(const UpdateRule& rule);

// With g the gradient over its scale (StepStatus::loss_scale; for micro-batches also the sum of the rows' weights),
// after clipping, t the number of this update from 1, lr = the tensor's learning rate * rate_scale, wd the tensor's:
//   sgd      g += wd w; v = momentum v + g; w -= lr (nesterov ? g + momentum v : v)            torch.optim.SGD
//   adam     g += wd w; m = b1 m + (1 - b1) g; s = b2 s + (1 - b2) g^2;                        torch.optim.Adam
//            w -= lr / (1 - b1^t) m / (sqrt(s / (1 - b2^t)) + eps)
//   adamw    w -= lr wd w, then as adam without decay                                          torch.optim.AdamW
//   rmsprop  g += wd w; s = alpha s + (1 - alpha) g^2; v = momentum v + g / (sqrt(s) + eps);   torch.optim.RMSprop
//            w -= lr v
//   lars     r = trust |w| / (|g| + wd |w|), 1 where a norm is 0 or adapts is false;           arXiv 1708.03888
//            v = momentum v + lr r (g + wd w); w -= v
//   lion     w -= lr (sign(b1 m + (1 - b1) g) + wd w); m = b2 m + (1 - b2) g                   arXiv 2302.06675
//   muon     v = mu v + g; w -= lr (O(g + mu v) + wd w), O as muon.h has it, w first scaled to   K. Jordan, Muon, 2024
//            |w| = sqrt(rows) with renormalise and a rate above 0; what is no matrix as sgd with Nesterov momentum
//   lamb     m and s as adam without decay; d = wd w + m / (1 - b1^t) / (sqrt(s / (1 - b2^t)) + eps);   timm's Lamb
//            r = |w| / |d|, 1 where a norm or wd is 0; w -= lr r d                              (arXiv 1904.00962)
// and average += (1 - average_decay) (w - average). Moments start at 0. Where momentum is 0 its moment may be null.
// Clipping: g *= min(1, clip_norm / (|all g| + 1e-6)) (torch.nn.utils.clip_grad_norm_); adaptive, for each unit:
// g *= min(1, clip_adaptive max(|w|, 1e-3) / max(|g|, 1e-6)) (arXiv 2102.06171). StepStatus::gradient_norm is the norm
// before clipping, of the tensors with a gradient.
//
// Writes no tensor before the last micro-batch. At StepStatus::last_bad_step it writes nothing either: with the policy
// stop from first_bad_step on, with the others in that one step, which is counted; halve_rate halves
// StepStatus::rate_factor, a factor of lr. With check_finite a gradient that is not finite sets StepStatus::skip and
// nothing is written. With scale_loss the loss scale then halves (at least 1), and doubles after 2000 good steps in a
// row (at most 2^24); without it, or at a loss scale of 1, the step is a bad one.
//
// Moves, in bytes for an element: gradient, 8 of the weight, 8 for each moment and for the average, the copy; before
// that with norms the gradient again, and 4 of the weight for lars and adaptive clipping. Matrices of muon 12 more, and
// 12 in each iteration. LAMB the weight and both moments once more.
void optimizer_update(Stream s, const UpdateArgs& args);

// gradient_sum = gradient * StepStatus::loss_weight for the first micro-batch, += for the others. Moves the gradient and
// 8 bytes for an element.
void accumulate_gradients(Stream s, const UpdateArgs& args);

}  // namespace convolt
