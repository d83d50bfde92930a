// M. Tan et al., "MnasNet: Platform-Aware Neural Architecture Search for Mobile", arXiv 1807.11626: MnasNet-B1 at four
// widths; names as torchvision's.
#include "models/blocks.h"
#include "models/builders.h"

namespace convolt {
namespace {

struct MnasNet {
  std::string_view name;
  double width;
};
constexpr MnasNet kTable[] = {{"mnasnet0_5", 0.5}, {"mnasnet0_75", 0.75}, {"mnasnet1_0", 1.0}, {"mnasnet1_3", 1.3}};

struct Stage {
  int64_t channels;
  int kernel, stride, expand, repeats;
};
constexpr Stage kStages[] = {{24, 3, 2, 3, 3}, {40, 5, 2, 3, 3},  {80, 5, 2, 6, 3},
                             {96, 3, 1, 6, 2}, {192, 5, 2, 6, 4}, {320, 3, 1, 6, 1}};

// The n-th entry of a Sequential, and the batch norm behind it.
Value conv(Value x, const std::string& name, int n, int64_t channels, int kernel, int stride = 1, int64_t groups = 1) {
  return conv_norm(x, {.conv = name + "." + std::to_string(n),
                       .norm = name + "." + std::to_string(n + 1),
                       .channels = channels,
                       .kernel = kernel,
                       .stride = stride,
                       .groups = groups,
                       .momentum = 3e-4F});
}

Value block(Value x, const std::string& name, const Stage& stage, int64_t channels, int stride) {
  const int64_t in = x.shape()[2], hidden = in * stage.expand;
  Value y = relu(conv(x, name, 0, hidden, 1));
  y = relu(conv(y, name, 3, hidden, stage.kernel, stride, hidden));
  y = conv(y, name, 6, channels, 1);
  return stride == 1 && in == channels ? add(y, x) : y;
}

}  // namespace

void build_mnasnet(Graph& g, const ModelInfo& info, const ModelOptions& o) {
  const double width = row_of(kTable, info).width;
  const auto scaled = [&](int64_t channels) { return scaled_width(static_cast<double>(channels) * width); };
  Value x = g.input("image", {o.height, o.width, o.channels});
  x = relu(conv(x, "layers", 0, scaled(32), 3, 2));
  x = relu(conv(x, "layers", 3, scaled(32), 3, 1, scaled(32)));
  x = conv(x, "layers", 6, scaled(16), 1);
  int n = 8;
  for (const Stage& stage : kStages) {
    const std::string name = "layers." + std::to_string(n++) + ".";
    for (int i = 0; i < stage.repeats; ++i)
      x = block(x, name + std::to_string(i) + ".layers", stage, scaled(stage.channels), i == 0 ? stage.stride : 1);
  }
  x = relu(conv(x, "layers", n, 1280, 1));
  x = dropout(global_avg_pool(x), 0.2F);
  const Init uniform{Init::Kind::uniform, 1.7320508F, Init::Fan::out};
  g.output(linear(x, o.classes, {.name = "classifier.1", .init = uniform, .bias_init = Init::constant(0)}));
}

}  // namespace convolt
