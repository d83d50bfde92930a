// One batch norm on the device, for the tests of its kernels both ways.
#pragma once

#include "batch_norm.h"
#include "kernel_test.h"
#include "reference/batch_norm.h"

namespace convolt::test {

using Vector = std::vector<double>;

// Rows below, at and above one chunk of the statistics; channels of one element, below, at and above a packet of eight,
// and of every width of the CPU's tiles.
constexpr int64_t kRows[] = {2, 63, 64, 65, 200};
constexpr int kChannels[] = {1, 3, 8, 10, 16, 33, 40, 72, 264};

inline int64_t chunks_for(int64_t rows) { return (channel_stats_extent(rows) - 1) / 2; }

// The coefficients and parameters of one batch norm on the device, and how to run it.
struct Norm {
  Norm(Context& context, int64_t row_count, int channel_count, double eps_value = 1e-5)
      : rows(row_count),
        channels(channel_count),
        params{random_values(channel_count, 11, 0.5, 1.5), random_values(channel_count, 12), eps_value},
        gamma(context, DType::f32, {channel_count}, params.gamma),
        beta(context, DType::f32, {channel_count}, params.beta),
        running_mean(context, DType::f32, {channel_count}, Vector(static_cast<size_t>(channel_count), 0.5)),
        running_var(context, DType::f32, {channel_count}, Vector(static_cast<size_t>(channel_count), 2)),
        stats(context, DType::f32, {channel_stats_extent(row_count), channel_count}),
        coef(context, DType::f32, {4, channel_count}),
        scratch(context, DType::f32, {bn_backward_scratch(row_count, channel_count) / 4}),
        dgamma(context, DType::f32, {channel_count}),
        dbeta(context, DType::f32, {channel_count}) {
    params.gamma = rounded(params.gamma, DType::f32);
    params.beta = rounded(params.beta, DType::f32);
  }

  void finalize(Stream s) const { bn_finalize(s, args()); }
  BnFinalizeArgs args() const {
    return {.stats = stats.as<float>(),
            .chunks = chunks_for(rows),
            .rows = rows,
            .channels = channels,
            .gamma = gamma.as<float>(),
            .beta = beta.as<float>(),
            .eps = static_cast<float>(params.eps),
            .momentum = 0.25F,
            .running_mean = running_mean.as<float>(),
            .running_var = running_var.as<float>(),
            .coef = coef.as<float>()};
  }
  void statistics(Stream s, const Tensor& x) const {
    channel_stats(s, x, stats.as<float>());
    finalize(s);
  }
  Vector coefficient(int row) const {
    const Vector all = coef.values();
    return {all.begin() + row * channels, all.begin() + (row + 1) * channels};
  }
  void check_guards() const {
    for (const DeviceTensor* t : {&running_mean, &running_var, &stats, &coef, &scratch, &dgamma, &dbeta})
      t->check_guards();
  }

  int64_t rows;
  int channels;
  reference::BatchNormParams params;
  DeviceTensor gamma, beta, running_mean, running_var, stats, coef, scratch, dgamma, dbeta;
};

inline std::string case_name(const std::string& what, int64_t rows, int channels) {
  return std::string(what) + " of [" + std::to_string(rows) + ", " + std::to_string(channels) + "]";
}

}  // namespace convolt::test
