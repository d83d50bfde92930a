// The CIFAR-10 networks of K. He et al., arXiv 1512.03385, section 4.2: 6n+2 layers, shortcuts without parameters
// ("option A").
#include "models/blocks.h"
#include "models/builders.h"

namespace convolt {
namespace {

Value conv_bn(Value x, const std::string& name, int n, int64_t channels, int stride) {
  const std::string i = std::to_string(n);
  x = conv2d(x, channels,
             {.name = name + "conv" + i, .stride = stride, .padding = 1, .init = Init::kaiming_normal_fan_in()});
  return batch_norm(x, {.name = name + "bn" + i});
}

Value block(Value x, const std::string& name, int64_t channels, int stride, double drop) {
  Value y = relu(conv_bn(x, name + ".", 1, channels, stride));
  y = drop_path(conv_bn(y, name + ".", 2, channels, 1), drop);
  const bool same = stride == 1 && x.shape()[2] == channels;
  return relu(add(y, same ? x : slice_pad(x, stride, channels, channels / 4)));
}

}  // namespace

void build_cifar_resnet(Graph& g, const ModelInfo& info, const ModelOptions& o) {
  struct Row {
    std::string_view name;
    int blocks;  // in each stage
  };
  constexpr Row kTable[] = {{"resnet20", 3}, {"resnet32", 5}, {"resnet44", 7}, {"resnet56", 9}, {"resnet110", 18}};
  Value x = g.input("image", {o.height, o.width, o.channels});
  x = relu(conv_bn(x, "", 1, 16, 1));
  const int blocks = row_of(kTable, info).blocks, last = 3 * blocks - 1;
  int done = 0;
  for (int stage = 0; stage < 3; ++stage)
    for (int i = 0; i < blocks; ++i)
      x = block(x, "layer" + std::to_string(stage + 1) + "." + std::to_string(i), int64_t{16} << stage,
                stage > 0 && i == 0 ? 2 : 1, o.drop_path.value_or(0) * done++ / last);
  g.output(linear(global_avg_pool(x), o.classes, {.name = "linear", .init = Init::kaiming_normal_fan_in()}));
}

}  // namespace convolt
