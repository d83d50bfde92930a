#include <convolt/convolt.h>
#include <cstdio>

int main() {
  using namespace convolt;
  const auto context = Context::create(Device::cpu());
  Graph g;
  Value x = g.input("image", {28, 28, 1});
  x = max_pool(relu(batch_norm(conv2d(x, 16, {.kernel = 3, .padding = 1}))));
  x = max_pool(relu(batch_norm(conv2d(x, 32, {.kernel = 3, .padding = 1}))));
  g.output(linear(global_avg_pool(x), 10));

  Params params(*context, g, /*seed=*/1);
  Optimizer sgd(params, {.momentum = 0.9F, .weight_decay = 1e-4F});
  Plan training(g, params, {.batch = 64, .training = true, .optimizer = &sgd});
  Plan evaluation(g, params, {.batch = 1});  // shares the weights

  std::vector<float> images(64 * 28 * 28, 0.5F);  // [64, 28, 28, 1], normalised
  std::vector<int32_t> labels(64, 3);
  for (int step = 0; step < 20; ++step) training.run(images.data(), labels.data(), 64, step, /*learning_rate=*/0.1F);
  evaluation.run(images.data(), nullptr, 1);
  std::printf("class 3: %.2f\n", evaluation.probabilities()[3]);
}
