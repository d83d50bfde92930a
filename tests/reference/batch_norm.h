// Batch normalisation of x [rows, channels] in double, by the formulas of arXiv 1502.03167 themselves: two passes for
// the variance, and the gradient as that paper's chain of partial derivatives rather than the closed form.
#pragma once

#include <cstdint>
#include <vector>

#include "reference/elementwise.h"

namespace convolt::reference {

struct ChannelMoments {
  std::vector<double> mean;
  std::vector<double> variance;  // biased
};
ChannelMoments channel_moments(const std::vector<double>& x, int64_t channels);

struct BatchNormParams {
  std::vector<double> gamma, beta;  // [channels]
  double eps = 1e-5;
};

// y = act((x - mean) / sqrt(variance + eps) * gamma + beta [+ residual]). residual may be empty. Training takes the
// moments of x, inference the running ones.
std::vector<double> batch_norm(const std::vector<double>& x, const ChannelMoments& moments, const BatchNormParams& p,
                               const std::vector<double>& residual, Act act);

// running' = (1 - momentum) running + momentum new, with the unbiased variance.
ChannelMoments updated_running(const ChannelMoments& running, const ChannelMoments& batch, int64_t rows,
                               double momentum);

// The gradients with moments that do not depend on x.
struct BatchNormGradients;
BatchNormGradients frozen_batch_norm_backward(const std::vector<double>& dy, const std::vector<double>& x,
                                              const ChannelMoments& moments, const BatchNormParams& p,
                                              const std::vector<double>& residual, Activation act);

struct BatchNormGradients {
  std::vector<double> dx, dresidual, dgamma, dbeta;
};
// Of training: the moments depend on x.
BatchNormGradients batch_norm_backward(const std::vector<double>& dy, const std::vector<double>& x,
                                       const BatchNormParams& p, const std::vector<double>& residual, Act act);

}  // namespace convolt::reference
