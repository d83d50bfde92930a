// A. Krizhevsky, "One weird trick for parallelizing convolutional neural networks", arXiv 1404.5997: the network of
// 2012 on one device; names as torchvision's.
#include "convolt/layers.h"
#include "models/builders.h"

namespace convolt {

void build_alexnet(Graph& g, const ModelInfo&, const ModelOptions& o) {
  Value x = g.input("image", {o.height, o.width, o.channels});
  const auto conv = [&](int layer, int64_t channels, int kernel, int stride, int padding) {
    x = relu(conv2d(x, channels,
                    {.name = "features." + std::to_string(layer),
                     .kernel = kernel,
                     .stride = stride,
                     .padding = padding,
                     .bias = true,
                     .init = Init::uniform_fan_in(),
                     .bias_init = Init::uniform_fan_in()}));
  };
  conv(0, 64, 11, 4, 2);
  x = max_pool(x, {.kernel = 3, .stride = 2});
  conv(3, 192, 5, 1, 2);
  x = max_pool(x, {.kernel = 3, .stride = 2});
  conv(6, 384, 3, 1, 1);
  conv(8, 256, 3, 1, 1);
  conv(10, 256, 3, 1, 1);
  x = max_pool(x, {.kernel = 3, .stride = 2});
  x = flatten(adaptive_avg_pool(x, 6));
  x = relu(linear(dropout(x, 0.5F), 4096, {.name = "classifier.1"}));
  x = relu(linear(dropout(x, 0.5F), 4096, {.name = "classifier.4"}));
  g.output(linear(x, o.classes, {.name = "classifier.6"}));
}

}  // namespace convolt
