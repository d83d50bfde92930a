// What a training keeps, when it ends, and what it does about losses that are not finite and pictures that cannot be
// read.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "data/decode.h"
#include "data/sampler.h"
#include "io/event_file_reader.h"
#include "support/killed_process.h"
#include "train/trial.h"

namespace convolt::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

template <class E>
std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const E& e) {
    return e.what();
  }
  return "no such error";
}

std::vector<json> lines_of(const std::string& path) {
  std::vector<json> lines;
  std::istringstream text(contents(path));
  for (std::string line; std::getline(text, line);) lines.push_back(json::parse(line));
  return lines;
}

std::vector<std::string> rows_of(const std::string& path) {
  std::vector<std::string> rows;
  std::istringstream text(contents(path));
  for (std::string row; std::getline(text, row);) rows.push_back(row);
  return rows;
}

TEST(Keeping, TheBestEpochsByTheMetricHaveCheckpointsOfTheirOwn) {
  const MadeSet data(48), validation(20);
  const TempFolder folder;
  TrainOptions o = made_options();
  o.epochs = 6;
  o.keep = 2;
  o.best_metric = BestMetric::loss;
  o.output_dir = folder.path("run");
  std::vector<std::pair<double, int64_t>> losses;
  double best = INFINITY;
  TrainObserver observer;
  observer.epoch = [&](const EpochSummary& s) {
    EXPECT_EQ(s.best, s.validation->loss < best);
    best = std::min(best, s.validation->loss);
    losses.emplace_back(s.validation->loss, s.step);
    // At the end of each epoch those of the best so far, no more.
    std::sort(losses.begin(), losses.end());
    std::vector<std::string> expected, found;
    for (size_t i = 0; i < std::min<size_t>(2, losses.size()); ++i)
      expected.push_back("best-" + std::to_string(losses[i].second));
    for (const auto& [name, bytes] : files_of(o.output_dir))
      if (name.starts_with("best-")) found.push_back(name.substr(0, name.rfind('-')));
    EXPECT_THAT(found, testing::UnorderedElementsAreArray(expected));
  };
  Trial().train(data, &validation, o, observer);
  for (const auto& [name, bytes] : files_of(o.output_dir)) {
    if (!name.starts_with("best-")) continue;
    Trial kept;
    load_weights(o.output_dir + "/" + name, *kept.params);
    Evaluator evaluator(kept.graph, *kept.params, validation, {.batch = 16, .preprocessing = made_pictures()});
    EXPECT_NEAR(evaluator.run().loss, std::stod(name.substr(name.rfind('-') + 1)), 1e-4) << name;
  }
}

TEST(Keeping, ResumesToTheSameFiles) {
  const MadeSet data(48), validation(20);
  const TempFolder folder;
  TrainOptions whole = made_options();
  whole.epochs = 5;
  whole.keep = 2;
  whole.best_metric = BestMetric::loss;
  whole.output_dir = folder.path("whole");
  Trial().train(data, &validation, whole);
  EXPECT_EQ(files_of(whole.output_dir).size(), 7U);  // last, best, two kept, two of metrics, times
  for (const int64_t stop : {4, 8}) expect_same_bits_after(stop, whole, folder, data, validation);
}

// Killed behind its last checkpoint, before it came to remove what that makes surplus.
TEST(Keeping, AnEndedTrainingLeavesNothingSurplus) {
  const MadeSet data(48), validation(20);
  const TempFolder folder;
  TrainOptions o = made_options();
  o.keep = 2;
  o.output_dir = folder.path();
  Trial().train(data, &validation, o);
  const auto names = folder.names();
  put_contents(folder.path("best-1-0.5000.safetensors"), "an epoch that is no longer among the best");
  o.resume = folder.path("last.safetensors");
  Trial().train(data, &validation, o);
  EXPECT_EQ(folder.names(), names);
}

// The pictures are learnt in a few epochs: nothing is better than all right.
TEST(EarlyStop, EndsWhenNothingGetsBetterAndStaysThere) {
  const MadeSet data(96), validation(30);
  const TempFolder folder;
  TrainOptions whole = made_options();
  whole.epochs = 40;
  whole.early_stop = 2;
  whole.schedule.kind = ScheduleOptions::Kind::constant;
  whole.output_dir = folder.path("whole");
  std::vector<bool> best;
  TrainObserver observer;
  observer.epoch = [&](const EpochSummary& s) { best.push_back(s.best); };
  const TrainResult all = Trial().train(data, &validation, whole, observer);
  EXPECT_TRUE(all.stopped_early);
  ASSERT_GE(best.size(), 3U);
  ASSERT_LT(best.size(), 40U);
  EXPECT_EQ(std::vector<bool>(best.end() - 3, best.end()), (std::vector<bool>{true, false, false}));
  expect_same_bits_after(all.steps - 3, whole, folder, data, validation, all.steps);
  whole.resume = whole.output_dir + "/last.safetensors";
  EXPECT_EQ(Trial().train(data, &validation, whole).steps, all.steps);
}

TEST(Keeping, NeedsAValidationSetAndOneMetric) {
  const MadeSet data(48), validation(20);
  const TempFolder folder;
  TrainOptions o = made_options();
  o.epochs = 1;
  for (int TrainOptions::*option : {&TrainOptions::keep, &TrainOptions::early_stop}) {
    TrainOptions without = o;
    without.*option = 1;
    EXPECT_THAT(message_of<UsageError>([&] { Trial().train(data, nullptr, without); }),
                HasSubstr("needs a validation set"));
  }
  o.output_dir = folder.path("run");
  Trial().train(data, &validation, o);
  o.resume = o.output_dir + "/last.safetensors";
  o.best_metric = BestMetric::loss;
  EXPECT_THAT(message_of<UsageError>([&] { Trial().train(data, &validation, o); }),
              HasSubstr("chosen by top1, not loss; give --best-metric top1"));
}

TEST(Keeping, WhatAKilledRunWasWritingGoesAway) {
  const MadeSet data(48);
  const TempFolder folder;
  TrainOptions o = made_options();
  o.epochs = 1;
  o.output_dir = folder.path();
  const std::string killed = ".tmp-" + std::to_string(killed_process()) + "-0",
                    alive = ".tmp-" + std::to_string(getppid()) + "-0";
  for (const std::string file : {".config.toml", ".bad.jsonl", ".report.html"})
    put_contents(folder.path(file + killed), "half");
  put_contents(folder.path(".last.safetensors" + alive), "half, of a process that had the number before");
  put_contents(folder.path(".report.html" + alive), "somebody's");
  Trial().train(data, nullptr, o);
  EXPECT_THAT(folder.names(), testing::ElementsAre(".report.html" + alive, "best.safetensors", "last.safetensors",
                                                   "metrics.csv", "metrics.jsonl", "times.jsonl"));
}

TEST(Metrics, TheTableHasARowForEachEpoch) {
  const MadeSet data(48), validation(20);
  const TempFolder folder;
  TrainOptions o = made_options();
  o.output_dir = folder.path("run");
  std::vector<EpochSummary> epochs;
  TrainObserver observer;
  observer.epoch = [&](const EpochSummary& s) { epochs.push_back(s); };
  Trial().train(data, &validation, o, observer);
  const auto rows = rows_of(o.output_dir + "/metrics.csv");
  ASSERT_EQ(rows.size(), 4U);
  EXPECT_EQ(rows[0], "step,epoch,lr,train_loss,train_top1,val_loss,val_top1,val_top5,val_samples,val_skipped,best");
  EXPECT_TRUE(rows[1].starts_with("3,0,0.0")) << rows[1];
  EXPECT_TRUE(rows[1].ends_with(",1,20,0,1")) << rows[1];
  EXPECT_THAT(rows[3], HasSubstr(fmt::format(",{},", epochs[2].validation->loss)));
}

// The tags of the summaries in a folder of event files, with the steps at which they come.
std::map<std::string, std::set<int64_t>> tags_in(const std::string& folder) {
  std::map<std::string, std::set<int64_t>> tags;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    for (const Fields& event : events_of(entry.path()))
      if (event.contains(5))
        for (const Fields& value : values_of(event)) tags[field(value, 1)].insert(number_at<int64_t>(field(event, 2)));
  return tags;
}

TEST(Metrics, TensorboardHasCurvesPicturesAndWeights) {
  const MadeSet data(48), validation(20);
  const TempFolder folder;
  TrainOptions o = made_options();
  o.output_dir = folder.path("run");
  o.tensorboard = true;
  o.epochs = 2;
  Trial().train(data, &validation, o);
  using Steps = std::set<int64_t>;
  const auto tags = tags_in(o.output_dir + "/tensorboard");
  EXPECT_EQ(tags.at("train/loss"), (Steps{2, 3, 4, 6}));
  EXPECT_EQ(tags.at("validation/top1"), (Steps{3, 6}));
  EXPECT_EQ(tags.at("weights/fc.weight"), (Steps{3, 6}));
  EXPECT_EQ(tags.count("weights/bn1.running_mean"), 0U);
  EXPECT_EQ(tags.at("train/pictures"), Steps{1});
  o.resume = o.output_dir + "/last.safetensors";
  o.epochs = 3;
  Trial().train(data, &validation, o);
  EXPECT_EQ(tags_in(o.output_dir + "/tensorboard").at("train/pictures"), (Steps{1, 7}));
}

// The grid is what the network sees: here the bright bars of the pictures, each in its column.
TEST(Metrics, ThePicturesAreThoseOfTheBatch) {
  const MadeSet data(48);
  const TempFolder folder;
  TrainOptions o = made_options();
  o.augment = made_pictures();
  o.output_dir = folder.path("run");
  o.tensorboard = true;
  o.steps = 1;
  Trial().train(data, nullptr, o);
  const auto entry = std::filesystem::directory_iterator(o.output_dir + "/tensorboard");
  std::string png;
  for (const Fields& event : events_of(entry->path()))
    if (event.contains(5))
      for (const Fields& value : values_of(event))
        if (field(value, 1) == "train/pictures") png = field(fields_of(field(value, 4)), 4);
  constexpr int kSide = 4 * MadeSet::kSide;
  std::vector<uint8_t> rgb(kSide * kSide * 3);
  decode({{png.begin(), png.end()}, 0, 0, 0}, {}, rgb, "grid");
  const Permutation order(48, o.seed, 0);
  for (int place = 0; place < 16; ++place) {
    const RawSample sample = data.read(order(place));
    for (int p = 0; p < MadeSet::kSide * MadeSet::kSide; ++p) {
      const int y = place / 4 * MadeSet::kSide + p / MadeSet::kSide,
                x = place % 4 * MadeSet::kSide + p % MadeSet::kSide;
      ASSERT_NEAR(rgb[static_cast<size_t>(y * kSide + x) * 3], sample.bytes[static_cast<size_t>(p)], 1) << place;
    }
  }
}

// A loss that is not finite. One picture has a label that no class has.
class BadSteps : public testing::Test {
protected:
  const MadeSet data{48, {}, {7}}, validation{20};
  const TempFolder folder;
  TrainOptions options(BadStepPolicy policy) const {
    TrainOptions o = made_options();
    o.epochs = 5;
    o.log_every = 1;
    o.optimizer.bad_steps = policy;
    o.output_dir = folder.path("whole");
    return o;
  }
};

TEST_F(BadSteps, StopNamesTheRowAndSavesTheBatch) {
  const TrainOptions o = options(BadStepPolicy::stop);
  const std::string message = message_of<NonFiniteError>([&] { Trial().train(data, &validation, o); });
  EXPECT_THAT(message, HasSubstr("whose label is -1 (the network has 3 classes)"));
  const size_t at = message.find(o.output_dir + "/non_finite-step-");
  ASSERT_NE(at, std::string::npos) << message;
  const std::string saved = message.substr(at, message.find(';', at) - at);
  const json batch = json::parse(contents(saved + "/batch.json"));
  EXPECT_THAT(std::string(batch.at("where")), HasSubstr("whose label is -1"));
  EXPECT_EQ(batch.at("pictures").size(), 16U);
  bool found = false;
  for (const json& picture : batch.at("pictures")) {
    const std::string file = contents(saved + "/" + std::string(picture.at("file")));
    EXPECT_EQ(file.substr(1, 3), "PNG");
    if (picture.at("name") != "made[7]") continue;
    found = true;
    EXPECT_EQ(picture.at("label"), -1);
    EXPECT_THAT(std::string(picture.at("file")), HasSubstr("--1-made[7].png"));
  }
  EXPECT_TRUE(found);
}

// Gradients of f16 that are beyond it at every scale, of pictures a thousand times too bright.
TEST(OverflowAtEveryScale, EndsTheTraining) {
  const MadeSet data(64);
  TrainOptions o = made_options();
  o.dtype = DType::f16;
  o.epochs = 8;
  for (float& std : o.augment.std) std = 1e-5F;
  EXPECT_THAT(message_of<NonFiniteError>([&] { Trial().train(data, nullptr, o); }),
              HasSubstr("the loss or a gradient of step "));
}

TEST_F(BadSteps, SkipGoesOnWithoutThem) {
  const TrainOptions o = options(BadStepPolicy::skip);
  int warnings = 0;
  TrainObserver observer;
  observer.warning = [&](const std::string& text) {
    EXPECT_THAT(text, HasSubstr("skipped 1 step up to step"));
    ++warnings;
  };
  Trial trial;
  EXPECT_GT(trial.train(data, &validation, o, observer).best_top1, 0.6);
  EXPECT_EQ(warnings, 5);
  EXPECT_EQ(lines_of(o.output_dir + "/metrics.jsonl").back().at("epoch"), 4);
  for (const json& line : lines_of(o.output_dir + "/metrics.jsonl"))
    if (line.contains("train_loss")) {
      EXPECT_TRUE(line.at("train_loss").is_number()) << line;
    } else if (line.at("step") == 15) {
      EXPECT_EQ(line.at("bad_steps"), 5);
    }
  for (size_t i = 0; i < trial.params->specs().size(); ++i)
    for (const float v : trial.params->values(static_cast<int>(i))) ASSERT_TRUE(std::isfinite(v));
}

TEST_F(BadSteps, HalvingTheRateResumesToTheSameBits) {
  TrainOptions whole = options(BadStepPolicy::halve_rate);
  whole.schedule.kind = ScheduleOptions::Kind::constant;
  whole.schedule.base = 0.0625;
  Trial().train(data, &validation, whole);
  for (const json& line : lines_of(whole.output_dir + "/metrics.jsonl"))
    if (line.contains("loss")) {
      EXPECT_EQ(line.at("lr"), std::ldexp(0.0625, -line.value("bad_steps", 0))) << line;
    }
  const auto rows = rows_of(whole.output_dir + "/metrics.csv");
  EXPECT_TRUE(rows.back().starts_with("15,4,0.001953125,")) << rows.back();
  for (const int64_t stop : {4, 8}) expect_same_bits_after(stop, whole, folder, data, validation);
}

// A scale that is far too large, 2^23: updates are skipped until it is not, then training goes on.
TEST_F(BadSteps, InF16TheMetricsTellOfOverflows) {
  TrainOptions o = options(BadStepPolicy::skip);
  o.dtype = DType::f16;
  o.epochs = 1;
  const MadeSet good(48);
  Trial().train(good, &validation, o);
  o.resume = o.output_dir + "/last.safetensors";
  std::string checkpoint = contents(o.resume);
  const std::string scale = R"(loss_scale\":65536.0)";
  const size_t at = checkpoint.find(scale);
  ASSERT_NE(at, std::string::npos);
  checkpoint.replace(at, scale.size(), R"(loss_scale\":8388608)");
  std::ofstream(o.resume, std::ios::binary) << checkpoint;
  o.epochs = 5;
  Trial trial;
  EXPECT_GT(trial.train(good, &validation, o).best_top1, 0.6);
  int64_t before = 0;
  for (const json& line : lines_of(o.output_dir + "/metrics.jsonl")) {
    if (!line.contains("loss")) continue;
    const int64_t overflows = line.at("overflows"), step = line.at("step");
    EXPECT_EQ(line.at("loss_scale"), step <= 3 ? 65536 : std::ldexp(8388608, -static_cast<int>(overflows))) << line;
    EXPECT_EQ(overflows > before, step > 3 && overflows > 0 && step == 3 + overflows) << line;
    EXPECT_FALSE(line.contains("bad_steps")) << line;
    before = overflows;
  }
  EXPECT_GT(before, 0);
  EXPECT_LT(before, 12);
}

TEST_F(BadSteps, TenInARowAreTooMany) {
  TrainOptions o = options(BadStepPolicy::skip);
  o.schedule.base = 1e30;
  o.epochs = 20;
  EXPECT_THAT(message_of<NonFiniteError>([&] { Trial().train(MadeSet(48), &validation, o); }),
              HasSubstr("steps before it, is not finite, first seen in layer '"));
}

// The same where micro-batches accumulate: the update is skipped, not the batch alone.
TEST_F(BadSteps, AnUpdateOfSeveralBatchesIsSkippedWhole) {
  TrainOptions o = options(BadStepPolicy::skip);
  o.batch = 8;
  o.accumulate = 2;
  o.optimizer.ema_decay = 0.5;
  Trial().train(data, &validation, o);
  const auto lines = lines_of(o.output_dir + "/metrics.jsonl");
  EXPECT_EQ(lines[lines.size() - 2].at("bad_steps"), 5);
  expect_same_bits_after(5, o, folder, data, validation);
}

TEST(BadPictures, SkipCountsThemForNothingAndFailNamesOne) {
  const MadeSet data(48, {3, 40}), validation(20);
  const TempFolder folder;
  TrainOptions o = made_options();
  o.bad_samples = BadSamplePolicy::skip;
  o.output_dir = folder.path("whole");
  o.epochs = 5;
  const TrainResult r = Trial().train(data, &validation, o);
  EXPECT_EQ(r.bad_samples.size(), 2U);
  const auto list = [&](const std::string& run) {
    std::vector<std::string> lines = rows_of(folder.path(run) + "/bad.jsonl");
    std::sort(lines.begin(), lines.end());
    return lines;
  };
  EXPECT_THAT(list("whole"), testing::ElementsAre(R"({"name":"made[3]","reason":"broken on purpose"})",
                                                  R"({"name":"made[40]","reason":"broken on purpose"})"));
  expect_same_bits_after(5, o, folder, data, validation);
  o.max_bad = 1.0 / 48;
  o.output_dir = folder.path("too many");
  EXPECT_THAT(message_of<DataError>([&] { Trial().train(data, &validation, o); }), HasSubstr("2 of 48 pictures"));
  EXPECT_EQ(list("too many").size(), 2U);
  o.max_bad = 1;
  o.bad_samples = BadSamplePolicy::fail;
  EXPECT_THAT(message_of<DataError>([&] { Trial().train(data, &validation, o); }),
              testing::MatchesRegex("made.(3|40).: broken on purpose; --bad-images skip goes on without it"));
  EXPECT_THAT(message_of<DataError>([&] { Trial().train(MadeSet(48), &data, o); }), HasSubstr("broken on purpose"))
      << "in validation too";
}

TEST(BadPictures, AValidationOfNothingIsAnError) {
  const MadeSet data(48), validation(3, {0, 1, 2});
  EXPECT_THAT(message_of<DataError>([&] { Trial().train(data, &validation, made_options()); }),
              HasSubstr("broken on purpose, and none of the 2 other pictures for validation can be read either"));
}

}  // namespace
}  // namespace convolt::test
