// Trainings on pictures that grow from epoch to epoch.
#include <gmock/gmock.h>

#include "train/trial.h"

namespace convolt::test {
namespace {

using testing::HasSubstr;

// Takes pictures of any size.
void pooling_network(Graph& g) {
  Value x = g.input("image", {MadeSet::kSide, MadeSet::kSide, 1});
  x = relu(batch_norm(conv2d(x, 8, {.name = "conv1", .padding = 1}), {.name = "bn1"}));
  x = relu(batch_norm(conv2d(max_pool(x), 8, {.name = "conv2", .padding = 1}), {.name = "bn2"}));
  g.output(linear(dropout(global_avg_pool(x), 0.2F), 3, {.name = "fc"}));
}

// Sides 6, 8, 10, 12, 12 in epochs of three steps.
constexpr int kSides[] = {6, 8, 10, 12, 12};
TrainOptions growing() {
  TrainOptions o = made_options();
  o.epochs = 5;
  o.sizes = {.least = 6, .start = 0, .end = 3, .step = 2};
  o.schedule.kind = ScheduleOptions::Kind::constant;
  return o;
}

std::vector<std::vector<float>> values_of(const Params& params) {
  std::vector<std::vector<float>> values;
  for (size_t i = 0; i < params.specs().size(); ++i) values.push_back(params.values(static_cast<int>(i)));
  return values;
}

// The same training by hand: a loader and a plan of its own for each epoch.
std::vector<std::vector<float>> trained_by_hand(const Dataset& data, const TrainOptions& o) {
  Trial trial(3, pooling_network);
  Optimizer optimizer(*trial.params, o.optimizer);
  int64_t step = 0;
  for (const int side : kSides) {
    LoaderOptions l{.batch = o.batch, .seed = o.seed, .augment = o.augment, .mixing = o.mixing, .first_step = step};
    l.augment.height = l.augment.width = side;
    l.augment.crop_window = side < MadeSet::kSide ? MadeSet::kSide : 0;
    const auto loader = Loader::create(trial.params->context(), data, l);
    Plan plan(trial.graph, *trial.params,
              {.batch = o.batch,
               .training = true,
               .height = side,
               .width = side,
               .optimizer = &optimizer,
               .augment = l.augment,
               .mixing = mixes(o.mixing)});
    for (const int64_t end = step + loader->steps_per_epoch(); step < end; ++step) {
      Batch batch;
      loader->next(batch);
      StepInput input = input_of(batch);
      input.seed = o.seed;
      input.learning_rate = static_cast<float>(o.schedule.base);
      plan.run(input);
      loader->release(batch);
    }
    trial.params->context().compute().synchronize();
  }
  return values_of(*trial.params);
}

TEST(GrowingPictures, EachEpochTrainsOnPicturesOfItsSize) {
  const MadeSet data(48);
  for (const float alpha : {0.F, 1.F}) {
    TrainOptions o = growing();
    o.mixing.cutmix_alpha = alpha;
    Trial trial(3, pooling_network);
    EXPECT_EQ(trial.train(data, nullptr, o).steps, 15);
    EXPECT_EQ(values_of(*trial.params), trained_by_hand(data, o)) << "cutmix " << alpha;
  }
}

// In one slab the plans of a training have their meters and tables in the same places, as it happens.
TEST(GrowingPictures, PlansThatShareNoMemoryComeToTheSame) {
  const MadeSet data(48);
  std::vector<double> losses[2];
  for (const bool separate : {false, true}) {
    if (separate) setenv("CONVOLT_SLAB", "separate", 1);
    TrainObserver observer;
    observer.epoch = [&](const EpochSummary& s) { losses[separate ? 1 : 0].push_back(s.train_loss); };
    Trial(3, pooling_network).train(data, nullptr, growing(), observer);
    unsetenv("CONVOLT_SLAB");
  }
  EXPECT_EQ(losses[0], losses[1]);
}

// Meters, and in f16 the loss scale, go on from size to size; stopped anywhere on the way, so does the training.
TEST(GrowingPictures, ResumeToTheSameBits) {
  const MadeSet data(48), validation(20);
  Trial teacher(11, pooling_network);
  for (const DType dtype : {DType::f32, DType::f16}) {
    const TempFolder folder;
    TrainOptions whole = growing();
    whole.dtype = dtype;
    whole.batch = 8;
    whole.accumulate = 2;
    whole.optimizer.ema_decay = 0.9;
    whole.mixing.cutmix_alpha = 1;
    whole.loss.distill_alpha = 0.3F;
    whole.teacher = &teacher.graph;
    whole.teacher_params = teacher.params.get();
    whole.output_dir = folder.path("whole");
    EXPECT_EQ(Trial(3, pooling_network).train(data, &validation, whole).steps, 15);
    for (const int64_t stop : {2, 6})
      expect_same_bits_after(stop, whole, folder, data, validation, 15, pooling_network);
  }
}

TEST(GrowingPictures, AllIsCompiledAndAllocatedBeforeTheFirstStep) {
  const MadeSet data(48);
  Counters& counters = context_of(Device::cpu()).counters();
  TrainOptions o = growing();
  o.log_every = 1;
  std::vector<int64_t> allocations;
  TrainObserver observer;
  observer.progress = [&](const TrainProgress&) { allocations.push_back(counters.device_allocations); };
  Trial(3, pooling_network).train(data, nullptr, o, observer);
  ASSERT_EQ(allocations.size(), 15U);
  EXPECT_EQ(allocations.front(), allocations.back());

  // The smaller ones lie in the memory of the largest.
  const auto most_bytes = [&](const TrainOptions& options) {
    const int64_t before = counters.device_bytes;
    int64_t most = 0;
    observer.progress = [&](const TrainProgress&) { most = counters.device_bytes - before; };
    Trial(3, pooling_network).train(data, nullptr, options, observer);
    return most;
  };
  TrainOptions full = o;
  full.sizes = {};
  EXPECT_EQ(most_bytes(o), most_bytes(full));
}

TEST(GrowingPictures, ANetworkOfOneSizeIsRefused) {
  const MadeSet data(48);
  const auto message = [&](const TrainOptions& o) -> std::string {
    try {
      Trial().train(data, nullptr, o);
    } catch (const UsageError& e) {
      return e.what();
    }
    return "no UsageError";
  };
  EXPECT_THAT(message(growing()),
              HasSubstr("need a network that takes pictures of any size, and this one does not take "
                        "10 x 10: "));
  TrainOptions o = growing();
  o.sizes.least = 13;
  EXPECT_THAT(message(o), HasSubstr("is 1 to 12, the side that they end with (--train-crop-size); found 13"));
  o = growing();
  o.sizes.end = 0;
  EXPECT_THAT(message(o), HasSubstr("(--end-ramp), found 0 and 0"));
  o = growing();
  o.augment.width = 10;
  EXPECT_THAT(message(o), HasSubstr("are square, found 10 x 12"));
}

}  // namespace
}  // namespace convolt::test
