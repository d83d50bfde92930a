// K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", arXiv 2404.00498, as its script airbench94_muon has it
// (2024): three groups behind a convolution that whitens the pixels (convolt/whitening.h; --freeze its weights, and the
// scales of the norms, to train as published).
//
// The script divides the logits by 256. Here the head starts 256 times smaller instead, which is the same network, and
// under SGD the same training with 1 / 256^2 of the learning rate and 256^2 times the weight decay for the head.
#include "convolt/layers.h"
#include "models/builders.h"

namespace convolt {
namespace {

Value norm_act(Value x, const std::string& name) {
  return gelu(batch_norm(x, {.name = name, .eps = 1e-12F, .momentum = 0.4F}));
}

Value group(Value x, const std::string& name, int64_t channels) {
  const auto conv = [&](Value v, const std::string& n) {
    return conv2d(v, channels, {.name = name + n, .padding = 1, .init = Init::identity()});
  };
  x = norm_act(max_pool(conv(x, "conv1")), name + "norm1");
  return norm_act(conv(x, "conv2"), name + "norm2");
}

}  // namespace

void build_airbench(Graph& g, const ModelInfo&, const ModelOptions& o) {
  constexpr int64_t kWidths[] = {64, 256, 256};
  constexpr int kWhiteningKernel = 2;
  Value x = g.input("image", {o.height, o.width, o.channels});
  x = gelu(conv2d(x, int64_t{2} * kWhiteningKernel * kWhiteningKernel * o.channels,
                  {.name = "whiten",
                   .kernel = kWhiteningKernel,
                   .bias = true,
                   .init = Init::uniform_fan_in(),
                   .bias_init = Init::uniform_fan_in()}));
  for (int i = 0; i < 3; ++i) x = group(x, "layers." + std::to_string(i + 1) + ".", kWidths[i]);
  x = max_pool(x, {.kernel = 3, .stride = 3});
  // Uniform of standard deviation 1 / 256; the script scales what it drew to 1 exactly.
  const Init head{Init::Kind::uniform, 1.7320508F / 256, Init::Fan::none};
  g.output(linear(flatten(x), o.classes, {.name = "head", .bias = false, .init = head}));
}

}  // namespace convolt
