// Z. Liu et al., "A ConvNet for the 2020s", arXiv 2201.03545; names as torchvision's.
#include "convolt/layers.h"
#include "models/builders.h"

namespace convolt {
namespace {

struct ConvNeXt {
  std::string_view name;
  int64_t channels[4];
  int blocks[4];
  double stochastic_depth;  // of the last block
};
constexpr ConvNeXt kTable[] = {{"convnext_tiny", {96, 192, 384, 768}, {3, 3, 9, 3}, 0.1},
                               {"convnext_small", {96, 192, 384, 768}, {3, 3, 27, 3}, 0.4},
                               {"convnext_base", {128, 256, 512, 1024}, {3, 3, 27, 3}, 0.5},
                               {"convnext_large", {192, 384, 768, 1536}, {3, 3, 27, 3}, 0.5}};

// torch's trunc_normal_ cuts at +-2, which is a hundred of these standard deviations: nowhere.
constexpr Init kInit = Init::normal(0.02F);

// Kernel and stride are equal: patches.
Value patches(Value x, const std::string& name, int64_t channels, int size) {
  return conv2d(x, channels, {.name = name, .kernel = size, .stride = size, .bias = true, .init = kInit});
}

Value dense(Value x, const std::string& name, int64_t units) {
  return linear(x, units, {.name = name, .init = kInit, .bias_init = Init::constant(0)});
}

Value block(Value x, const std::string& name, float drop) {
  const int64_t channels = x.shape()[2];
  Value y =
      conv2d(x, channels,
             {.name = name + ".block.0", .kernel = 7, .padding = 3, .groups = channels, .bias = true, .init = kInit});
  y = layer_norm(y, {.name = name + ".block.2"});
  y = gelu(dense(y, name + ".block.3", 4 * channels));
  y = layer_scale(dense(y, name + ".block.5", channels), {.name = name + ".layer_scale"});
  return add(stochastic_depth(y, drop), x);
}

}  // namespace

void build_convnext(Graph& g, const ModelInfo& info, const ModelOptions& o) {
  const ConvNeXt& net = row_of(kTable, info);
  const double most = o.drop_path.value_or(net.stochastic_depth);
  const int last = net.blocks[0] + net.blocks[1] + net.blocks[2] + net.blocks[3] - 1;
  Value x = g.input("image", {o.height, o.width, o.channels});
  x = layer_norm(patches(x, "features.0.0", net.channels[0], 4), {.name = "features.0.1"});
  int done = 0;
  for (int stage = 0; stage < 4; ++stage) {
    const auto at = [&](int n) { return "features." + std::to_string(2 * stage + n) + "."; };
    if (stage > 0) x = patches(layer_norm(x, {.name = at(0) + "0"}), at(0) + "1", net.channels[stage], 2);
    for (int i = 0; i < net.blocks[stage]; ++i)
      x = block(x, at(1) + std::to_string(i), static_cast<float>(most * done++ / last));
  }
  x = layer_norm(global_avg_pool(x), {.name = "classifier.0"});
  g.output(dense(x, "classifier.2", o.classes));
}

}  // namespace convolt
