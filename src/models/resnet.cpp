// K. He et al., "Deep Residual Learning for Image Recognition", arXiv 1512.03385; v1.5: the stride of a bottleneck is
// in its 3x3 convolution, as in torchvision.
#include "convolt/layers.h"
#include "models/builders.h"

namespace convolt {
namespace {

Value conv_bn(Value x, const std::string& conv, const std::string& bn, int64_t channels, int kernel, int stride) {
  x = conv2d(x, channels, {.name = conv, .kernel = kernel, .stride = stride, .padding = kernel / 2});
  return batch_norm(x, {.name = bn});
}

// A block ends with `expansion * channels`; the shortcut is projected where its shape differs.
Value block(Value x, const std::string& name, int64_t channels, int stride, bool bottleneck) {
  const int64_t out = bottleneck ? 4 * channels : channels;
  Value shortcut = x;
  Value y = x;
  if (bottleneck) {
    y = relu(conv_bn(y, name + ".conv1", name + ".bn1", channels, 1, 1));
    y = relu(conv_bn(y, name + ".conv2", name + ".bn2", channels, 3, stride));
    y = conv_bn(y, name + ".conv3", name + ".bn3", out, 1, 1);
  } else {
    y = relu(conv_bn(y, name + ".conv1", name + ".bn1", channels, 3, stride));
    y = conv_bn(y, name + ".conv2", name + ".bn2", out, 3, 1);
  }
  if (stride != 1 || x.shape()[2] != out)
    shortcut = conv_bn(x, name + ".downsample.0", name + ".downsample.1", out, 1, stride);
  return relu(add(y, shortcut));
}

struct Stages {
  int blocks[4];
  bool bottleneck;
};
Stages stages_of(int depth) {
  switch (depth) {
    case 18:
      return {{2, 2, 2, 2}, false};
    case 34:
      return {{3, 4, 6, 3}, false};
    case 50:
      return {{3, 4, 6, 3}, true};
    case 101:
      return {{3, 4, 23, 3}, true};
    default:
      return {{3, 8, 36, 3}, true};
  }
}

}  // namespace

void build_resnet(Graph& g, const ModelInfo& info, const ModelOptions& o) {
  const Stages stages = stages_of(info.depth);
  Value x = g.input("image", {o.height, o.width, o.channels});
  x = relu(conv_bn(x, "conv1", "bn1", 64, 7, 2));
  x = max_pool(x, {.kernel = 3, .stride = 2, .padding = 1});
  for (int stage = 0; stage < 4; ++stage)
    for (int i = 0; i < stages.blocks[stage]; ++i)
      x = block(x, "layer" + std::to_string(stage + 1) + "." + std::to_string(i), int64_t{64} << stage,
                stage > 0 && i == 0 ? 2 : 1, stages.bottleneck);
  g.output(linear(global_avg_pool(x), o.classes, {.name = "fc"}));
}

}  // namespace convolt
