// Trainings on mixed pictures.
#include <gtest/gtest.h>

#include "train/derived_options.h"
#include "train/trial.h"

namespace convolt::test {
namespace {

TrainOptions mixing_options() {
  TrainOptions o = made_options();
  o.mixing = {.mixup_alpha = 0.2F, .cutmix_alpha = 0.5F, .mode = MixOptions::Mode::pair};
  return o;
}

// The mean loss of each epoch.
std::vector<double> losses(const TrainOptions& o, const Dataset* validation = nullptr, TrainResult* result = nullptr) {
  const MadeSet data(96);
  std::vector<double> found;
  TrainObserver observer;
  observer.epoch = [&](const EpochSummary& s) { found.push_back(s.train_loss); };
  const TrainResult r = Trial().train(data, validation, o, observer);
  if (result != nullptr) *result = r;
  return found;
}

TEST(MixedTraining, LearnsWhatIsNotMixed) {
  const MadeSet validation(30);
  TrainResult result;
  TrainOptions o = mixing_options();
  o.epochs = 5;
  const std::vector<double> mixed = losses(o, &validation, &result);
  EXPECT_GE(result.best_top1, 0.9);
  o.mixing = {};
  const std::vector<double> plain = losses(o);
  EXPECT_GT(mixed.back(), plain.back() + 0.1) << "soft targets leave a loss";
}

TEST(MixedTraining, EndsAtTheOffEpoch) {
  TrainOptions o = mixing_options();
  const std::vector<double> on = losses(o);
  o.mixing.off_epoch = 2;
  const std::vector<double> off = losses(o);
  EXPECT_EQ(off[0], on[0]);
  EXPECT_EQ(off[1], on[1]);
  EXPECT_LT(off[2], on[2] - 0.05);
}

// The teacher sees what the student sees, and validation what there is.
TEST(MixedTraining, IsCarriedToItsParts) {
  const TrainOptions o = mixing_options();
  Trial trial;
  Optimizer optimizer(*trial.params, o.optimizer);
  EXPECT_TRUE(training_plan(o, o.augment, optimizer).mixing);
  EXPECT_TRUE(teacher_plan(o, o.augment).mixing);
  EXPECT_FALSE(teacher_plan(made_options(), o.augment).mixing);
  EXPECT_EQ(training_loader(o, 0).mixing.cutmix_alpha, 0.5F);
}

}  // namespace
}  // namespace convolt::test
