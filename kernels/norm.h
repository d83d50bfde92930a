// Normalisation by the mean and variance of each group of channels of each picture (Y. Wu, K. He, arXiv 1803.08494).
// x is [N, ..., C], seen as [pictures, pixels, C]; a set is one of the `groups` equal ranges of channels in all pixels
// of one picture. Layer normalisation (J. L. Ba et al., arXiv 1607.06450) is one group where each pixel is a picture.
// stats is f32 [sets, 2]: mean and 1 / sqrt(variance + eps), the variance biased; set = picture * groups + group.
#pragma once

#include "convolt/context.h"
#include "convolt/tensor.h"

namespace convolt {

struct NormSets {
  int64_t pixels = 1;  // of a picture
  int64_t groups = 1;
  int64_t pictures_of(const Shape& x) const { return x.elements() / x[-1] / pixels; }
  int64_t sets_of(const Shape& x) const { return pictures_of(x) * groups; }
};

// Shifted by the first element of each set, so that no accuracy is lost to a large mean. Moves 1 element per element.
void norm_stats(Stream s, const Tensor& x, const NormSets& sets, float eps, float* stats);
// y = (x - mean) invstd gamma[c] + beta[c]; y may be x. Moves 2 per element.
void norm_apply(Stream s, const Tensor& x, const NormSets& sets, const float* stats, const float* gamma,
                const float* beta, const Tensor& y);

// Bytes of `scratch` below.
int64_t norm_backward_params_scratch(const Shape& x);
// dgamma[c] = sum over rows of dy xhat, dbeta[c] = sum of dy, with xhat = (x - mean) invstd; overwritten. Moves 2 per
// element.
void norm_backward_params(Stream s, const Tensor& dy, const Tensor& x, const NormSets& sets, const float* stats,
                          float* scratch, float* dgamma, float* dbeta);
// With g = dy gamma[c] and means over the set: dx = invstd (g - mean(g) - xhat mean(g xhat)). means: f32 [sets, 2],
// scratch. dx may be dy. Moves 5 per element.
void norm_backward(Stream s, const Tensor& dy, const Tensor& x, const NormSets& sets, const float* stats,
                   const float* gamma, float* means, const Tensor& dx);

// Both of a layer norm in one sweep, and the sum of what it makes: whether it can, for channels in eights, at most
// 2048.
bool sweeps_layer_norm(const Shape& x, const NormSets& sets);
// dgamma, dbeta and dx as above, dsum[c] = sum over rows of the stored dx, the gradient of a bias before the norm. dx
// may be dy or x. Moves 3 per element: what it reads again lies in a GPU's caches.
struct LayerNormBackwardArgs {
  Tensor dy, x;
  const float *stats = nullptr, *gamma = nullptr;
  Tensor dx;
  float* scratch = nullptr;                                    // layer_norm_backward_scratch() bytes
  float *dgamma = nullptr, *dbeta = nullptr, *dsum = nullptr;  // [C], overwritten; dsum may be null
};
int64_t layer_norm_backward_scratch(const Shape& x);
void layer_norm_backward(Stream s, const LayerNormBackwardArgs& args);

}  // namespace convolt
