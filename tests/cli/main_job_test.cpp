// The main job as a user types it, on drawn pictures and, where the data is at hand, on real ones.
#include <gmock/gmock.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli/main_job.h"
#include "core/philox.h"
#include "io/safetensors.h"

namespace convolt::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

// Of the class folders alone; the same pictures for training, evaluation and report, and half of the others to train
// on.
TEST_F(MainJob, APartIsKeptForValidation) {
  const std::string data = "--data-path '" + at("shapes/train") + "' --val-split 0.25 --val-split-seed 3 ";
  const Outcome t = convolt("train " + data + "--model resnet20 -b 6 --epochs 1 --fraction 0.5 --json --output-dir '" +
                            at("parts") + "'");
  ASSERT_EQ(t.code, 0) << t.error;
  EXPECT_THAT(t.error, HasSubstr("18 pictures for training, 12 for validation, 3 classes"));
  EXPECT_EQ(json::parse(t.out).at("steps"), 3);
  const Outcome e = convolt("eval --checkpoint '" + at("parts/best.safetensors") + "' " + data + "--json -b 4");
  ASSERT_EQ(e.code, 0) << e.error;
  EXPECT_EQ(json::parse(e.out).at("samples"), 12);
  EXPECT_NEAR(json::parse(e.out).at("top1"), json::parse(t.out).at("best_top1"), 1e-9);
  const Outcome r = convolt("report '" + at("parts") + "'");
  ASSERT_EQ(r.code, 0) << r.error;
  EXPECT_THAT(text_of(at("parts/report.html")),
              HasSubstr("the 25 % of the training pictures that --val-split kept aside of " + at("shapes/train")));
  const Outcome limited =
      convolt("eval --checkpoint '" + at("parts/best.safetensors") + "' " + data + "--json --limit 5");
  EXPECT_EQ(json::parse(limited.out).at("samples"), 5);
}

TEST_F(MainJob, TrainEvalPredict) {
  const Outcome t = convolt(train("run") + "--epochs 2 --json");
  ASSERT_EQ(t.code, 0) << t.error;
  EXPECT_EQ(json::parse(t.out).at("steps"), 12);
  EXPECT_THAT(t.error, HasSubstr("epoch 2"));

  const Outcome e =
      convolt("eval --checkpoint '" + at("run/best.safetensors") + "' --data-path '" + at("shapes") + "' --json -b 4");
  ASSERT_EQ(e.code, 0) << e.error;
  const json result = json::parse(e.out);
  EXPECT_EQ(result.at("samples"), 15);
  EXPECT_EQ(result.at("skipped"), 0);
  EXPECT_NEAR(result.at("top1"), json::parse(t.out).at("best_top1"), 1e-9);
  for (const char* key : {"correct", "top5", "loss", "seconds"}) EXPECT_TRUE(result.contains(key)) << key;

  std::filesystem::create_directory(at("odd"));
  std::filesystem::copy(at("shapes/val/arrow/000.jpg"), at("odd/a"));  // by content, not by name
  std::ofstream(at("odd/b.jpg")) << "no picture";
  const Outcome p =
      convolt("predict --checkpoint '" + at("run/best.safetensors") + "' '" + at("odd") + "' --json --topk 2");
  EXPECT_EQ(p.code, 3);
  std::istringstream lines(p.out);
  std::string line;
  ASSERT_TRUE(std::getline(lines, line));
  const json first = json::parse(line);
  EXPECT_EQ(first.at("path"), at("odd/a"));
  ASSERT_EQ(first.at("top").size(), 2U);
  EXPECT_GE(first["top"][0]["probability"], first["top"][1]["probability"]);
  std::vector<std::string> classes;
  for (const auto& entry : std::filesystem::directory_iterator(at("shapes/train")))
    classes.push_back(entry.path().filename());
  std::sort(classes.begin(), classes.end());
  EXPECT_EQ(first["top"][0]["label"], classes.at(first["top"][0]["index"]));
  ASSERT_TRUE(std::getline(lines, line));
  EXPECT_THAT(std::string(json::parse(line).at("error")), HasSubstr("not a picture"));
}

// How pictures are decoded and viewed is the training's, unless a flag says otherwise.
TEST_F(MainJob, IsEvaluatedAsItWasValidated) {
  ASSERT_EQ(convolt(train("seen") + "--epochs 1 --lr 0.01 --quiet --max-side 16 --views 2").code, 0);
  std::istringstream lines(text_of(at("seen/metrics.jsonl")));
  json epoch;
  for (std::string line; std::getline(lines, line);) epoch = json::parse(line);
  const std::string checkpoint = "--checkpoint '" + at("seen/best.safetensors") + "' ";
  const std::string eval = "eval " + checkpoint + "--data-path '" + at("shapes") + "' --json -b 4 ";
  EXPECT_NEAR(json::parse(convolt(eval).out).at("loss"), epoch.at("val_loss"), 1e-5);
  EXPECT_GT(std::abs(json::parse(convolt(eval + "--views 1").out).at("loss").get<double>() -
                     epoch.at("val_loss").get<double>()),
            1e-4);
  EXPECT_GT(std::abs(json::parse(convolt(eval + "--max-side 0").out).at("loss").get<double>() -
                     epoch.at("val_loss").get<double>()),
            1e-4);
  const std::string predict = "predict " + checkpoint + "'" + at("shapes/val") + "' --json ";
  const Outcome as_trained = convolt(predict), otherwise = convolt(predict + "--views 1 --max-side 0");
  EXPECT_EQ(as_trained.out, convolt(predict + "--views 2 --max-side 16 -j 0").out);
  EXPECT_NE(as_trained.out, otherwise.out);
}

// The validation set may lie elsewhere, and a file of flags names the network beside the checkpoint.
TEST_F(MainJob, TheSavedConfigurationServesItsCheckpoint) {
  std::filesystem::rename(at("shapes/val"), at("val"));
  const Outcome t = convolt(train("apart") + "--epochs 1 --json --quiet --val-data-path '" + at("val") + "'");
  const std::string flags =
      " --checkpoint '" + at("apart/best.safetensors") + "' --config '" + at("apart/config.toml") + "' --json";
  const Outcome e = convolt("eval" + flags), p = convolt("predict '" + at("val") + "'" + flags);
  const Outcome r = convolt("report '" + at("apart") + "'");
  std::filesystem::rename(at("val"), at("shapes/val"));
  ASSERT_EQ(e.code, 0) << e.error;
  EXPECT_EQ(json::parse(e.out).at("samples"), 15);
  EXPECT_NEAR(json::parse(e.out).at("top1"), json::parse(t.out).at("best_top1"), 1e-9);
  EXPECT_EQ(p.code, 0) << p.error;
  EXPECT_EQ(r.code, 0) << r.error;
  EXPECT_THAT(text_of(at("apart/report.html")), HasSubstr("the validation pictures of " + at("val")));
}

TEST_F(MainJob, LossesAndATeacher) {
  ASSERT_EQ(convolt(train("teacher") + "--steps 2 --quiet --class-weights balanced --label-smoothing 0.1").code, 0);
  std::ofstream(at("weights.txt")) << "1 2\n0.5";
  const std::string all[] = {
      "--loss bce", "--loss focal --focal-gamma 1 --class-weights '" + at("weights.txt") + "'",
      "--distill-alpha 0.7 --distill-temperature 2 --teacher '" + at("teacher/best.safetensors") + "'"};
  for (const std::string& flags : all) {
    const Outcome t = convolt(train("losses") + "--steps 2 --overwrite --quiet " + flags);
    EXPECT_EQ(t.code, 0) << flags << ": " << t.error;
    EXPECT_EQ(t.error, "") << flags;
  }
}

// Killed again and again, wherever it is: in a step, in a validation, in the middle of writing. With all that a
// training carries along: augmentation, average, accumulation, a schedule with memory, checkpoints within the epoch.
TEST_F(MainJob, KilledAtAnyPointItGoesOnToTheSameBytes) {
  const std::vector<std::string> flags{"--data-path",
                                       at("shapes"),
                                       "--model",
                                       "resnet20",
                                       "-b",
                                       "8",
                                       "--seed",
                                       "5",
                                       "--rotate",
                                       "20",
                                       "--epochs",
                                       "4",
                                       "--ema-decay",
                                       "0.9",
                                       "--accum",
                                       "2",
                                       "--color-jitter",
                                       "0.2",
                                       "--sched",
                                       "plateau",
                                       "--plateau-patience",
                                       "0",
                                       "--checkpoint-every",
                                       "1",
                                       "--keep",
                                       "2",
                                       "--best-metric",
                                       "loss",
                                       "--log-every",
                                       "1",
                                       "--quiet",
                                       "--resume",
                                       "auto"};
  const auto run = [&](const std::string& name) {
    std::vector<std::string> words{"train", "--output-dir", at(name)};
    words.insert(words.end(), flags.begin(), flags.end());
    return start(words);
  };
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_EQ(wait_for(run("whole")), 0);
  const auto whole = std::chrono::steady_clock::now() - begin;
  int kills = 0;
  bool ended = false;
  for (uint64_t attempt = 0; attempt < 6 && !ended; ++attempt) {
    const pid_t child = run("killed");
    const double part = 0.1 + 0.4 * philox(5, attempt, 0).v[0] / 0x1p32;
    std::this_thread::sleep_for(part * whole);
    kill(child, SIGKILL);
    ended = wait_for(child) == 0;
    kills += ended ? 0 : 1;
  }
  EXPECT_GE(kills, 1);
  ASSERT_EQ(wait_for(run("killed")), 0);
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(at("whole"))) names.push_back(entry.path().filename());
  EXPECT_EQ(names.size(), 8U);  // last, best, two kept, two of metrics, times, the configuration
  for (const std::string& name : names)
    EXPECT_TRUE(name == "times.jsonl" || text_of(at("killed/" + name)) == text_of(at("whole/" + name))) << name;
  for (const auto& entry : std::filesystem::directory_iterator(at("killed")))
    EXPECT_THAT(names, testing::Contains(entry.path().filename().string()));
}

TEST_F(MainJob, TheSavedConfigurationRepeatsTheTraining) {
  const Outcome first = convolt(train("first") +
                                "--steps 4 --opt adamw --lr 0.01 --param-group '^linear:lr=2,wd=0' --freeze '^conv1' "
                                "--zoom 0.9,1.1 --color-jitter 0.1,0.2 --interpolation bicubic --quiet");
  ASSERT_EQ(first.code, 0) << first.error;
  const Outcome again =
      convolt("train --config '" + at("first/config.toml") + "' --output-dir '" + at("again") + "' -q");
  ASSERT_EQ(again.code, 0) << again.error;
  for (const char* file : {"/last.safetensors", "/best.safetensors", "/metrics.jsonl", "/config.toml"})
    EXPECT_EQ(text_of(at(std::string("again") + file)), text_of(at(std::string("first") + file))) << file;
  EXPECT_THAT(text_of(at("first/config.toml")), HasSubstr("\nzoom = [0.9, 1.1]\n"));

  // The command line wins, under any of a flag's names; the flags of other commands are passed over.
  std::ofstream(at("own.toml")) << "model = 'resnet20'\nbatch_size = 8\nsteps = 3\nnesterov = true\ntopk = 2\n"
                                << "data-path = '" << at("shapes") << "'\nlr = 0.5\n";
  const Outcome own =
      convolt("train --config='" + at("own.toml") + "' -b4 --lr=0.01 --output-dir '" + at("own") + "' -q");
  ASSERT_EQ(own.code, 0) << own.error;
  const std::string resolved = text_of(at("own/config.toml"));
  for (const char* line : {"\nbatch-size = 4\n", "\nlr = 0.01\n", "\nsteps = 3\n", "\nnesterov = true\n"})
    EXPECT_THAT(resolved, HasSubstr(line));
}

TEST_F(MainJob, OptimizerFlagsReachTheRunAndItsCheckpoint) {
  const std::string flags =
      "--epochs 2 --opt adamw --betas 0.8,0.95 --eps 1e-6 --wd 0.0625 --norm-weight-decay 0 --layer-decay 0.5 "
      "--param-group '^linear:lr=2,wd=0' --freeze '^conv1' --clip-grad 0.5 --accum 2 --ema-decay 0.75 --lr 0.01 "
      "--sched polynomial --lr-power 2 --lr-warmup-epochs 0.5 --lr-cooldown-epochs 0.5 --log-every 1 --json --quiet ";
  const Outcome o = convolt(train("adamw") + flags);
  ASSERT_EQ(o.code, 0) << o.error;
  EXPECT_EQ(json::parse(o.out).at("steps"), 6);  // 48 pictures in batches of 8, two in an update, twice
  const SafeTensors file = SafeTensors::read(at("adamw/last.safetensors"));
  const json c = json::parse(file.metadata().at("convolt.configuration"));
  const json expected{{"opt", "adamw"},
                      {"betas", {0.8, 0.95}},
                      {"eps", 1e-6},
                      {"wd", 0.0625},
                      {"norm_weight_decay", 0},
                      {"layer_decay", 0.5},
                      {"param_group", {"^linear:lr=2,wd=0"}},
                      {"freeze", {"^conv1"}},
                      {"clip_grad", 0.5},
                      {"accum", 2},
                      {"ema_decay", 0.75},
                      {"lr", 0.01},
                      {"lr_scheduler", "polynomial"},
                      {"lr_power", 2},
                      {"lr_warmup_epochs", 0.5},
                      {"lr_cooldown_epochs", 0.5}};
  for (const auto& [key, value] : expected.items()) EXPECT_EQ(c.at(key), value) << key;
  for (const char* name : {"optim.exp_avg.linear.weight", "optim.exp_avg_sq.bn1.bias", "ema.linear.weight",
                           "ema.conv1.weight", "ema.bn1.running_mean"})
    EXPECT_NE(file.find(name), nullptr) << name;
  EXPECT_EQ(file.find("optim.exp_avg.conv1.weight"), nullptr);
  EXPECT_THAT(text_of(at("adamw/metrics.jsonl")), HasSubstr("\"gradient_norm\":"));
  // What it saved can be read by the other commands, and gone on from.
  EXPECT_EQ(convolt("eval --checkpoint '" + at("adamw/best.safetensors") + "' --data-path '" + at("shapes") + "'").code,
            0);
  EXPECT_EQ(convolt("eval --checkpoint '" + at("adamw/last.safetensors") + "' --data-path '" + at("shapes") + "'").code,
            0);
  EXPECT_EQ(convolt(train("adamw") + flags + "--resume auto").code, 0);
  const Outcome other = convolt(train("adamw") + "--epochs 2 --quiet --resume auto");
  EXPECT_EQ(other.code, 3);
  EXPECT_THAT(other.error, HasSubstr("trained with adamw, not sgd; give --opt adamw"));
}

TEST_F(MainJob, EveryOptimizerAndScheduleTrains) {
  for (const char* opt : {"sgd --nesterov", "adam", "rmsprop --momentum 0 --alpha 0.9", "lars --trust-coefficient 0.02",
                          "lion", "lamb --eps 1e-5 --drop-path 0.2", "sgd --agc 0.02 --momentum 0",
                          "muon --muon-momentum 0.6 --muon-iterations 2 --muon-renormalize"})
    EXPECT_EQ(convolt(train("any") + "--overwrite --steps 2 --quiet --lr 0.001 --opt " + opt).code, 0) << opt;
  for (const char* schedule :
       {"constant", "step --lr-step-size 1", "multistep --lr-milestones 0.5,1", "cosine-restarts", "one-cycle",
        "exponential", "plateau --plateau-patience 0 --plateau-metric top1"})
    EXPECT_EQ(convolt(train("any") + "--overwrite --steps 2 --quiet --sched " + schedule).code, 0) << schedule;
}

TEST_F(MainJob, SignalsSaveAndSayWhich) {
  for (const auto& [signal, code] : {std::pair{SIGINT, 130}, std::pair{SIGTERM, 75}, std::pair{SIGHUP, 130}}) {
    const std::string run = "signal" + std::to_string(signal);
    const pid_t child = start({"train", "--data-path", at("shapes"), "--model", "resnet20", "-b", "8", "--epochs",
                               "100000", "--output-dir", at(run), "--checkpoint-every", "1", "--quiet"});
    // The first checkpoint shows that the training is under way.
    for (int i = 0; i < 600 && !std::filesystem::exists(at(run + "/last.safetensors")); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    kill(child, signal);
    EXPECT_EQ(wait_for(child), code);
    EXPECT_NO_THROW(SafeTensors::read(at(run + "/last.safetensors")));
  }
}

TEST_F(MainJob, OtherTypesOfNumber) {
  for (const char* dtype : {"bf16", "f16"}) {
    const Outcome o = convolt(train(dtype) + "--epochs 1 --quiet --json --dtype " + dtype);
    EXPECT_EQ(o.code, 0) << o.error;
    EXPECT_EQ(json::parse(o.out).at("steps"), 6);
  }
}

TEST(Inspect, PrintsPlansAndModels) {
  EXPECT_THAT(convolt("inspect --list").out, HasSubstr("resnet152"));
  EXPECT_THAT(convolt("inspect --model resnet20 --training -b 2").out, HasSubstr("bn_backward_reduce"));
  const json plan = json::parse(convolt("inspect --model lenet --json --channels 1 --num-classes 10").out);
  EXPECT_GT(plan.at("ops").size(), 5U);
}

TEST(Models, AreListedWithTheirCost) {
  const json list = json::parse(convolt("models --json").out);
  const auto model = std::find_if(list.begin(), list.end(), [](const json& m) { return m["model"] == "resnet50"; });
  ASSERT_NE(model, list.end());
  EXPECT_EQ(model->at("parameters"), 25557032);
  EXPECT_EQ(model->at("multiply_adds"), 4089184256);
  EXPECT_EQ(convolt("models").out, convolt("inspect --list").out);
}

// A network described in a file trains; its checkpoint needs the file no longer.
TEST_F(MainJob, ANetworkFile) {
  const std::string file = at("net.json"), run = at("file_run");
  ASSERT_EQ(convolt("inspect --model resnet20 --export-json '" + file + "'").code, 0);
  const json named = json::parse(convolt("inspect --model resnet20 -b 2 --json").out);
  json from_file = json::parse(convolt("inspect --model '" + file + "' -b 2 --json").out);
  EXPECT_EQ(from_file["model"], file);
  from_file["model"] = "resnet20";
  EXPECT_EQ(from_file, named);
  const std::string data = "--data-path '" + at("shapes") + "' ";
  const Outcome t =
      convolt("train " + data + "--model '" + file + "' -b 8 --epochs 1 -q --json --output-dir '" + run + "'");
  ASSERT_EQ(t.code, 0) << t.error;
  // The file's folder leaves no trace: config.toml, which has all of its path, repeats the run to the same bits.
  const Outcome again = convolt("train --config '" + run + "/config.toml' -q --output-dir '" + at("file_again") + "'");
  EXPECT_EQ(again.code, 0) << again.error;
  const std::string back = std::filesystem::current_path();
  std::filesystem::current_path(at(""));
  const Outcome near = convolt("train " + data + "--model net.json -b 8 --epochs 1 -q --output-dir file_near");
  std::filesystem::current_path(back);
  EXPECT_EQ(near.code, 0) << near.error;
  for (const char* other : {"file_again", "file_near"})
    EXPECT_EQ(text_of(at(other) + "/best.safetensors"), text_of(run + "/best.safetensors")) << other;
  std::filesystem::remove(file);
  const Outcome e = convolt("eval " + data + "--json --checkpoint '" + run + "/best.safetensors'");
  ASSERT_EQ(e.code, 0) << e.error;
  EXPECT_NEAR(json::parse(e.out).at("top1"), json::parse(t.out).at("best_top1"), 1e-9);
}

// Weights of three classes start a network of five: all but the head.
TEST_F(MainJob, FineTunes) {
  const std::string first = at("pretrained"), weights = "'" + first + "/best.safetensors' ";
  ASSERT_EQ(convolt(train("pretrained") + "--epochs 1 -q").code, 0);
  const std::string five =
      "train --data-path '" + at("shapes") + "' --model resnet20 --num-classes 5 -b 8 --steps 1 -q ";
  const Outcome strict = convolt(five + "--weights " + weights);
  EXPECT_EQ(strict.code, 3);
  EXPECT_THAT(strict.error, HasSubstr("of another shape linear.weight [3, 64] for [5, 64], linear.bias [3] for [5]"));
  const Outcome tuned = convolt(five + "--finetune " + weights);
  EXPECT_EQ(tuned.code, 0) << tuned.error;
  EXPECT_THAT(tuned.error, HasSubstr("for another number of classes: linear.weight, linear.bias"));
  const std::string other = "train --data-path '" + at("shapes") + "' --model resnet32 -b 8 --steps 1 -q --weights ";
  EXPECT_EQ(convolt(other + weights).code, 3);
  const Outcome loose = convolt(other + weights + "--no-strict");
  EXPECT_EQ(loose.code, 0) << loose.error;
  EXPECT_THAT(loose.error, HasSubstr("not in the file, left at their initial values: layer1.3.conv1.weight"));
}

// The example in the README is the one that is built and run.
TEST(Readme, ShowsTheExampleThatIsTested) {
  std::istringstream example(text_of(CONVOLT_SOURCE_DIR "/tests/embed/main.cpp"));
  std::string indented;
  for (std::string line; std::getline(example, line);) indented += line.empty() ? "\n" : "    " + line + "\n";
  EXPECT_THAT(text_of(CONVOLT_SOURCE_DIR "/README.md"), HasSubstr(indented));
}

}  // namespace
}  // namespace convolt::test
