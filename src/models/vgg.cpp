// K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", arXiv 1409.1556,
// table 1 (A, B, D, E), plain and with batch norms; names as torchvision's.
#include "convolt/layers.h"
#include "models/builders.h"

namespace convolt {
namespace {

struct Vgg {
  std::string_view name;
  int convolutions[5];  // in each stage
  bool norms;
};
constexpr Vgg kTable[] = {{"vgg11", {1, 1, 2, 2, 2}, false}, {"vgg11_bn", {1, 1, 2, 2, 2}, true},
                          {"vgg13", {2, 2, 2, 2, 2}, false}, {"vgg13_bn", {2, 2, 2, 2, 2}, true},
                          {"vgg16", {2, 2, 3, 3, 3}, false}, {"vgg16_bn", {2, 2, 3, 3, 3}, true},
                          {"vgg19", {2, 2, 4, 4, 4}, false}, {"vgg19_bn", {2, 2, 4, 4, 4}, true}};
constexpr int64_t kChannels[] = {64, 128, 256, 512, 512};

}  // namespace

void build_vgg(Graph& g, const ModelInfo& info, const ModelOptions& o) {
  const Vgg& vgg = row_of(kTable, info);
  Value x = g.input("image", {o.height, o.width, o.channels});
  int n = 0;  // position in torchvision's Sequential, where activations and pools count
  const auto at = [](int position) { return "features." + std::to_string(position); };
  for (int stage = 0; stage < 5; ++stage) {
    for (int i = 0; i < vgg.convolutions[stage]; ++i) {
      x = conv2d(x, kChannels[stage], {.name = at(n++), .padding = 1, .bias = true});
      if (vgg.norms) x = batch_norm(x, {.name = at(n++)});
      x = relu(x);
      ++n;
    }
    x = max_pool(x);
    ++n;
  }
  const auto dense = [](Value v, const char* name, int64_t units) {
    return linear(v, units, {.name = name, .init = Init::normal(0.01F), .bias_init = Init::constant(0)});
  };
  x = flatten(adaptive_avg_pool(x, 7));
  x = dropout(relu(dense(x, "classifier.0", 4096)), 0.5F);
  x = dropout(relu(dense(x, "classifier.3", 4096)), 0.5F);
  g.output(dense(x, "classifier.6", o.classes));
}

}  // namespace convolt
