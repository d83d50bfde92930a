// M. Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", arXiv 1801.04381; names as
// torchvision's.
#include "models/blocks.h"
#include "models/builders.h"

namespace convolt {
namespace {

Value inverted_residual(Value x, const std::string& name, int64_t channels, int stride, int expand) {
  const int64_t in = x.shape()[2], hidden = in * expand;
  Value y = x;
  int i = 0;
  const auto at = [&](int n) { return name + ".conv." + std::to_string(n); };
  if (expand != 1) {
    y = relu6(conv_norm(y, {.conv = at(0) + ".0", .norm = at(0) + ".1", .channels = hidden}));
    i = 1;
  }
  y = relu6(conv_norm(y, {.conv = at(i) + ".0",
                          .norm = at(i) + ".1",
                          .channels = hidden,
                          .kernel = 3,
                          .stride = stride,
                          .groups = hidden}));
  y = conv_norm(y, {.conv = at(i + 1), .norm = at(i + 2), .channels = channels});
  return stride == 1 && in == channels ? add(x, y) : y;
}

}  // namespace

void build_mobilenet_v2(Graph& g, const ModelInfo&, const ModelOptions& o) {
  struct Row {
    int expand;
    int64_t channels;
    int repeats, stride;
  };
  constexpr Row kRows[] = {{1, 16, 1, 1}, {6, 24, 2, 2},  {6, 32, 3, 2}, {6, 64, 4, 2},
                           {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}};
  Value x = g.input("image", {o.height, o.width, o.channels});
  x = relu6(conv_norm(x, {.conv = "features.0.0", .norm = "features.0.1", .channels = 32, .kernel = 3, .stride = 2}));
  int n = 1;
  for (const Row& row : kRows)
    for (int i = 0; i < row.repeats; ++i)
      x = inverted_residual(x, "features." + std::to_string(n++), row.channels, i == 0 ? row.stride : 1, row.expand);
  x = relu6(conv_norm(x, {.conv = "features.18.0", .norm = "features.18.1", .channels = 1280}));
  x = dropout(global_avg_pool(x), 0.2F);
  g.output(linear(x, o.classes, {.name = "classifier.1", .init = Init::normal(0.01F), .bias_init = Init::constant(0)}));
}

}  // namespace convolt
