// M. Tan, Q. V. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", arXiv 1905.11946, and
// "EfficientNetV2: Smaller Models and Faster Training", arXiv 2104.00298; names as torchvision's.
#include <cmath>
#include <span>

#include "models/blocks.h"
#include "models/builders.h"

namespace convolt {
namespace {

struct Stage {
  bool fused;  // one dense convolution in place of the expansion and the depthwise one
  int expand, kernel, stride;
  int64_t channels;
  int repeats;
};
constexpr Stage kB[] = {{false, 1, 3, 1, 16, 1}, {false, 6, 3, 2, 24, 2},  {false, 6, 5, 2, 40, 2},
                        {false, 6, 3, 2, 80, 3}, {false, 6, 5, 1, 112, 3}, {false, 6, 5, 2, 192, 4},
                        {false, 6, 3, 1, 320, 1}};
constexpr Stage kS[] = {{true, 1, 3, 1, 24, 2},   {true, 4, 3, 2, 48, 4},   {true, 4, 3, 2, 64, 4},
                        {false, 4, 3, 2, 128, 6}, {false, 6, 3, 1, 160, 9}, {false, 6, 3, 2, 256, 15}};
constexpr Stage kM[] = {{true, 1, 3, 1, 24, 3},   {true, 4, 3, 2, 48, 5},    {true, 4, 3, 2, 80, 5},
                        {false, 4, 3, 2, 160, 7}, {false, 6, 3, 1, 176, 14}, {false, 6, 3, 2, 304, 18},
                        {false, 6, 3, 1, 512, 5}};
constexpr Stage kL[] = {{true, 1, 3, 1, 32, 4},    {true, 4, 3, 2, 64, 7},    {true, 4, 3, 2, 96, 7},
                        {false, 4, 3, 2, 192, 10}, {false, 6, 3, 1, 224, 19}, {false, 6, 3, 2, 384, 25},
                        {false, 6, 3, 1, 640, 7}};

struct EfficientNet {
  std::string_view name;
  std::span<const Stage> stages;
  int64_t stem, head;  // head 0: four times the last stage's channels
  double width, depth;
  float dropout, eps = 1e-5F, momentum = 0.1F;
};
constexpr EfficientNet kTable[] = {{"efficientnet_b0", kB, 32, 0, 1.0, 1.0, 0.2F},
                                   {"efficientnet_b1", kB, 32, 0, 1.0, 1.1, 0.2F},
                                   {"efficientnet_b2", kB, 32, 0, 1.1, 1.2, 0.3F},
                                   {"efficientnet_b3", kB, 32, 0, 1.2, 1.4, 0.3F},
                                   {"efficientnet_b4", kB, 32, 0, 1.4, 1.8, 0.4F},
                                   {"efficientnet_b5", kB, 32, 0, 1.6, 2.2, 0.4F, 1e-3F, 0.01F},
                                   {"efficientnet_b6", kB, 32, 0, 1.8, 2.6, 0.5F, 1e-3F, 0.01F},
                                   {"efficientnet_b7", kB, 32, 0, 2.0, 3.1, 0.5F, 1e-3F, 0.01F},
                                   {"efficientnet_v2_s", kS, 24, 1280, 1, 1, 0.2F, 1e-3F},
                                   {"efficientnet_v2_m", kM, 24, 1280, 1, 1, 0.3F, 1e-3F},
                                   {"efficientnet_v2_l", kL, 32, 1280, 1, 1, 0.4F, 1e-3F}};
constexpr double kStochasticDepth = 0.2;  // of the block behind the last

class Builder {
public:
  explicit Builder(const EfficientNet& net) : net_(net) {}

  int64_t channels(int64_t base) const { return scaled_width(static_cast<double>(base) * net_.width); }
  int repeats(const Stage& stage) const { return static_cast<int>(std::ceil(stage.repeats * net_.depth)); }

  Value conv(Value x, const std::string& name, int64_t out, int kernel = 1, int stride = 1, int64_t groups = 1) const {
    return conv_norm(x, {.conv = name + ".0",
                         .norm = name + ".1",
                         .channels = out,
                         .kernel = kernel,
                         .stride = stride,
                         .groups = groups,
                         .eps = net_.eps,
                         .momentum = net_.momentum});
  }

  Value block(Value x, const std::string& name, const Stage& stage, int stride, float drop) const {
    const int64_t out = channels(stage.channels);
    const Value y = stage.fused ? fused(x, name + ".block.", stage, stride, out)
                                : separable(x, name + ".block.", stage, stride, out);
    return x.shape() == y.shape() ? add(stochastic_depth(y, drop), x) : y;
  }

private:
  Value fused(Value x, const std::string& name, const Stage& stage, int stride, int64_t out) const {
    if (stage.expand == 1) return silu(conv(x, name + "0", out, stage.kernel, stride));
    const int64_t hidden = scaled_width(static_cast<double>(x.shape()[2] * stage.expand));
    return conv(silu(conv(x, name + "0", hidden, stage.kernel, stride)), name + "1", out);
  }

  Value separable(Value x, const std::string& name, const Stage& stage, int stride, int64_t out) const {
    const int64_t in = x.shape()[2], hidden = scaled_width(static_cast<double>(in * stage.expand));
    int n = 0;
    const auto next = [&] { return name + std::to_string(n++); };
    if (hidden != in) x = silu(conv(x, next(), hidden));
    x = silu(conv(x, next(), hidden, stage.kernel, stride, hidden));
    x = squeeze_excitation(x, {.name = next(), .channels = std::max<int64_t>(1, in / 4), .activation = silu});
    return conv(x, next(), out);
  }

  const EfficientNet& net_;
};

}  // namespace

void build_efficientnet(Graph& g, const ModelInfo& info, const ModelOptions& o) {
  const EfficientNet& net = row_of(kTable, info);
  const Builder b(net);
  int blocks = 0;
  for (const Stage& stage : net.stages) blocks += b.repeats(stage);

  Value x = g.input("image", {o.height, o.width, o.channels});
  x = silu(b.conv(x, "features.0", b.channels(net.stem), 3, 2));
  int n = 1, done = 0;
  for (const Stage& stage : net.stages) {
    const std::string name = "features." + std::to_string(n++) + ".";
    for (int i = 0; i < b.repeats(stage); ++i)
      x = b.block(x, name + std::to_string(i), stage, i == 0 ? stage.stride : 1,
                  static_cast<float>(o.drop_path.value_or(kStochasticDepth) * done++ / blocks));
  }
  x = silu(b.conv(x, "features." + std::to_string(n), net.head > 0 ? net.head : 4 * x.shape()[2]));
  x = dropout(global_avg_pool(x), net.dropout);
  const Init uniform{Init::Kind::uniform, 1, Init::Fan::out};
  g.output(linear(x, o.classes, {.name = "classifier.1", .init = uniform, .bias_init = Init::constant(0)}));
}

}  // namespace convolt
