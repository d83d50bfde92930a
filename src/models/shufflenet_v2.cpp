// N. Ma et al., "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design", arXiv 1807.11164; names as
// torchvision's.
#include "models/blocks.h"
#include "models/builders.h"

namespace convolt {
namespace {

struct ShuffleNet {
  std::string_view name;
  int64_t stages[3], head;
};
constexpr ShuffleNet kTable[] = {{"shufflenet_v2_x0_5", {48, 96, 192}, 1024},
                                 {"shufflenet_v2_x1_0", {116, 232, 464}, 1024},
                                 {"shufflenet_v2_x1_5", {176, 352, 704}, 1024},
                                 {"shufflenet_v2_x2_0", {244, 488, 976}, 2048}};
constexpr int kRepeats[] = {4, 8, 4};

// The n-th convolution of a branch and the batch norm behind it.
Value conv(Value x, const std::string& branch, int n, int64_t channels, int kernel = 1, int stride = 1,
           int64_t groups = 1) {
  return conv_norm(x, {.conv = branch + "." + std::to_string(n),
                       .norm = branch + "." + std::to_string(n + 1),
                       .channels = channels,
                       .kernel = kernel,
                       .stride = stride,
                       .groups = groups,
                       .init = Init::uniform_fan_in()});
}

Value block(Value x, const std::string& name, int64_t channels, int stride) {
  const int64_t in = x.shape()[2], half = channels / 2;
  const std::string first = name + ".branch1", second = name + ".branch2";
  Value left = x, right = x;
  if (stride == 1) {
    const std::vector<Value> halves = split(x, {half, half});
    left = halves[0];
    right = halves[1];
  } else {
    left = relu(conv(conv(x, first, 0, in, 3, stride, in), first, 2, half));
  }
  right = relu(conv(right, second, 0, half));
  right = conv(right, second, 3, half, 3, stride, half);
  right = relu(conv(right, second, 5, half));
  return channel_shuffle(concat({left, right}), 2);
}

}  // namespace

void build_shufflenet_v2(Graph& g, const ModelInfo& info, const ModelOptions& o) {
  const ShuffleNet& net = row_of(kTable, info);
  Value x = g.input("image", {o.height, o.width, o.channels});
  x = relu(conv(x, "conv1", 0, 24, 3, 2));
  x = max_pool(x, {.kernel = 3, .stride = 2, .padding = 1});
  for (int stage = 0; stage < 3; ++stage)
    for (int i = 0; i < kRepeats[stage]; ++i)
      x = block(x, "stage" + std::to_string(stage + 2) + "." + std::to_string(i), net.stages[stage], i == 0 ? 2 : 1);
  x = relu(conv(x, "conv5", 0, net.head));
  g.output(linear(global_avg_pool(x), o.classes, {.name = "fc"}));
}

}  // namespace convolt
