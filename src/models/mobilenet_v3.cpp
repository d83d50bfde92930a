// A. Howard et al., "Searching for MobileNetV3", arXiv 1905.02244, tables 1 and 2; names as torchvision's.
#include <span>

#include "models/blocks.h"
#include "models/builders.h"

namespace convolt {
namespace {

struct Row {
  int kernel;
  int64_t expanded, channels;
  bool squeeze, hard;  // squeeze-and-excitation; hardswish instead of ReLU
  int stride;
};
constexpr Row kSmall[] = {{3, 16, 16, true, false, 2}, {3, 72, 24, false, false, 2}, {3, 88, 24, false, false, 1},
                          {5, 96, 40, true, true, 2},  {5, 240, 40, true, true, 1},  {5, 240, 40, true, true, 1},
                          {5, 120, 48, true, true, 1}, {5, 144, 48, true, true, 1},  {5, 288, 96, true, true, 2},
                          {5, 576, 96, true, true, 1}, {5, 576, 96, true, true, 1}};
constexpr Row kLarge[] = {{3, 16, 16, false, false, 1}, {3, 64, 24, false, false, 2}, {3, 72, 24, false, false, 1},
                          {5, 72, 40, true, false, 2},  {5, 120, 40, true, false, 1}, {5, 120, 40, true, false, 1},
                          {3, 240, 80, false, true, 2}, {3, 200, 80, false, true, 1}, {3, 184, 80, false, true, 1},
                          {3, 184, 80, false, true, 1}, {3, 480, 112, true, true, 1}, {3, 672, 112, true, true, 1},
                          {5, 672, 160, true, true, 2}, {5, 960, 160, true, true, 1}, {5, 960, 160, true, true, 1}};

struct MobileNet {
  std::string_view name;
  std::span<const Row> rows;
  int64_t head;
};
constexpr MobileNet kTable[] = {{"mobilenet_v3_small", kSmall, 1024}, {"mobilenet_v3_large", kLarge, 1280}};

Value conv(Value x, const std::string& name, int64_t channels, int kernel, int stride, int64_t groups) {
  return conv_norm(x, {.conv = name + ".0",
                       .norm = name + ".1",
                       .channels = channels,
                       .kernel = kernel,
                       .stride = stride,
                       .groups = groups,
                       .eps = 1e-3F,
                       .momentum = 0.01F});
}

Value block(Value x, const std::string& name, const Row& row) {
  const int64_t in = x.shape()[2];
  const ActivationLayer act = row.hard ? hardswish : relu;
  int n = 0;
  const auto next = [&] { return name + ".block." + std::to_string(n++); };
  Value y = x;
  if (row.expanded != in) y = act(conv(y, next(), row.expanded, 1, 1, 1));
  y = act(conv(y, next(), row.expanded, row.kernel, row.stride, row.expanded));
  if (row.squeeze)
    y = squeeze_excitation(
        y, {.name = next(), .channels = scaled_width(static_cast<double>(row.expanded / 4)), .gate = hardsigmoid});
  y = conv(y, next(), row.channels, 1, 1, 1);
  return row.stride == 1 && in == row.channels ? add(y, x) : y;
}

}  // namespace

void build_mobilenet_v3(Graph& g, const ModelInfo& info, const ModelOptions& o) {
  const MobileNet& net = row_of(kTable, info);
  Value x = g.input("image", {o.height, o.width, o.channels});
  x = hardswish(conv(x, "features.0", 16, 3, 2, 1));
  int n = 1;
  for (const Row& row : net.rows) x = block(x, "features." + std::to_string(n++), row);
  x = hardswish(conv(x, "features." + std::to_string(n), 6 * x.shape()[2], 1, 1, 1));
  const auto dense = [](Value v, const char* name, int64_t units) {
    return linear(v, units, {.name = name, .init = Init::normal(0.01F), .bias_init = Init::constant(0)});
  };
  x = hardswish(dense(global_avg_pool(x), "classifier.0", net.head));
  g.output(dense(dropout(x, 0.2F), "classifier.3", o.classes));
}

}  // namespace convolt
