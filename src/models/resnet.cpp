// K. He et al., "Deep Residual Learning for Image Recognition", arXiv 1512.03385 (v1.5: the stride of a bottleneck is
// in its 3x3 convolution), and its kin: ResNeXt (S. Xie et al., arXiv 1611.05431), wide ResNet (S. Zagoruyko,
// N. Komodakis, arXiv 1605.07146) with torchvision's names, SE-ResNet (J. Hu et al., arXiv 1709.01507) with timm's.
#include "models/blocks.h"
#include "models/builders.h"

namespace convolt {
namespace {

struct ResNet {
  std::string_view name;
  int blocks[4];
  bool bottleneck;
  int64_t groups = 1, group_width = 64;  // of the 3x3 convolutions of the first stage
  bool squeeze_excitation = false;
};
constexpr ResNet kTable[] = {{"resnet18", {2, 2, 2, 2}, false},
                             {"resnet34", {3, 4, 6, 3}, false},
                             {"resnet50", {3, 4, 6, 3}, true},
                             {"resnet101", {3, 4, 23, 3}, true},
                             {"resnet152", {3, 8, 36, 3}, true},
                             {"wide_resnet50_2", {3, 4, 6, 3}, true, 1, 128},
                             {"wide_resnet101_2", {3, 4, 23, 3}, true, 1, 128},
                             {"resnext50_32x4d", {3, 4, 6, 3}, true, 32, 4},
                             {"resnext101_32x8d", {3, 4, 23, 3}, true, 32, 8},
                             {"resnext101_64x4d", {3, 4, 23, 3}, true, 64, 4},
                             {"se_resnet50", {3, 4, 6, 3}, true, 1, 64, true}};

Value basic(Value x, const std::string& name, int64_t channels, int stride) {
  x = relu(conv_norm(
      x, {.conv = name + ".conv1", .norm = name + ".bn1", .channels = channels, .kernel = 3, .stride = stride}));
  return conv_norm(x, {.conv = name + ".conv2", .norm = name + ".bn2", .channels = channels, .kernel = 3});
}

Value bottleneck(Value x, const std::string& name, const ResNet& net, int64_t channels, int stride) {
  const int64_t inner = channels * net.group_width / 64 * net.groups;
  x = relu(conv_norm(x, {.conv = name + ".conv1", .norm = name + ".bn1", .channels = inner}));
  x = relu(conv_norm(x, {.conv = name + ".conv2",
                         .norm = name + ".bn2",
                         .channels = inner,
                         .kernel = 3,
                         .stride = stride,
                         .groups = net.groups}));
  const Init scale = Init::constant(net.squeeze_excitation ? 0 : 1);  // timm starts each block as the identity
  x = conv_norm(x, {.conv = name + ".conv3", .norm = name + ".bn3", .channels = 4 * channels, .scale = scale});
  if (!net.squeeze_excitation) return x;
  return squeeze_excitation(x, {.name = name + ".se", .channels = channels / 4, .bias = Init::uniform_fan_in()});
}

// The shortcut is projected where its shape differs.
Value block(Value x, const std::string& name, const ResNet& net, int64_t channels, int stride, double drop) {
  const Value y =
      drop_path(net.bottleneck ? bottleneck(x, name, net, channels, stride) : basic(x, name, channels, stride), drop);
  if (x.shape() == y.shape()) return relu(add(y, x));
  const ConvNorm projection{
      .conv = name + ".downsample.0", .norm = name + ".downsample.1", .channels = y.shape()[2], .stride = stride};
  return relu(add(y, conv_norm(x, projection)));
}

}  // namespace

void build_resnet(Graph& g, const ModelInfo& info, const ModelOptions& o) {
  const ResNet& net = row_of(kTable, info);
  Value x = g.input("image", {o.height, o.width, o.channels});
  x = relu(conv_norm(x, {.conv = "conv1", .norm = "bn1", .channels = 64, .kernel = 7, .stride = 2}));
  x = max_pool(x, {.kernel = 3, .stride = 2, .padding = 1});
  const int last = net.blocks[0] + net.blocks[1] + net.blocks[2] + net.blocks[3] - 1;
  int done = 0;
  for (int stage = 0; stage < 4; ++stage)
    for (int i = 0; i < net.blocks[stage]; ++i)
      x = block(x, "layer" + std::to_string(stage + 1) + "." + std::to_string(i), net, int64_t{64} << stage,
                stage > 0 && i == 0 ? 2 : 1, o.drop_path.value_or(0) * done++ / last);
  g.output(linear(global_avg_pool(x), o.classes, {.name = "fc"}));
}

}  // namespace convolt
