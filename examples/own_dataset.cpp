// A data set of your own: a class with two functions, here raw pixels that are computed. Trains a small network on it.
#include <convolt/convolt.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

using namespace convolt;

// Grey pictures of stripes that lie, stand or lean, in noise.
class Stripes final : public Dataset {
public:
  Stripes(int64_t size, int64_t first) : size_(size), first_(first) { class_names_ = {"lying", "standing", "leaning"}; }

  int64_t size() const override { return size_; }

  // Called by several decode threads at once. Pictures in files would be returned as their bytes alone.
  RawSample read(int64_t i) const override {
    auto random = static_cast<uint32_t>(first_ + i) * 2654435761U;
    RawSample sample{std::vector<uint8_t>(kSide * kSide), kSide, kSide, /*channels=*/1};
    sample.label = static_cast<int32_t>(i % 3);
    const float phase = static_cast<float>(random >> 24) / 40;
    for (int y = 0; y < kSide; ++y)
      for (int x = 0; x < kSide; ++x) {
        const int along = *sample.label == 0 ? y : *sample.label == 1 ? x : (x + y) / 2;
        random = random * 1664525U + 1013904223U;
        const float noise = static_cast<float>(random >> 24) - 128;
        const float value = 128 + 60 * std::sin(static_cast<float>(along) + phase) + noise / 2;
        sample.bytes[static_cast<size_t>(y * kSide + x)] = static_cast<uint8_t>(std::clamp(value, 0.F, 255.F));
      }
    return sample;
  }

  static constexpr int kSide = 20;

private:
  int64_t size_, first_;
};

int main() {
  const auto context = Context::create(Device::cpu());
  const Stripes training(600, 0), validation(150, 600);

  Graph g;
  Value x = g.input("image", {Stripes::kSide, Stripes::kSide, 1});
  x = max_pool(relu(batch_norm(conv2d(x, 8, {.padding = 1}))));
  x = max_pool(relu(batch_norm(conv2d(x, 16, {.padding = 1}))));
  g.output(linear(global_avg_pool(x), 3));
  Params params(*context, g, /*seed=*/1);

  TrainOptions options;
  options.epochs = 3;
  options.batch = 32;
  options.schedule.base = 0.05;
  options.preprocessing = {.height = Stripes::kSide, .width = Stripes::kSide, .channels = 1};
  options.preprocessing.geometry = AugmentOptions::Geometry::none;
  options.preprocessing.mean = {0.5F};
  options.preprocessing.std = {0.25F};
  options.augment = options.preprocessing;
  options.augment.brightness = 0.2F;

  TrainObserver observer;
  observer.epoch = [](const EpochSummary& e) {
    std::printf("epoch %d: loss %.3f, %.1f %% of unseen stripes are right\n", static_cast<int>(e.epoch), e.train_loss,
                100 * e.validation->top1);
  };
  const TrainResult result = train(g, params, training, &validation, ModelCard{}, options, observer);
  return result.best_top1 > 0.9 ? 0 : 1;
}
