#include "convolt/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "train/trial.h"

namespace convolt::test {
namespace {

TEST(Trainer, LearnsAndReportsEachEpoch) {
  const MadeSet data(96), validation(30);
  Trial trial;
  std::vector<EpochSummary> epochs;
  TrainObserver observer;
  observer.epoch = [&](const EpochSummary& s) { epochs.push_back(s); };
  const TrainResult r = trial.train(data, &validation, made_options(), observer);
  ASSERT_EQ(epochs.size(), 3U);
  EXPECT_EQ(r.steps, 18);
  EXPECT_EQ(epochs[2].validation->samples, 30);
  EXPECT_LT(epochs[2].train_loss, 0.5 * epochs[0].train_loss);
  EXPECT_GE(r.best_top1, 0.9);
  EXPECT_TRUE(epochs[0].best);
}

// Stopped after any step, with dropout, augmentation and momentum, a training ends with the same bytes.
TEST(Trainer, ResumesToTheSameBits) {
  const MadeSet data(80), validation(20);
  const TempFolder folder;
  TrainOptions whole = made_options();
  whole.output_dir = folder.path("whole");
  Trial().train(data, &validation, whole);
  for (const int64_t stop : {1, 5, 7}) expect_same_bits_after(stop, whole, folder, data, validation);
}

struct Recipe {
  const char* name;
  std::function<void(TrainOptions&)> set;
};
const Recipe kRecipes[] = {
    {"adamw and one cycle",
     [](TrainOptions& o) {
       o.optimizer = {.kind = OptimizerKind::adamw, .weight_decay = 0.01F, .norm_weight_decay = 0, .clip_norm = 1};
       o.schedule.kind = ScheduleOptions::Kind::one_cycle;
       o.schedule.base = 0.01;
     }},
    {"lars, average and accumulation",
     [](TrainOptions& o) {
       o.optimizer = {.kind = OptimizerKind::lars, .weight_decay = 1e-4F, .trust = 0.02F, .ema_decay = 0.9};
       o.batch = 8;
       o.accumulate = 2;
       o.warmup_epochs = o.cooldown_epochs = 1;
     }},
    {"rmsprop, adaptive clipping, frozen layer, plateau",
     [](TrainOptions& o) {
       o.optimizer = {.kind = OptimizerKind::rmsprop,
                      .momentum = 0.5F,
                      .clip_adaptive = 0.05F,
                      .layer_decay = 0.7F,
                      .groups = {{.pattern = "^conv1", .frozen = true}, {.pattern = "bias$", .lr_scale = 2}}};
       o.schedule.kind = ScheduleOptions::Kind::plateau;
       o.schedule.base = 0.003;
       o.schedule.patience = 0;
       o.schedule.threshold = 0.9;
     }},
    {"muon, biases that end early, alternating flips, views",
     [](TrainOptions& o) {
       o.optimizer = {.kind = OptimizerKind::muon,
                      .muon_momentum = 0.6F,
                      .muon_renormalise = true,
                      .groups = {{.pattern = "bias$", .lr_scale = 2, .epochs = 3}}};
       o.augment.hflip = 0.5F;
       o.augment.alternating_flip = true;
       o.views = 6;
     }},
    {"a policy that mixes chains, noise where it erases, mixup and cutmix for a while",
     [](TrainOptions& o) {
       o.augment.policy = AugmentOptions::Policy::augmix;
       o.augment.magnitude = 3;
       o.augment.contrast = 0.2F;
       o.augment.blur = 0.5F;
       o.augment.erase = 0.5F;
       o.augment.erase_mode = AugmentOptions::EraseMode::pixels;
       o.mixing = {.mixup_alpha = 0.4F, .cutmix_alpha = 1, .mode = MixOptions::Mode::elem, .off_epoch = 4};
       o.batch = 8;
       o.accumulate = 2;
       o.loss.smoothing = 0.1F;
     }},
    {"lamb, targets by a threshold",
     [](TrainOptions& o) {
       o.optimizer = {.kind = OptimizerKind::lamb, .weight_decay = 0.02F, .norm_weight_decay = 0, .ema_decay = 0.9};
       o.schedule.base = 0.005;
       o.loss.kind = LossKind::binary_cross_entropy;
       o.loss.smoothing = 0.1F;
       o.loss.target_threshold = 0.2F;
       o.mixing = {.mixup_alpha = 0.4F};
     }},
    {"lion in f16", [](TrainOptions& o) {
       o.optimizer = {.kind = OptimizerKind::lion, .weight_decay = 0.1F, .ema_decay = 0.5};
       o.schedule.base = 0.001;
       o.dtype = DType::f16;
     }}};

// Stopped and resumed, every optimizer and schedule ends with the bytes of the run that was never stopped.
TEST(Trainer, EveryRecipeResumesToTheSameBits) {
  const MadeSet data(48), validation(20);
  for (const Recipe& recipe : kRecipes) {
    SCOPED_TRACE(recipe.name);
    const TempFolder folder;
    TrainOptions whole = made_options();
    whole.epochs = 5;
    recipe.set(whole);
    whole.output_dir = folder.path("whole");
    const TrainResult all = Trial().train(data, &validation, whole);
    EXPECT_EQ(all.steps, 15);
    for (const int64_t stop : {2, 7}) expect_same_bits_after(stop, whole, folder, data, validation);
  }
}

// best.safetensors holds what was validated: the average. last.safetensors holds both.
TEST(Trainer, TheAverageIsValidatedAndSaved) {
  const MadeSet data(80), validation(20);
  const TempFolder folder;
  TrainOptions o = made_options();
  o.epochs = 1;
  o.optimizer.ema_decay = 0.5;
  o.output_dir = folder.path("run");
  double loss = 0;
  TrainObserver observer;
  observer.epoch = [&](const EpochSummary& s) { loss = s.validation->loss; };
  Trial trial, best, last;
  trial.train(data, &validation, o, observer);
  load_weights(o.output_dir + "/best.safetensors", *best.params);
  load_weights(o.output_dir + "/last.safetensors", *last.params);
  EXPECT_EQ(last.params->values(0), trial.params->values(0));
  EXPECT_NE(best.params->values(0), trial.params->values(0));
  Evaluator evaluator(best.graph, *best.params, validation, {.batch = 16, .preprocessing = made_pictures()});
  EXPECT_NEAR(evaluator.run().loss, loss, 1e-6);
  // Running statistics too.
  const int statistics = best.params->find("bn1.running_mean");
  EXPECT_NE(best.params->values(statistics), trial.params->values(statistics));
}

TEST(Trainer, FrozenParametersStay) {
  const MadeSet data(64);
  Trial trial, before;
  TrainOptions o = made_options();
  o.epochs = 1;
  o.optimizer.groups = {{.pattern = "^(conv1|bn1)\\.", .frozen = true}};
  trial.train(data, nullptr, o);
  for (const ParamSpec& spec : trial.params->specs()) {
    if (!spec.trainable) continue;
    const int i = trial.params->find(spec.name);
    const bool frozen = spec.name.starts_with("conv1") || spec.name.starts_with("bn1");
    EXPECT_EQ(trial.params->values(i) == before.params->values(i), frozen) << spec.name;
  }
}

// All parameters in such a group: the weights of a training of that length.
TEST(Trainer, AGroupThatEndsEarlyLearnsAsInAShorterTraining) {
  const MadeSet data(64);
  const auto weights_after = [&](int epochs, double own_epochs) {
    Trial trial;
    TrainOptions o = made_options();
    o.epochs = epochs;
    o.schedule.kind = ScheduleOptions::Kind::polynomial;
    o.optimizer.groups = {{.pattern = ".", .epochs = own_epochs}};
    trial.train(data, nullptr, o);
    return trial.params->values(trial.params->find("conv2.weight"));
  };
  const std::vector<float> shorter = weights_after(1, 0);
  EXPECT_EQ(weights_after(2, 1), shorter);
  EXPECT_NE(weights_after(2, 0), shorter);
  EXPECT_NE(weights_after(2, 1.5), shorter);
}

TEST(Trainer, ReportsTheNormOfTheGradientsWhenItClips) {
  const MadeSet data(64);
  const TempFolder folder;
  TrainOptions o = made_options();
  o.epochs = 1;
  o.optimizer.clip_norm = 0.5F;
  o.output_dir = folder.path("run");
  std::vector<double> norms;
  TrainObserver observer;
  observer.progress = [&](const TrainProgress& p) { norms.push_back(p.gradient_norm); };
  Trial().train(data, nullptr, o, observer);
  ASSERT_FALSE(norms.empty());
  for (const double norm : norms) EXPECT_GT(norm, 0);
  EXPECT_THAT(contents(o.output_dir + "/metrics.jsonl"), testing::HasSubstr("\"gradient_norm\":"));
}

TEST(Trainer, AResumeWithOtherOptionsSaysWhich) {
  const MadeSet data(64);
  const TempFolder folder;
  TrainOptions o = made_options();
  o.epochs = 1;
  o.output_dir = folder.path("run");
  Trial().train(data, nullptr, o);
  o.resume = o.output_dir + "/last.safetensors";
  const auto message = [&](const OptimizerOptions& other) -> std::string {
    TrainOptions changed = o;
    changed.optimizer = other;
    try {
      Trial().train(data, nullptr, changed);
    } catch (const FormatError& e) {
      return e.what();
    }
    return "no FormatError";
  };
  EXPECT_THAT(message({.kind = OptimizerKind::lion}), testing::HasSubstr("trained with sgd, not lion; give --opt sgd"));
  EXPECT_THAT(message({.ema_decay = 0.9}),
              testing::HasSubstr("without an average of the weights; leave out --ema-decay"));
}

// Five batches of 8 are two updates of 16; the pictures of the fifth are left out, as those of half a batch of 16 are.
TEST(Trainer, AnEpochHasWholeUpdates) {
  const MadeSet data(40), few(8);
  TrainOptions o = made_options();
  o.batch = 8;
  o.accumulate = 2;
  std::vector<int64_t> steps;
  TrainObserver observer;
  observer.epoch = [&](const EpochSummary& s) { steps.push_back(s.step); };
  EXPECT_EQ(Trial().train(data, nullptr, o, observer).steps, 6);
  EXPECT_EQ(steps, (std::vector<int64_t>{2, 4, 6}));
  EXPECT_THROW(Trial().train(few, nullptr, o), DataError);
}

// Without batch norm: two micro-batches of 8 train on the pictures, and with the dropout, of one batch of 16.
TEST(Trainer, AccumulationTrainsAsTheLargerBatchDoes) {
  const MadeSet data(40);
  std::vector<std::vector<float>> weights;
  for (const int micro_batches : {1, 2}) {
    Graph graph;
    Value x = graph.input("image", {MadeSet::kSide, MadeSet::kSide, 1});
    x = max_pool(relu(conv2d(x, 8, {.name = "conv1", .padding = 1, .bias = true})));
    graph.output(linear(dropout(flatten(x), 0.2F), 3, {.name = "fc"}));
    Params params(context_of(Device::cpu()), graph, 3);
    TrainOptions o = made_options();
    o.batch = 16 / micro_batches;
    o.accumulate = micro_batches;
    EXPECT_EQ(convolt::train(graph, params, data, nullptr, made_card(), o).steps, 6);
    weights.push_back(params.values(params.find("fc.weight")));
  }
  for (size_t i = 0; i < weights[0].size(); ++i) ASSERT_NEAR(weights[0][i], weights[1][i], 1e-5) << i;
}

TEST(Trainer, WarmUpAndCoolDownMustFit) {
  const MadeSet data(64);
  TrainOptions o = made_options();
  o.warmup_epochs = o.cooldown_epochs = 2;
  EXPECT_THROW(Trial().train(data, nullptr, o), UsageError);
  o.epochs = 4;
  EXPECT_NO_THROW(Trial().train(data, nullptr, o));
  o.optimizer.groups = {{.pattern = "^fc", .epochs = 3}};
  EXPECT_THROW(Trial().train(data, nullptr, o), UsageError) << "in a group's own training as well";
}

TEST(Trainer, TheNumberOfDecodeThreadsChangesNothing) {
  const MadeSet data(64);
  std::vector<float> weights[2];
  for (const int i : {0, 1}) {
    Trial trial;
    TrainOptions o = made_options();
    o.epochs = 1;
    o.workers = i == 0 ? 1 : 7;
    trial.train(data, nullptr, o);
    weights[i] = trial.params->values(trial.params->find("fc.weight"));
  }
  EXPECT_EQ(weights[0], weights[1]);
}

TEST(Trainer, BrokenPicturesAreReplacedInTrainingLeftOutInEvaluationAndNamed) {
  const MadeSet data(64, {3, 40}), validation(20, {1});
  Trial trial;
  std::vector<EpochSummary> epochs;
  TrainObserver observer;
  observer.epoch = [&](const EpochSummary& s) { epochs.push_back(s); };
  TrainOptions o = made_options();
  const TrainResult r = trial.train(data, &validation, o, observer);
  EXPECT_EQ(r.steps, 12);
  EXPECT_EQ(epochs.back().validation->samples, 19);
  EXPECT_EQ(epochs.back().validation->skipped, 1);
  std::vector<std::string> names;
  for (const BadSample& b : r.bad_samples) names.push_back(b.name);
  EXPECT_THAT(names, testing::UnorderedElementsAre("made[3]", "made[40]", "made[1]"));
}

TEST(Trainer, ALossThatIsNotFiniteStopsAndNamesStepAndLayer) {
  const MadeSet data(64);
  const TempFolder folder;
  Trial trial;
  TrainOptions o = made_options();
  o.schedule.base = 1e30;
  o.output_dir = folder.path("run");
  try {
    trial.train(data, nullptr, o);
    FAIL() << "it went on";
  } catch (const NonFiniteError& e) {
    EXPECT_THAT(e.what(), testing::HasSubstr("the loss of step 1 is not finite"));
    EXPECT_THAT(e.what(), testing::HasSubstr("layer '"));
  }
}

TEST(Trainer, WithoutValidationBestIsLast) {
  const MadeSet data(48);
  const TempFolder folder;
  TrainOptions o = made_options();
  o.output_dir = folder.path("run");
  Trial trial;
  const TrainResult r = trial.train(data, nullptr, o);
  EXPECT_EQ(r.best_top1, -1);
  Trial other;
  load_weights(o.output_dir + "/best.safetensors", *other.params);
  EXPECT_EQ(other.params->values(0), trial.params->values(0));
}

TEST(Trainer, ABatchLargerThanTheSetIsAnError) {
  const MadeSet data(8);
  EXPECT_THROW(Trial().train(data, nullptr, made_options()), DataError);
}

TEST(Trainer, EveryLossLearns) {
  const MadeSet data(96), validation(30);
  for (const LossKind kind :
       {LossKind::focal, LossKind::binary_cross_entropy, LossKind::sigmoid_focal, LossKind::mean_squared_error}) {
    Trial trial;
    TrainOptions o = made_options();
    o.loss.kind = kind;
    if (kind == LossKind::focal) o.loss.class_weights = {1, 2, 0.5F};
    EXPECT_GE(trial.train(data, &validation, o).best_top1, 0.8) << static_cast<int>(kind);
  }
}

TEST(Evaluator, GoesOnAfterACallbackThatThrew) {
  const MadeSet data(40);
  Trial trial;
  Evaluator evaluator(trial.graph, *trial.params, data, {.batch = 16, .preprocessing = made_pictures()});
  const EvalResult before = evaluator.run();
  const auto fails = [](int64_t i, const float*, bool) {
    if (i == 20) throw std::runtime_error("enough");
  };
  for (int turn = 0; turn < 2; ++turn) EXPECT_THROW(evaluator.run(fails), std::runtime_error);
  const EvalResult after = evaluator.run();
  EXPECT_EQ(after.samples, 40);
  EXPECT_EQ(after.loss, before.loss);
}

TEST(Evaluator, EverySampleCountsOnceWhateverTheBatch) {
  const MadeSet data(31, {30});
  double loss[2];
  for (const int i : {0, 1}) {
    Trial trial;
    Evaluator evaluator(trial.graph, *trial.params, data,
                        {.batch = i == 0 ? 7 : 31, .workers = 2, .preprocessing = made_pictures()});
    std::vector<int64_t> seen;
    const EvalResult r = evaluator.run([&](int64_t sample, const float*, bool) { seen.push_back(sample); });
    EXPECT_EQ(r.samples, 30);
    EXPECT_EQ(r.skipped, 1);
    ASSERT_EQ(seen.size(), 31U);
    for (int64_t k = 0; k < 31; ++k) EXPECT_EQ(seen[static_cast<size_t>(k)], k);
    EXPECT_EQ(evaluator.run().loss, r.loss) << "a second run starts from nothing";
    loss[i] = r.loss;
  }
  EXPECT_NEAR(loss[0], loss[1], 1e-5);
}

}  // namespace
}  // namespace convolt::test
