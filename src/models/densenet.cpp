// G. Huang et al., "Densely Connected Convolutional Networks", arXiv 1608.06993: DenseNet-BC; names as torchvision's.
#include "convolt/layers.h"
#include "models/builders.h"

namespace convolt {
namespace {

struct DenseNet {
  std::string_view name;
  int64_t growth, stem;
  int layers[4];
};
constexpr DenseNet kTable[] = {{"densenet121", 32, 64, {6, 12, 24, 16}},
                               {"densenet161", 48, 96, {6, 12, 36, 24}},
                               {"densenet169", 32, 64, {6, 12, 32, 32}},
                               {"densenet201", 32, 64, {6, 12, 48, 32}}};

Value norm_relu(Value x, const std::string& name) { return relu(batch_norm(x, {.name = name})); }

Value conv(Value x, const std::string& name, int64_t channels, int kernel, int stride = 1) {
  return conv2d(
      x, channels,
      {.name = name, .kernel = kernel, .stride = stride, .padding = kernel / 2, .init = Init::kaiming_normal_fan_in()});
}

// x and `growth` new channels computed from all of it.
Value dense_layer(Value x, const std::string& name, int64_t growth) {
  Value y = conv(norm_relu(x, name + ".norm1"), name + ".conv1", 4 * growth, 1);
  y = conv(norm_relu(y, name + ".norm2"), name + ".conv2", growth, 3);
  return concat({x, y});
}

// Half the channels and half the size.
Value transition(Value x, const std::string& name) {
  x = conv(norm_relu(x, name + ".norm"), name + ".conv", x.shape()[2] / 2, 1);
  return avg_pool(x);
}

}  // namespace

void build_densenet(Graph& g, const ModelInfo& info, const ModelOptions& o) {
  const DenseNet& net = row_of(kTable, info);
  Value x = g.input("image", {o.height, o.width, o.channels});
  x = norm_relu(conv(x, "features.conv0", net.stem, 7, 2), "features.norm0");
  x = max_pool(x, {.kernel = 3, .stride = 2, .padding = 1});
  for (int block = 0; block < 4; ++block) {
    const std::string n = std::to_string(block + 1);
    for (int i = 1; i <= net.layers[block]; ++i)
      x = dense_layer(x, "features.denseblock" + n + ".denselayer" + std::to_string(i), net.growth);
    if (block < 3) x = transition(x, "features.transition" + n);
  }
  x = global_avg_pool(norm_relu(x, "features.norm5"));
  g.output(linear(x, o.classes, {.name = "classifier", .bias_init = Init::constant(0)}));
}

}  // namespace convolt
