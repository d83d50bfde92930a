// What a training leaves behind that ended in the middle, and what it refuses to go on from.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/message_of.h"
#include "train/trial.h"

namespace convolt::test {
namespace {

using testing::HasSubstr;

class Interruption : public testing::Test {
protected:
  TrainOptions options(const std::string& name) const {
    TrainOptions o = made_options();
    o.output_dir = folder.path(name);
    return o;
  }
  static TrainOptions resumed(TrainOptions o) {
    o.resume = o.output_dir + "/last.safetensors";
    return o;
  }
  void expect_same_files(const std::string& found_in, const std::string& expected_in) const {
    const auto found = files_of(folder.path(found_in)), expected = files_of(folder.path(expected_in));
    EXPECT_EQ(found.size(), expected.size());
    for (const auto& [name, bytes] : expected)
      EXPECT_TRUE(name == "times.jsonl" || (found.contains(name) && found.at(name) == bytes)) << name;
  }

  TempFolder folder;
  MadeSet data{80}, validation{40};  // five steps an epoch, three batches of a validation
};

TEST_F(Interruption, WithinAValidationLosesNothing) {
  Trial().train(data, &validation, options("whole"));
  for (const int of : {1, 2, 3}) {  // the last one too
    SCOPED_TRACE(of);
    const std::string name = "part" + std::to_string(of);
    std::atomic<int> interrupt{0};
    int begun = 0;
    TrainObserver observer;
    observer.validating = [&](int64_t done, int64_t all) {
      EXPECT_EQ(all, 40);
      if (done == 16 && ++begun == of) interrupt = 2;
    };
    const TrainResult first = Trial().train(data, &validation, options(name), observer, &interrupt);
    EXPECT_TRUE(first.interrupted);
    EXPECT_EQ(first.steps, 5 * of);
    const TrainResult second = Trial().train(data, &validation, resumed(options(name)));
    EXPECT_FALSE(second.interrupted);
    EXPECT_EQ(second.steps, 15);
    expect_same_files(name, "whole");
  }
}

TEST_F(Interruption, AValidationThatFailsLosesNothing) {
  std::set<int64_t> all;
  for (int64_t i = 0; i < 40; ++i) all.insert(i);
  const MadeSet broken(40, all);
  Trial().train(data, &validation, options("whole"));
  EXPECT_THROW(Trial().train(data, &broken, options("part")), DataError);
  std::filesystem::remove(folder.path("part/bad.jsonl"));
  EXPECT_EQ(Trial().train(data, &validation, resumed(options("part"))).steps, 15);
  expect_same_files("part", "whole");
}

TEST_F(Interruption, OneTrainingWritesIntoAFolder) {
  TrainOptions o = options("run");
  o.checkpoint_every = 1;
  int others = 0;
  TrainObserver observer;
  observer.epoch = [&](const EpochSummary&) {
    ++others;
    EXPECT_THAT(message_of<Error>([&] { Trial().train(data, &validation, resumed(o)); }),
                HasSubstr("another training"));
  };
  Trial().train(data, &validation, o, observer);
  EXPECT_EQ(others, 3);
  EXPECT_EQ(Trial().train(data, &validation, resumed(o)).steps, 15) << "it is free again";
}

// Two that found no folder: the second one gets it when the first has ended.
TEST_F(Interruption, TheFolderIsLookedAtWhenItIsHeld) {
  Trial().train(data, &validation, options("run"));
  const auto before = files_of(folder.path("run"));
  TrainObserver observer;
  observer.locked = [&] {
    EXPECT_THAT(message_of<Error>([&] { Trial().train(data, &validation, options("run")); }),
                HasSubstr("another training"));
    throw UsageError("not empty");
  };
  EXPECT_EQ(message_of<UsageError>([&] { Trial().train(data, &validation, options("run"), observer); }), "not empty");
  EXPECT_TRUE(files_of(folder.path("run")) == before);
}

TEST_F(Interruption, NothingLeftIsSaid) {
  Trial().train(data, &validation, options("run"));
  const auto before = files_of(folder.path("run"));
  std::string warnings;
  TrainObserver observer;
  observer.begin = [] { ADD_FAILURE() << "nothing begins"; };
  observer.warning = [&](const std::string& text) { warnings += text; };
  TrainOptions o = resumed(options("run"));
  o.epochs = 2;
  Trial().train(data, &validation, o, observer);
  EXPECT_THAT(warnings, HasSubstr("nothing is left to train: the checkpoint is of step 15 of 10"));
  EXPECT_EQ(files_of(folder.path("run")), before);
}

// A network that learns nothing more keeps the best of before.
TEST_F(Interruption, ANewFolderTakesOverTheBest) {
  Trial().train(data, &validation, options("old"));
  TrainOptions o = options("new");
  o.resume = folder.path("old/last.safetensors");
  o.epochs = 4;
  o.schedule.base = 0;
  const TrainResult r = Trial().train(data, &validation, o);
  EXPECT_TRUE(files_of(folder.path("new")).at("best.safetensors") ==
              files_of(folder.path("old")).at("best.safetensors"));
  std::filesystem::remove(folder.path("old/best.safetensors"));
  o.output_dir = folder.path("newer");
  EXPECT_NEAR(Trial().train(data, &validation, o).best_top1, r.best_top1, 0.1);
  EXPECT_TRUE(std::filesystem::exists(folder.path("newer/best.safetensors"))) << "judged anew";
}

TEST_F(Interruption, OtherClassesAreRefused) {
  Trial().train(data, &validation, options("run"));
  Trial trial;
  const auto message = [&](std::vector<std::string> names) {
    ModelCard card = made_card();
    card.class_names = std::move(names);
    TrainOptions o = resumed(options("run"));
    o.epochs = 4;
    return message_of<DataError>([&] { train(trial.graph, *trial.params, data, &validation, card, o); });
  };
  EXPECT_THAT(message({"left", "right", "middle"}), HasSubstr("class 1 of the data set is 'right', but 'middle' to"));
  EXPECT_THAT(message({"left", "right"}), HasSubstr("was trained on 3 classes, but the data set has 2"));
}

TEST_F(Interruption, TheBestOfFiveIsNoMetric) {
  TrainOptions o = options("run");
  o.best_metric = BestMetric::top5;
  EXPECT_THAT(message_of<UsageError>([&] { Trial().train(data, &validation, o); }), HasSubstr("top1 or loss"));
}

// Its rates tell nothing of the schedule's.
TEST_F(Interruption, APlateauIsNotSeenInTheWarmUp) {
  TrainOptions o = options("run");
  o.schedule.kind = ScheduleOptions::Kind::plateau;
  o.schedule.patience = 0;
  o.schedule.threshold = 0.99;  // nothing is good enough
  o.warmup_epochs = 2;
  std::vector<double> rates;
  TrainObserver observer;
  observer.epoch = [&](const EpochSummary& s) { rates.push_back(s.learning_rate); };
  o.epochs = 5;
  Trial().train(data, &validation, o, observer);
  EXPECT_NEAR(rates[2], 0.05, 1e-9);
  EXPECT_NEAR(rates[3], 0.05, 1e-9) << "the first epoch that is seen";
  EXPECT_NEAR(rates[4], 0.005, 1e-9);
}

}  // namespace
}  // namespace convolt::test
