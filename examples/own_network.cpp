// A network of your own: layers are functions on values, so blocks are functions of yours. Trains it on a folder of
// pictures and writes it down as a network file, which `convolt train --model FILE.json` takes.
#include <convolt/convolt.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>

using namespace convolt;

// Squeeze and excitation (J. Hu et al., arXiv 1709.01507): each channel times a factor that the picture decides.
Value excite(Value x, int64_t squeezed) {
  const int64_t channels = x.shape()[2];
  const Value factors = linear(relu(linear(global_avg_pool(x), squeezed)), channels);
  return mul(x, sigmoid(factors));
}

// Two convolutions and a shortcut around them (K. He et al., arXiv 1512.03385).
Value residual(Value x, int64_t channels, int stride) {
  Value y = relu(batch_norm(conv2d(x, channels, {.stride = stride, .padding = 1})));
  y = excite(batch_norm(conv2d(y, channels, {.padding = 1})), 8);
  if (stride > 1) x = batch_norm(conv2d(x, channels, {.kernel = 1, .stride = stride}));
  return relu(add(x, y));
}

int main() {
  const auto folder =
      std::filesystem::temp_directory_path() / ("own_network_" + std::to_string(std::random_device()()));
  make_synthetic_dataset(
      {.output = folder, .classes = 3, .train_per_class = 80, .val_per_class = 1, .min_side = 40, .max_side = 56});
  const auto data = open_dataset({.path = folder});

  Graph g;
  Value x = g.input("image", {32, 32, 3});
  x = relu(batch_norm(conv2d(x, 16, {.stride = 2, .padding = 1})));
  x = residual(x, 16, 1);
  x = residual(x, 32, 2);
  g.output(linear(flatten(x), static_cast<int64_t>(data->class_names().size())));

  const auto context = Context::create(Device::cpu());
  Params params(*context, g, /*seed=*/1);
  TrainOptions options;
  options.epochs = 8;
  options.batch = 16;
  options.schedule.base = 0.05;
  options.preprocessing = {.height = 32, .width = 32, .resize = 32};
  options.preprocessing.geometry = AugmentOptions::Geometry::resize_centre_crop;
  options.augment = options.preprocessing;
  options.augment.hflip = 0.5F;
  double accuracy = 0;
  TrainObserver observer;
  observer.epoch = [&](const EpochSummary& e) { accuracy = e.train_top1; };
  train(g, params, *data, nullptr, ModelCard{}, options, observer);

  const ModelInfo info{.name = "own",
                       .summary = "two residual blocks with squeeze and excitation",
                       .size = 32,
                       .recipe = ModelInfo::Recipe::cifar};
  const std::string text = write_network(g, info);
  std::ofstream(folder / "network.json") << text;
  const ModelInfo again = read_network(folder / "network.json");
  std::printf("%d layers, %d parameters, %d bytes of network file; %.1f %% of the last epoch were right\n",
              static_cast<int>(g.layers().size()), static_cast<int>(g.parameter_count()),
              static_cast<int>(again.network.size()), 100 * accuracy);
  std::filesystem::remove_all(folder);
  return accuracy > 0.7 ? 0 : 1;  // 0.33 by chance
}
