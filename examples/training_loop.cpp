// A training loop written by hand: loader, plan, learning rate, meters and evaluation are yours to arrange. train()
// (convolt/trainer.h) is this loop with checkpoints and resume.
#include <convolt/convolt.h>

#include <cstdio>
#include <filesystem>
#include <random>

using namespace convolt;

constexpr int kBatch = 20, kSide = 32, kEpochs = 8;

// The part of a data set that the plan gets right.
double accuracy_of(Plan& plan, Loader& loader) {
  plan.set_meters({});
  for (Batch batch; loader.next(batch); loader.release(batch)) plan.run(input_of(batch));
  loader.restart();
  const MeterValues m = plan.meters().values;
  return m.top1 / m.weight;
}

int main() {
  const auto folder =
      std::filesystem::temp_directory_path() / ("training_loop_" + std::to_string(std::random_device()()));
  make_synthetic_dataset(
      {.output = folder, .classes = 4, .train_per_class = 60, .val_per_class = 15, .min_side = 40, .max_side = 56});
  const auto data = open_dataset({.path = folder});
  const auto unseen = open_dataset({.path = folder, .split = Split::validation});

  // What is done to pictures: in both cases to the network's size, in training also turned, scaled and mirrored.
  AugmentOptions plain{.height = kSide, .width = kSide, .geometry = AugmentOptions::Geometry::resize_centre_crop};
  plain.resize = kSide;
  AugmentOptions varied = plain;
  varied.hflip = 0.5F;
  varied.rotate = 30;
  varied.zoom = {0.7F, 1.4F};

  const auto context = Context::create(Device::cpu());
  Graph g;
  build_model(g, "lenet", {.classes = 4, .height = kSide, .width = kSide, .channels = 3});
  Params params(*context, g, /*seed=*/1);
  Optimizer adam(params, {.kind = OptimizerKind::adamw, .weight_decay = 0.01F});
  Plan training(g, params, {.batch = kBatch, .training = true, .optimizer = &adam, .augment = varied});
  Plan evaluation(g, params, {.batch = kBatch, .augment = plain});  // shares the weights
  const auto batches = Loader::create(*context, *data, {.batch = kBatch, .seed = 1, .augment = varied});
  const auto checks = Loader::create(*context, *unseen, {.batch = kBatch, .training = false, .augment = plain});

  const int64_t per_epoch = batches->steps_per_epoch();
  const ScheduleOptions schedule{.base = 2e-3, .total_steps = kEpochs * per_epoch, .warmup_steps = per_epoch};
  double accuracy = 0;
  for (int64_t step = 0; step < schedule.total_steps; ++step) {
    Batch batch;
    batches->next(batch);  // waits for the decoder only
    StepInput input = input_of(batch);
    input.seed = 1;  // of dropout
    input.learning_rate = static_cast<float>(learning_rate(schedule, step));
    training.run(input);      // queued: the device works while the next batch is decoded
    batches->release(batch);  // once the device has passed it
    if ((step + 1) % per_epoch != 0) continue;
    const MeterValues m = training.meters().values;
    training.set_meters({});
    accuracy = accuracy_of(evaluation, *checks);
    std::printf("epoch %d: loss %.3f, %.1f %% right, unseen %.1f %%\n", static_cast<int>(batch.epoch),
                m.loss / m.weight, 100 * m.top1 / m.weight, 100 * accuracy);
  }
  std::filesystem::remove_all(folder);
  return accuracy > 0.5 ? 0 : 1;  // 0.25 by chance
}
