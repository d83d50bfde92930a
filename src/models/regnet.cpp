// I. Radosavovic et al., "Designing Network Design Spaces", arXiv 2003.13678: RegNetX, and RegNetY with
// squeeze-and-excitation; names as torchvision's.
#include <cmath>

#include "models/blocks.h"
#include "models/builders.h"

namespace convolt {
namespace {

struct RegNet {
  std::string_view name;
  int depth;
  int64_t w_0;
  double w_a, w_m;
  int64_t group_width;
  bool squeeze;
};
constexpr RegNet kTable[] = {
    {"regnet_x_400mf", 22, 24, 24.48, 2.54, 16, false}, {"regnet_x_800mf", 16, 56, 35.73, 2.28, 16, false},
    {"regnet_x_1_6gf", 18, 80, 34.01, 2.25, 24, false}, {"regnet_x_3_2gf", 25, 88, 26.31, 2.25, 48, false},
    {"regnet_x_8gf", 23, 80, 49.56, 2.88, 120, false},  {"regnet_y_400mf", 16, 48, 27.89, 2.09, 8, true},
    {"regnet_y_800mf", 14, 56, 38.84, 2.4, 16, true},   {"regnet_y_1_6gf", 27, 48, 20.71, 2.65, 24, true},
    {"regnet_y_3_2gf", 21, 80, 42.63, 2.66, 24, true},  {"regnet_y_8gf", 17, 192, 76.82, 2.19, 56, true}};

// The width of block i: w_0 + w_a i, moved to the nearest power of w_m times w_0, then to a multiple of 8 (section
// 3.3, equations 2 to 4), then to what the groups divide.
int64_t width_of(const RegNet& net, int i) {
  const auto w_0 = static_cast<double>(net.w_0);
  const double power = std::nearbyint(std::log(1 + net.w_a * i / w_0) / std::log(net.w_m));
  const auto width = static_cast<int64_t>(8 * std::nearbyint(w_0 * std::pow(net.w_m, power) / 8));
  return scaled_width(static_cast<double>(width), std::min(net.group_width, width));
}

Value conv(Value x, const std::string& name, int64_t channels, int kernel = 1, int stride = 1, int64_t groups = 1) {
  return conv_norm(x, {.conv = name + ".0",
                       .norm = name + ".1",
                       .channels = channels,
                       .kernel = kernel,
                       .stride = stride,
                       .groups = groups});
}

Value block(Value x, const std::string& name, const RegNet& net, int64_t width, int stride, double drop) {
  const int64_t in = x.shape()[2], groups = width / std::min(net.group_width, width);
  const Value shortcut = in != width || stride != 1 ? conv(x, name + ".proj", width, 1, stride) : x;
  Value y = relu(conv(x, name + ".f.a", width));
  y = relu(conv(y, name + ".f.b", width, 3, stride, groups));
  if (net.squeeze) {
    const auto squeezed = static_cast<int64_t>(std::nearbyint(0.25 * static_cast<double>(in)));
    y = squeeze_excitation(y, {.name = name + ".f.se", .channels = squeezed, .bias = Init::uniform_fan_in()});
  }
  return relu(add(shortcut, drop_path(conv(y, name + ".f.c", width), drop)));
}

}  // namespace

void build_regnet(Graph& g, const ModelInfo& info, const ModelOptions& o) {
  const RegNet& net = row_of(kTable, info);
  Value x = g.input("image", {o.height, o.width, o.channels});
  x = relu(conv(x, "stem", 32, 3, 2));
  int stage = 0, in_stage = 0;
  int64_t last = 0;
  for (int i = 0; i < net.depth; ++i) {
    const int64_t width = width_of(net, i);
    if (width != last) {  // a stage is a run of blocks of one width, and halves the size
      ++stage;
      in_stage = 0;
      last = width;
    }
    const std::string s = std::to_string(stage);
    x = block(x, "trunk_output.block" + s + ".block" + s + "-" + std::to_string(in_stage), net, width,
              in_stage == 0 ? 2 : 1, o.drop_path.value_or(0) * i / (net.depth - 1));
    ++in_stage;
  }
  const LinearOptions head{.name = "fc", .init = Init::normal(0.01F), .bias_init = Init::constant(0)};
  g.output(linear(global_avg_pool(x), o.classes, head));
}

}  // namespace convolt
