// Batch normalisation as statistics, then a per-channel scale and bias with an optional residual and activation
// (S. Ioffe, C. Szegedy, arXiv 1502.03167). x is [N, H, W, C] or [N, C]; "rows" are the extents before C.
// coef is f32 [4, C]: mean, inverse standard deviation, scale = gamma * invstd, bias = beta - mean * scale.
#pragma once

#include "activation.h"

namespace convolt {

// Rows of the f32 [.., C] statistics tensor of `rows` rows: 1 (the shift) + 2 for each chunk (sum and sum of squares of
// x - shift).
int64_t channel_stats_extent(int64_t rows);
// stats: f32 [channel_stats_extent(rows), C]. Shifted by the tensor's first row, so that no accuracy is lost to a large
// mean. Moves 1 element per element.
void channel_stats(Stream s, const Tensor& x, float* stats);

struct BnFinalizeArgs {
  // f32 [1 + 2 * chunks, C] as channel_stats writes it; [2, C] as channel_sums does, with raw_sums.
  const float* stats = nullptr;
  bool raw_sums = false;
  int64_t chunks = 0;
  int64_t rows = 0;  // at least 2
  int channels = 0;
  const float* gamma = nullptr;  // [C]
  const float* beta = nullptr;   // [C]
  float eps = 1e-5F;
  float momentum = 0.1F;  // weight of the new value
  // Updated, but where the mean or the variance of the batch is not finite.
  float* running_mean = nullptr;  // [C]
  float* running_var = nullptr;   // [C], with the unbiased variance
  float* coef = nullptr;          // [4, C], written
  // [2, C] of any floating dtype, written: scale and bias, to which those of coef are then rounded too, so that whoever
  // reads either computes the same. data may be null.
  Tensor low;
};
void bn_finalize(Stream s, const BnFinalizeArgs& args);
// Of two batch norms at once, both with plain sums and without `low`.
void bn_finalize_pair(Stream s, const BnFinalizeArgs& first, const BnFinalizeArgs& second);
// channel_stats and bn_finalize at once; on the GPU in one launch. stats: f32 [channel_stats_extent(rows), C],
// overwritten. args without its stats; `low` is f32 or of x's dtype.
void bn_statistics(Stream s, const Tensor& x, float* stats, BnFinalizeArgs args);

// coef from the running statistics (inference).
void bn_coefficients(Stream s, int channels, const float* gamma, const float* beta, const float* running_mean,
                     const float* running_var, float eps, float* coef);

// w_folded[o, ...] = w[o, ...] * scale[o], bias_folded[o] = bias[o] (0 where null) * scale[o] + bias_bn[o]: inference
// batch norm into the convolution before it. w, w_folded: f32 [O, ...].
void bn_fold(Stream s, const Tensor& w, const float* bias, const float* coef, const Tensor& w_folded,
             float* bias_folded);

// y = act(x * scale + bias [+ residual]). residual.data may be null. y may be x or residual. Moves 2 (3) per element.
void bn_apply(Stream s, const Tensor& x, const float* coef, const Tensor& residual, const Tensor& y, Act act);

// The gradient. dz = dy * act'; with act != none it is found from y where y.data is set (needed after a residual, and
// right only where gradient_from_output(act)), else from x * scale + bias recomputed. scratch: f32,
// bn_backward_scratch(rows, C) bytes.
int64_t bn_backward_scratch(int64_t rows, int channels);
// dgamma[c] = sum dz * (x - mean) * invstd, dbeta[c] = sum dz; overwritten. Moves 2 (3) per element.
void bn_backward_reduce(Stream s, const Tensor& dy, const Tensor& x, const Tensor& y, const float* coef, Act act,
                        float* scratch, float* dgamma, float* dbeta);
// dx = scale * (dz - (dbeta + xhat * dgamma) / rows); dresidual = dz where dresidual.data is set. dx (or dresidual) may
// be dy. frozen: mean and variance do not depend on x, and dx = scale * dz. Moves 3 (5) per element.
void bn_backward_apply(Stream s, const Tensor& dy, const Tensor& x, const Tensor& y, const float* coef, Act act,
                       const float* dgamma, const float* dbeta, const Tensor& dx, const Tensor& dresidual,
                       bool frozen = false);

// sums f32 [2, C]: the plain sums of x and of its square, as the epilogues of convolutions make them. They lose
// accuracy as (mean / standard deviation)^2. scratch as bn_backward_scratch.
void channel_sums(Stream s, const Tensor& x, float* scratch, float* sums);

// out[c] = sum over rows of x[row, c] (bias gradient); scratch as scale_channels_scratch. Moves 1 per element.
void channel_sum(Stream s, const Tensor& x, float* scratch, float* out);
// y[row, c] = x[row, c] + bias[c]; y may be x. Moves 2 per element.
void add_bias(Stream s, const Tensor& x, const float* bias, const Tensor& y);

}  // namespace convolt
