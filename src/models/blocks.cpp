#include "models/blocks.h"

#include <algorithm>

namespace convolt {

Value conv_norm(Value x, const ConvNorm& o) {
  x = conv2d(x, o.channels,
             {.name = o.conv,
              .kernel = o.kernel,
              .stride = o.stride,
              .padding = (o.kernel - 1) / 2,
              .groups = o.groups,
              .init = o.init});
  return batch_norm(x, {.name = o.norm, .eps = o.eps, .momentum = o.momentum, .init = o.scale});
}

Value squeeze_excitation(Value x, const SqueezeExcitation& o) {
  const auto dense = [&](Value v, const char* name, int64_t channels) {
    return conv2d(v, channels, {.name = o.name + name, .kernel = 1, .bias = true, .bias_init = o.bias});
  };
  const Value squeezed = o.activation(dense(adaptive_avg_pool(x, 1), ".fc1", o.channels));
  return mul(x, o.gate(dense(squeezed, ".fc2", x.shape()[2])));
}

Value drop_path(Value x, double chance) { return chance > 0 ? stochastic_depth(x, static_cast<float>(chance)) : x; }

int64_t scaled_width(double value, int64_t divisor) {
  const int64_t nearest = static_cast<int64_t>(value + static_cast<double>(divisor) / 2) / divisor * divisor;
  const int64_t width = std::max(divisor, nearest);
  return static_cast<double>(width) < 0.9 * value ? width + divisor : width;
}

}  // namespace convolt
