// F. N. Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size",
// arXiv 1602.07360, and version 1.1 of its repository; names as torchvision's.
#include "convolt/layers.h"

#include <algorithm>

#include "models/builders.h"

namespace convolt {
namespace {

Value conv(Value x, const std::string& name, int64_t channels, int kernel) {
  return relu(conv2d(
      x, channels,
      {.name = name, .kernel = kernel, .padding = kernel / 2, .bias = true, .init = Init::kaiming_uniform_fan_in()}));
}

Value fire(Value x, const std::string& name, int64_t squeeze, int64_t expand) {
  x = conv(x, name + ".squeeze", squeeze, 1);
  return concat({conv(x, name + ".expand1x1", expand, 1), conv(x, name + ".expand3x3", expand, 3)});
}

struct SqueezeNet {
  std::string_view name;
  int64_t channels;  // of the first convolution
  int kernel;
  int pools[3];  // positions in torchvision's Sequential
};
constexpr SqueezeNet kTable[] = {{"squeezenet1_0", 96, 7, {2, 6, 11}}, {"squeezenet1_1", 64, 3, {2, 5, 8}}};

}  // namespace

void build_squeezenet(Graph& g, const ModelInfo& info, const ModelOptions& o) {
  const SqueezeNet& net = row_of(kTable, info);
  Value x = g.input("image", {o.height, o.width, o.channels});
  x = relu(conv2d(
      x, net.channels,
      {.name = "features.0", .kernel = net.kernel, .stride = 2, .bias = true, .init = Init::kaiming_uniform_fan_in()}));
  for (int position = 2, fires = 0; fires < 8; ++position) {
    if (std::find(std::begin(net.pools), std::end(net.pools), position) != std::end(net.pools)) {
      x = max_pool(x, {.kernel = 3, .stride = 2, .ceil_mode = true});
      continue;
    }
    const int64_t squeeze = 16 * (fires / 2 + 1);
    x = fire(x, "features." + std::to_string(position), squeeze, 4 * squeeze);
    ++fires;
  }
  x = conv2d(dropout(x, 0.5F), o.classes,
             {.name = "classifier.1", .kernel = 1, .bias = true, .init = Init::normal(0.01F)});
  g.output(global_avg_pool(relu(x)));
}

}  // namespace convolt
