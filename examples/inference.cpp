// Inference: a checkpoint answers any number of pictures, in files or in memory. Trains one first, to have it.
#include <convolt/convolt.h>

#include <cstdio>
#include <filesystem>
#include <random>

using namespace convolt;

// A small network on a folder of pictures; returns the path of its checkpoint.
std::string trained(Context& context, const Dataset& data, const std::filesystem::path& folder) {
  ModelCard card;
  card.model = "lenet";
  card.classes = static_cast<int64_t>(data.class_names().size());
  card.class_names = data.class_names();
  card.height = card.width = 32;
  card.preprocessing = {.height = 32, .width = 32, .geometry = AugmentOptions::Geometry::resize_centre_crop};
  card.preprocessing.resize = 32;
  Graph g;
  build_model(g, card.model, {card.classes, card.height, card.width, card.channels});
  Params params(context, g, /*seed=*/1);
  TrainOptions options;
  options.epochs = 10;
  options.batch = 20;
  options.schedule.base = 0.02;
  options.augment = options.preprocessing = card.preprocessing;
  options.output_dir = folder / "run";
  train(g, params, data, nullptr, card, options);
  return folder / "run" / "best.safetensors";
}

int main() {
  const auto folder = std::filesystem::temp_directory_path() / ("inference_" + std::to_string(std::random_device()()));
  make_synthetic_dataset(
      {.output = folder, .classes = 3, .train_per_class = 80, .val_per_class = 1, .min_side = 40, .max_side = 56});
  const auto data = open_dataset({.path = folder});
  const auto context = Context::create(Device::best());
  const std::string checkpoint = trained(*context, *data, folder);

  // Network, weights, classes and preprocessing come with the checkpoint; batches are the predictor's business.
  Predictor predictor(*context, checkpoint, {.batch = 16});
  const ModelCard& card = predictor.card();

  // Files. One of them does not exist, which costs the others nothing.
  const std::vector<Prediction> answers = predictor.predict_files({data->name(0), data->name(239), "missing.jpg"});
  for (const Prediction& p : answers) {
    if (!p.error.empty()) {
      std::printf("no answer: %s\n", p.error.c_str());
      continue;
    }
    const auto best = static_cast<size_t>(p.top()[0]);
    std::printf("%s, %.1f %%\n", card.class_names[best].c_str(), 100 * p.probabilities()[best]);
  }

  // Pixels in memory: one red picture of 50 x 70.
  RawSample red{std::vector<uint8_t>(50 * 70 * 3), 50, 70, 3};
  for (size_t i = 0; i < red.bytes.size(); i += 3) red.bytes[i] = 255;
  std::printf("red: class %d\n", predictor.predict({&red, 1})[0].top()[0]);

  // A whole data set, answer by answer.
  int64_t right = 0;
  predictor.predict(*data, [&](int64_t i, const Prediction& p) { right += p.top()[0] == data->label(i) ? 1 : 0; });
  std::printf("%d of %d pictures are right\n", static_cast<int>(right), static_cast<int>(data->size()));
  std::filesystem::remove_all(folder);
  return right > data->size() * 3 / 4 && answers[2].logits.empty() ? 0 : 1;
}
