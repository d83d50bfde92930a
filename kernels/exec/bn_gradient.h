// The gradient of a batch norm's input, as kernels apply it element by element.
#pragma once

#include "exec/types.h"

namespace convolt {

// dx = scale * (g - (sum g + xhat * sum g xhat) / rows), of W channels. What is the same all down a channel is put
// together once: on a GPU six operands for each element's two would cost more than the arithmetic.
template <int W>
struct BnGradient {
  Floats<W> scale, mean, of_x, rest;

  // coef: f32 [4, channels] as in batch_norm.h; dgamma = sum g xhat, dbeta = sum g; inverse_rows is 0 where the
  // statistics are constants.
  static HD BnGradient of(const float* coef, int channels, const float* dgamma, const float* dbeta, float inverse_rows,
                          int c) {
    BnGradient b;
    b.mean = load<W>(coef + c);
    b.scale = load<W>(coef + 2 * channels + c);
    const Floats<W> invstd = load<W>(coef + channels + c), sum_xhat = load<W>(dgamma + c), sum = load<W>(dbeta + c);
    for_lanes<W>([&](int j) {
      const float part = -b.scale[j] * inverse_rows;
      b.of_x[j] = part * invstd[j] * sum_xhat[j];
      b.rest[j] = part * sum[j];
    });
    return b;
  }
  HD Floats<W> operator()(const Floats<W>& g, const Floats<W>& x) const {
    Floats<W> dx;
    for_lanes<W>([&](int j) { dx[j] = scale[j] * g[j] + ((x[j] - mean[j]) * of_x[j] + rest[j]); });
    return dx;
  }
};

}  // namespace convolt
