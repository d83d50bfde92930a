// What may happen to a training from outside: the disk is full, the folder cannot be written, the data goes away. It
// ends with one sentence, and the last checkpoint is whole.
#include <gmock/gmock.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <nlohmann/json.hpp>
#include <thread>

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
