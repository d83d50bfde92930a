// What may happen to a training from outside: the disk is full, the folder cannot be written, the data goes away. It
// ends with one sentence, and the last checkpoint is whole.
#include <gmock/gmock.h>

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <fstream>
#include <future>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>
#include <tuple>
#include <vector>

#include "cli/program.h"
#include "io/safetensors.h"

namespace convolt::test {
namespace {

using testing::HasSubstr;

class Failures : public testing::Test {
protected:
  void SetUp() override {
    ASSERT_EQ(convolt("synth '" + at("shapes") +
                      "' --classes 2 --train-per-class 8 --val-per-class 4 --min-side 32 --max-side 48")
                  .code,
              0);
  }
  std::string at(const std::string& name) const { return folder_.path(name); }
  std::string train(const std::string& run) const {
    return "train --data-path '" + at("shapes") + "' --model resnet20 -b 8 --quiet --output-dir '" + run + "' ";
  }
  // With redirections of its own.
  static int code_of(const std::string& arguments) {
    return code_of_status(std::system(("'" CONVOLT_PROGRAM "' " + arguments).c_str()));
  }
  static void expect_one_sentence(const Outcome& o, const std::string& says) {
    EXPECT_THAT(o.error, HasSubstr(says));
    EXPECT_TRUE(o.error.starts_with("convolt: ")) << o.error;
    EXPECT_EQ(std::count(o.error.begin(), o.error.end(), '\n'), 1) << o.error;
  }

  const TempFolder folder_;
};

TEST_F(Failures, ALossThatIsNotFiniteLeavesItsPictures) {
  const Outcome o = convolt(train(at("run")) + "--epochs 2 --lr 1e30");
  EXPECT_EQ(o.code, 1);
  expect_one_sentence(o, "the loss of step 1 is not finite, first seen in layer '");
  const std::string saved = at("run/non_finite-step-1/");
  EXPECT_THAT(o.error, HasSubstr("its pictures are in " + at("run/non_finite-step-1") + ";"));
  const auto batch = nlohmann::json::parse(text_of(saved + "batch.json"));
  ASSERT_EQ(batch.at("pictures").size(), 8U);
  for (const auto& picture : batch.at("pictures"))
    EXPECT_TRUE(text_of(saved + std::string(picture.at("file"))) == text_of(picture.at("name"))) << picture;
}

// Nobody reads what it says: a terminal that was closed, a log on a full disk.
TEST_F(Failures, WhatCannotBeSaidEndsNothing) {
  const std::string train = "train --data-path '" + at("shapes") + "' --model resnet20 -b 8 --epochs 2 --output-dir '";
  EXPECT_EQ(code_of(train + at("full") + "' >/dev/null 2>/dev/full"), 0);
  EXPECT_EQ(code_of(train + at("closed") + "' >/dev/null 2>&-"), 0);
  EXPECT_EQ(text_of(at("full/metrics.jsonl")), text_of(at("closed/metrics.jsonl")));
  EXPECT_EQ(code_of("predict --checkpoint '" + at("full/best.safetensors") + "' none.jpg 2>/dev/full"), 3);
}

// convolt train ... | head -1
TEST_F(Failures, AReaderThatEndsEndsNoTraining) {
  const std::string train = "{ '" CONVOLT_PROGRAM "' train --data-path '" + at("shapes") +
                            "' --model resnet20 -b 8 --epochs 2 --output-dir '";
  const auto code_of = [&](const std::string& command) {  // of the program, before the pipe
    EXPECT_EQ(std::system(command.c_str()), 0);
    return text_of(at("code"));
  };
  EXPECT_EQ(code_of(train + at("progress") + "' 2>&1 >/dev/null; echo $? >'" + at("code") + "'; } | true"), "0\n");
  EXPECT_EQ(code_of(train + at("both") + "' 2>&1; echo $? >'" + at("code") + "'; } | true"), "1\n");
  for (const char* run : {"progress", "both"}) EXPECT_THAT(text_of(at(run) + "/metrics.csv"), HasSubstr("\n4,")) << run;
  // Who asks for the first lines wants to hear no more.
  code_of("{ sleep 0.2; '" CONVOLT_PROGRAM "' models 2>'" + at("error") + "'; echo $? >'" + at("code") + "'; } | true");
  EXPECT_EQ(text_of(at("code")), "1\n");
  EXPECT_EQ(text_of(at("error")), "");
}

TEST_F(Failures, AFileThatMayNotGrowIsAFullDisk) {
  const std::string limited = "ulimit -f 300; '" CONVOLT_PROGRAM "' ", error = " 2>'" + at("error") + "'";
  EXPECT_EQ(code_of_status(std::system((limited + train(at("run")) + "--epochs 1" + error).c_str())), 1);
  expect_one_sentence({1, "", text_of(at("error"))}, "best.safetensors: File too large");
  for (const auto& entry : std::filesystem::directory_iterator(at("run")))
    EXPECT_THAT(entry.path().filename(), testing::Not(HasSubstr(".tmp")));
  const std::string pack = "pack --raw --data-path '" + at("shapes") + "' --out '" + at("set.cvt") + "'";
  EXPECT_EQ(code_of_status(std::system(("ulimit -f 100; '" CONVOLT_PROGRAM "' " + pack + error).c_str())), 1);
  expect_one_sentence({1, "", text_of(at("error"))}, "set.cvt: File too large; what is done stays in");
}

TEST_F(Failures, ResultsThatCannotBeWrittenAreAFailure) {
  ASSERT_EQ(convolt(train(at("run")) + "--steps 1").code, 0);
  const std::string network = "--checkpoint '" + at("run/best.safetensors") + "' ",
                    data = "--data-path '" + at("shapes") + "' ";
  for (const std::string& command :
       std::vector<std::string>{"predict --json " + network + "'" + at("shapes/val") + "'",
                                "predict " + network + "'" + at("shapes/val") + "'", "eval --json " + network + data,
                                "eval " + network + data, "verify " + data, "verify --json " + data,
                                "train --dry-run --model resnet20 " + data, "models", "train --help"}) {
    EXPECT_EQ(code_of(command + " >/dev/full 2>'" + at("error") + "'"), 1) << command;
    EXPECT_THAT(text_of(at("error")), HasSubstr("convolt: standard output cannot be written")) << command;
  }
  EXPECT_EQ(code_of("models >&- 2>/dev/null"), 1);
}

TEST_F(Failures, ANetworkWithoutFiniteOutputsPredictsNothing) {
  const Outcome trained =
      convolt("train --data-path '" + at("shapes") +
              "' --model resnet20 -b 16 --epochs 1 --lr 1e25 --wd 0 --output-dir '" + at("run") + "'");
  ASSERT_EQ(trained.code, 0) << trained.error;
  EXPECT_THAT(trained.error, HasSubstr("warning: the loss of the validation after step 1 is not finite"));
  const Outcome o = convolt("predict --checkpoint '" + at("run/best.safetensors") + "' '" + at("shapes/val") + "'");
  EXPECT_EQ(o.code, 3);
  EXPECT_EQ(o.out, "");
  EXPECT_THAT(o.error, HasSubstr("the network's outputs for it are not finite"));
}

// Class names may hold any bytes: here Latin-1.
TEST_F(Failures, NamesThatAreNoUtf8CostNobodyAResult) {
  namespace fs = std::filesystem;
  const std::string data = at("caf\xe9");
  fs::copy(at("shapes"), data, fs::copy_options::recursive);
  const fs::path first = fs::directory_iterator(data + "/train")->path().filename();
  for (const char* part : {"/train/", "/val/"}) fs::rename(data + part + first.string(), data + part + "caf\xe9");
  const std::string given = "--data-path '" + data + "' ";
  const Outcome trained =
      convolt("train " + given + "--model resnet20 -b 8 --epochs 1 --json --output-dir '" + at("named") + "'");
  ASSERT_EQ(trained.code, 0) << trained.error;
  const std::string network = "--checkpoint '" + at("named/best.safetensors") + "' ";
  for (const std::string& command :
       {"eval " + network + given, "eval --json " + network + given, "predict --json " + network + "'" + data + "/val'",
        "report '" + at("named") + "'", "verify --json " + given}) {
    const Outcome o = convolt(command);
    EXPECT_EQ(o.code, 0) << command << ": " << o.error;
    EXPECT_THAT(o.error, testing::Not(HasSubstr("warning: class"))) << command;
  }
}

TEST_F(Failures, FlagsThatDoNothingAreTold) {
  const Outcome o = convolt("train --data-path '" + at("shapes") +
                            "' --model resnet20 --dry-run --mixup-prob 0.5 --sampler weighted");
  EXPECT_EQ(o.code, 0);
  EXPECT_THAT(o.error, HasSubstr("--mixup-prob changes nothing: give --mixup or --cutmix too"));
  EXPECT_THAT(o.error, HasSubstr("every picture has the same weight"));
}

TEST_F(Failures, AMistakeLeavesNoFolderBehind) {
  const std::string train =
      "train --data-path '" + at("shapes") + "' --model resnet20 --steps 1 --quiet --output-dir '" + at("run") + "' ";
  EXPECT_EQ(convolt(train + "-b 800").code, 3);
  EXPECT_EQ(convolt(train + "-b 8 --freeze nosuch").code, 2);
  EXPECT_EQ(convolt(train + "-b 8").code, 0);
}

TEST_F(Failures, StartingAnewLeavesNothingOfTheOldRun) {
  ASSERT_EQ(convolt(train(at("run")) + "--epochs 3 --keep 2 --tensorboard --bad-images skip").code, 0);
  std::ofstream(at("run/bad.jsonl")) << "{}\n";
  std::ofstream(at("run/notes.txt")) << "mine\n";
  ASSERT_EQ(convolt(train(at("run")) + "--epochs 1 --overwrite").code, 0);
  std::set<std::string> left;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(at("run")))
    if (entry.is_regular_file()) left.insert(entry.path().filename());
  EXPECT_EQ(left, (std::set<std::string>{"best.safetensors", "config.toml", "last.safetensors", "metrics.csv",
                                         "metrics.jsonl", "notes.txt", "times.jsonl"}));
  EXPECT_EQ(convolt(train(at("run")) + "--overwrite --resume auto").code, 2);
}

// A training that is stopped between its look at the folder and its beginning: nobody reads what it says.
TEST_F(Failures, AnotherTrainingThatCameAndWentKeepsItsFiles) {
  for (const auto& [flag, code, says] : {std::tuple{"", 2, "' is not empty; give --resume auto to go on, --overwrite"},
                                         {"--resume=auto", 1, "another training has begun there meanwhile"}}) {
    const std::string run = at(std::string("run") + flag);
    std::array<int, 2> ends{};
    ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK), 0);
    fcntl(ends[1], F_SETPIPE_SZ, 4096);
    while (write(ends[1], "\n", 1) == 1) continue;
    ASSERT_EQ(fcntl(ends[1], F_SETFL, 0), 0);
    ASSERT_EQ(fcntl(ends[0], F_SETFL, 0), 0);
    std::vector<std::string> arguments{"train", "--data-path", at("shapes"), "--model",      "resnet20", "-b",
                                       "8",     "--epochs",    "1",          "--output-dir", run};
    if (*flag != '\0') arguments.emplace_back(flag);
    const pid_t second = start_with_stderr(ends[1], arguments);
    close(ends[1]);
    std::this_thread::sleep_for(std::chrono::seconds(1));
    ASSERT_EQ(convolt(train(run) + "--epochs 2").code, 0);
    const std::string last = text_of(run + "/last.safetensors");
    std::string said;
    std::array<char, 4096> piece{};
    for (ssize_t n = 0; (n = read(ends[0], piece.data(), piece.size())) > 0;)
      said.append(piece.data(), static_cast<size_t>(n));
    close(ends[0]);
    EXPECT_EQ(wait_for(second), code);
    EXPECT_THAT(said.substr(said.find_first_not_of('\n')), HasSubstr(says));
    EXPECT_TRUE(text_of(run + "/last.safetensors") == last);
  }
}

// Large pictures, so that there is time for the signal.
TEST_F(Failures, ASignalBeforeTheFirstStepEndsAtOnce) {
  ASSERT_EQ(convolt("synth '" + at("large") +
                    "' --classes 2 --train-per-class 4 --val-per-class 1 --min-side 2500 --max-side 2500")
                .code,
            0);
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  const pid_t child = start_with_stderr(ends[1], {"train", "--data-path", at("large"), "--model", "resnet20", "-b", "4",
                                                  "-j", "1", "--resident", "--output-dir", at("run")});
  close(ends[1]);
  std::array<char, 4096> said{};
  EXPECT_GT(read(ends[0], said.data(), said.size()), 0);
  kill(child, SIGTERM);
  EXPECT_EQ(wait_for(child), 75);
  close(ends[0]);
  EXPECT_FALSE(std::filesystem::exists(at("run")));
}

TEST_F(Failures, GoingOnOtherwiseIsToldOf) {
  ASSERT_EQ(convolt(train(at("run")) + "--epochs 1").code, 0);
  const Outcome longer = convolt(train(at("run")) + "--epochs 2 --resume auto");
  EXPECT_EQ(longer.code, 0);
  EXPECT_EQ(longer.error, "");
  const Outcome other = convolt(train(at("run")) + "--epochs 3 --resume auto --seed 7 --mixup 0.5");
  EXPECT_EQ(other.code, 0);
  EXPECT_THAT(other.error,
              HasSubstr("the training goes on otherwise than it began: --seed 7 (was 0), --mixup 0.5 (was 0"));
  const Outcome best = convolt(train(at("other")) + "--epochs 2 --resume '" + at("run/best.safetensors") + "'");
  EXPECT_EQ(best.code, 3);
  expect_one_sentence(best, "resume from last.safetensors");
}

// In a file system of its own, which only this process and its children see.
class SmallDisk : public Failures {
protected:
  void SetUp() override {
    if (std::system("unshare -rm true 2>/dev/null") != 0) GTEST_SKIP() << "unshare(1) may not make a mount namespace";
    Failures::SetUp();
    std::filesystem::create_directory(at("disk"));
  }

  // Trains an epoch into 16 MiB, calls the shell commands, and goes on; what that says. The last checkpoint must be the
  // one of before.
  Outcome resumed_after(const std::string& commands) const {
    const std::string disk = at("disk"), program = "'" CONVOLT_PROGRAM "' ", run = train(disk + "/run");
    std::ofstream(at("script")) << "mount -t tmpfs -o size=16m none " << disk << " || exit 98\n"
                                << program << run << "--epochs 1 || exit 97\n"
                                << "cp " << disk << "/run/last.safetensors " << at("before") << "\n"
                                << commands << "\n"
                                << program << run << "--epochs 2 --resume auto 2>" << at("error") << "\n"
                                << "code=$?\n"
                                << "cp " << disk << "/run/last.safetensors " << at("after") << "\n"
                                << "ls -A " << disk << "/run >" << at("names") << "\n"
                                << "exit $code\n";
    const int status = std::system(("unshare -rm sh '" + at("script") + "' >/dev/null").c_str());
    EXPECT_NE(text_of(at("before")), "");
    EXPECT_TRUE(text_of(at("after")) == text_of(at("before"))) << "the checkpoint of before";
    EXPECT_THAT(text_of(at("names")), testing::Not(HasSubstr(".tmp"))) << "nothing half written stays";
    return {WEXITSTATUS(status), "", text_of(at("error"))};
  }
};

TEST_F(SmallDisk, Full) {
  // 64 KiB are left for the metrics, too little for a checkpoint.
  const Outcome o = resumed_after("disk='" + at("disk") +
                                  "'; free=$(df -k --output=avail \"$disk\" | tail -n 1); head -c $(((free - 64) * "
                                  "1024)) /dev/zero >\"$disk/fill\"");
  EXPECT_EQ(o.code, 1);
  expect_one_sentence(o, ".safetensors: No space left on device");
}

TEST_F(SmallDisk, ReadOnly) {
  const Outcome o = resumed_after("mount -o remount,ro '" + at("disk") + "'");
  EXPECT_EQ(o.code, 1);
  expect_one_sentence(o, "Read-only file system");
}

class VanishingData : public Failures {
protected:
  // Trains without end; calls `harm` when the first checkpoint is there.
  Outcome train_and(const std::string& flags, const std::function<void()>& harm) const {
    auto training = std::async(std::launch::async, [&] {
      return convolt(train(at("run")) + "--epochs 1000000 --checkpoint-every 1 " + flags);
    });
    for (int i = 0; i < 600 && !std::filesystem::exists(at("run/last.safetensors")); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    harm();
    const Outcome o = training.get();
    EXPECT_NO_THROW(SafeTensors::read(at("run/last.safetensors")));
    return o;
  }
};

TEST_F(VanishingData, TheFolder) {
  for (const char* policy : {"replace", "skip"}) {
    const Outcome o = train_and(std::string("--overwrite --bad-images ") + policy,
                                [&] { std::filesystem::rename(at("shapes"), at("away")); });
    EXPECT_EQ(o.code, 3) << policy;
    expect_one_sentence(o, at("shapes"));
    std::filesystem::rename(at("away"), at("shapes"));
    std::filesystem::remove_all(at("run"));
  }
}

TEST_F(VanishingData, HalfOfAFile) {
  std::string file;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(at("shapes/train")))
    if (entry.is_regular_file()) file = entry.path();
  const Outcome o =
      train_and("--bad-images fail", [&] { std::filesystem::resize_file(file, std::filesystem::file_size(file) / 2); });
  EXPECT_EQ(o.code, 3);
  expect_one_sentence(o, file);
}

}  // namespace
}  // namespace convolt::test
