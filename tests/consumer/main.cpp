// Trains a tiny network: which half of the picture is bright?
#include <convolt/convolt.h>

#include <cstdio>

int main() {
  using namespace convolt;
  const auto context = Context::create(Device::cpu());
  Graph g;
  g.output(linear(flatten(relu(conv2d(g.input("image", {4, 4, 1}), 4))), 2));
  Params params(*context, g, 1);
  Optimizer sgd(params);
  PlanOptions options;
  options.batch = 2;
  options.training = true;
  options.optimizer = &sgd;
  Plan plan(g, params, options);
  std::vector<float> images(2 * 16);
  for (size_t i = 0; i < 16; ++i) images[i < 8 ? i : 16 + i] = 1;
  const std::vector<int32_t> labels{0, 1};
  for (int step = 0; step < 50; ++step) plan.run(images.data(), labels.data(), 2, step, 0.1F);
  plan.set_meters({});
  plan.run(images.data(), labels.data(), 2, 50, 0);
  const MeterValues m = plan.meters().values;
  std::printf("loss %.4f\n", m.loss / m.weight);
  return m.top1 == 2 && m.loss / m.weight < 0.1 ? 0 : 1;
}
