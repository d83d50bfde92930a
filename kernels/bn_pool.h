// Batch norm, ReLU and max pool in one sweep, as ResNet's stem has them, and its gradient in two: the normalised
// picture is never stored. coef as in batch_norm.h, index and window as in pool.h.
#pragma once

#include "pool.h"

namespace convolt {

// y = max over the window of relu(x * scale + bias). Reads the picture, writes the pooled tensor and its index.
void bn_max_pool(Stream s, const Tensor& x, const float* coef, const Tensor& y, const Tensor& index,
                 const PoolWindow& window);

struct BnMaxPoolBackwardArgs {
  Tensor dy, dy2, index;  // of the pooled tensor; with dy2.data the gradient is the sum of both
  Tensor x;
  const float* coef = nullptr;
  PoolWindow window;
  float* scratch = nullptr;  // bn_backward_scratch() bytes
  float *dgamma = nullptr, *dbeta = nullptr;
  Tensor dx;
};
// dgamma and dbeta of the batch norm, overwritten. Reads dy, index and the picture.
void bn_max_pool_backward_reduce(Stream s, const BnMaxPoolBackwardArgs& args);
// dx, from dgamma and dbeta too. Reads dy, index and the picture, writes a picture.
void bn_max_pool_backward_apply(Stream s, const BnMaxPoolBackwardArgs& args);

}  // namespace convolt
