// The checkpoint that the test in C opens: of 2x2 grey pictures, it says the quarter that is brightest.
#include "convolt/convolt.h"

extern "C" int write_checkpoint(const char* path) {
  using namespace convolt;
  const auto context = Context::create(Device::cpu());
  Graph g;
  g.output(linear(flatten(g.input("image", {2, 2, 1})), 4, {.name = "fc"}));
  Params params(*context, g, 1);
  std::vector<float> identity(16);
  for (size_t i = 0; i < 4; ++i) identity[5 * i] = 8;
  params.set_values(params.find("fc.weight"), identity);
  params.set_values(params.find("fc.bias"), std::vector<float>(4));
  ModelCard card;
  card.model = "quarters";
  card.network = write_network(g, {.name = "quarters", .size = 2});
  card.classes = 0;  // as a caller leaves it who does not care: outputs are the network's
  card.channels = 1;
  card.height = card.width = 2;
  card.class_names = {"upper left", "upper right", "lower left"};  // the last has none
  card.preprocessing = {.height = 2, .width = 2, .channels = 1, .geometry = AugmentOptions::Geometry::none};
  card.preprocessing.mean.fill(0);
  card.preprocessing.std.fill(1);
  save_checkpoint(path, params, card);
  return 0;
}
