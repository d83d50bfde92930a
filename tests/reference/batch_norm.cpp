#include "reference/batch_norm.h"

#include <cmath>

namespace convolt::reference {

ChannelMoments channel_moments(const std::vector<double>& x, int64_t channels) {
  const auto width = static_cast<size_t>(channels);
  const double rows = static_cast<double>(x.size() / width);
  ChannelMoments m{std::vector<double>(width), std::vector<double>(width)};
  for (size_t i = 0; i < x.size(); ++i) m.mean[i % width] += x[i] / rows;
  for (size_t i = 0; i < x.size(); ++i) m.variance[i % width] += std::pow(x[i] - m.mean[i % width], 2) / rows;
  return m;
}

std::vector<double> batch_norm(const std::vector<double>& x, const ChannelMoments& moments, const BatchNormParams& p,
                               const std::vector<double>& residual, Act act) {
  std::vector<double> z(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t c = i % p.gamma.size();
    z[i] = (x[i] - moments.mean[c]) / std::sqrt(moments.variance[c] + p.eps) * p.gamma[c] + p.beta[c];
  }
  return activation(residual.empty() ? z : add(z, residual), act);
}

ChannelMoments updated_running(const ChannelMoments& running, const ChannelMoments& batch, int64_t rows,
                               double momentum) {
  const double n = static_cast<double>(rows);
  ChannelMoments r = running;
  for (size_t c = 0; c < r.mean.size(); ++c) {
    r.mean[c] += momentum * (batch.mean[c] - r.mean[c]);
    r.variance[c] += momentum * (batch.variance[c] * n / (n - 1) - r.variance[c]);
  }
  return r;
}

BatchNormGradients frozen_batch_norm_backward(const std::vector<double>& dy, const std::vector<double>& x,
                                              const ChannelMoments& moments, const BatchNormParams& p,
                                              const std::vector<double>& residual, Activation act) {
  const size_t channels = p.gamma.size();
  BatchNormGradients g{{}, {}, std::vector<double>(channels), std::vector<double>(channels)};
  g.dx = activation_backward(dy, batch_norm(x, moments, p, residual, act), act);
  if (!residual.empty()) g.dresidual = g.dx;
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t c = i % channels;
    const double deviation = std::sqrt(moments.variance[c] + p.eps), dz = g.dx[i];
    g.dgamma[c] += dz * (x[i] - moments.mean[c]) / deviation;
    g.dbeta[c] += dz;
    g.dx[i] = dz * p.gamma[c] / deviation;
  }
  return g;
}

BatchNormGradients batch_norm_backward(const std::vector<double>& dy, const std::vector<double>& x,
                                       const BatchNormParams& p, const std::vector<double>& residual, Act act) {
  const size_t channels = p.gamma.size();
  const double n = static_cast<double>(x.size() / channels);
  const ChannelMoments m = channel_moments(x, static_cast<int64_t>(channels));
  BatchNormGradients g{{}, {}, std::vector<double>(channels), std::vector<double>(channels)};
  const std::vector<double> dz = activation_backward(dy, batch_norm(x, m, p, residual, Activation::none), act);
  g.dx.resize(x.size());
  if (!residual.empty()) g.dresidual = dz;
  for (size_t c = 0; c < channels; ++c) {
    const double deviation = std::sqrt(m.variance[c] + p.eps);
    double dvariance = 0, dmean = 0, centred = 0;
    for (size_t i = c; i < x.size(); i += channels) {
      g.dbeta[c] += dz[i];
      g.dgamma[c] += dz[i] * (x[i] - m.mean[c]) / deviation;
      dvariance += dz[i] * p.gamma[c] * (x[i] - m.mean[c]) * -0.5 * std::pow(deviation, -3);
      dmean -= dz[i] * p.gamma[c] / deviation;
      centred += x[i] - m.mean[c];
    }
    dmean += dvariance * -2 * centred / n;
    for (size_t i = c; i < x.size(); i += channels)
      g.dx[i] = dz[i] * p.gamma[c] / deviation + dvariance * 2 * (x[i] - m.mean[c]) / n + dmean / n;
  }
  return g;
}

}  // namespace convolt::reference
