// Y. LeCun et al., "Gradient-based learning applied to document recognition", Proc. IEEE 1998; with ReLU and max
// pooling, as commonly taught.
#include "convolt/layers.h"
#include "models/builders.h"

namespace convolt {

void build_lenet(Graph& g, const ModelInfo&, const ModelOptions& o) {
  Value x = g.input("image", {o.height, o.width, o.channels});
  const auto conv = [](const char* name, int padding) {
    return Conv2dOptions{.name = name,
                         .kernel = 5,
                         .padding = padding,
                         .bias = true,
                         .init = Init::uniform_fan_in(),
                         .bias_init = Init::uniform_fan_in()};
  };
  x = max_pool(relu(conv2d(x, 6, conv("conv1", 2))));
  x = max_pool(relu(conv2d(x, 16, conv("conv2", 0))));
  x = relu(linear(flatten(x), 120, {.name = "fc1"}));
  x = relu(linear(x, 84, {.name = "fc2"}));
  g.output(linear(x, o.classes, {.name = "fc3"}));
}

}  // namespace convolt
