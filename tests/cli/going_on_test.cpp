// What goes on after a training: it is resumed, evaluated, repeated from its own flags.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/program.h"

namespace convolt::test {
namespace {

using testing::HasSubstr;

class GoingOn : public testing::Test {
protected:
  const std::string kClass = "arrow";  // one of those that synth draws
  void SetUp() override {
    ASSERT_EQ(convolt("synth '" + at("shapes") +
                      "' --classes 2 --train-per-class 8 --val-per-class 4 --min-side 32 --max-side 48")
                  .code,
              0);
    ASSERT_TRUE(std::filesystem::exists(at("shapes/train/" + kClass)));
  }
  std::string at(const std::string& name) const { return folder_.path(name); }
  std::string train(const std::string& run) const {
    return "train --data-path '" + at("shapes") + "' --model resnet20 -b 8 --quiet --output-dir '" + run + "' ";
  }
  static void expect_sentence(const Outcome& o, const std::string& says) {
    EXPECT_THAT(o.error, HasSubstr(says));
    EXPECT_TRUE(o.error.starts_with("convolt: ")) << o.error;
  }
  const TempFolder folder_;
};

// What the program said of the run in the README's own words is what it measured.
TEST_F(GoingOn, EvalLooksAtThePartThatTheTrainingKeptAside) {
  ASSERT_EQ(convolt("synth '" + at("whole") +
                    "' --classes 2 --train-per-class 20 --val-per-class 2 --min-side 24 --max-side 32")
                .code,
            0);
  std::filesystem::remove_all(at("whole/val"));
  const std::string data = "--data-path '" + at("whole") + "' ";
  ASSERT_EQ(convolt("train " + data +
                    "--model resnet20 --epochs 1 -b 8 -q --val-split 0.2 --val-split-seed 3 "
                    "--output-dir '" +
                    at("split") + "'")
                .code,
            0);
  const std::string eval = "eval --json -q --checkpoint '" + at("split/best.safetensors") + "' ";
  const auto found = nlohmann::json::parse(convolt(eval + data).out);
  EXPECT_EQ(found.at("samples"), 8);
  EXPECT_EQ(found.at("part"), "validation");
  std::ifstream lines(at("split/metrics.jsonl"));
  std::string line, last;
  while (std::getline(lines, line)) last = line;
  EXPECT_EQ(found.at("top1"), nlohmann::json::parse(last).at("val_top1"));
  std::filesystem::rename(at("whole"), at("moved"));
  const Outcome moved = convolt(eval + "--data-path '" + at("moved") + "'");
  EXPECT_EQ(nlohmann::json::parse(moved.out).at("part"), "all");
  EXPECT_THAT(moved.error, HasSubstr("--val-split 0.2 --val-split-seed 3 leaves out what it has learnt from"));
  std::filesystem::rename(at("moved"), at("whole"));
  ASSERT_EQ(convolt("train " + data + "--model resnet20 --epochs 1 -b 8 -q --output-dir '" + at("none") + "'").code, 0);
  const Outcome all = convolt("eval -q --json --checkpoint '" + at("none/best.safetensors") + "' " + data);
  EXPECT_EQ(nlohmann::json::parse(all.out).at("part"), "all");
  EXPECT_THAT(all.error,
              HasSubstr("has no validation part: these are its training pictures, which the network has learnt from"));
}

TEST_F(GoingOn, AResumeWritesIntoNoOtherRun) {
  ASSERT_EQ(convolt(train(at("run")) + "--epochs 1").code, 0);
  ASSERT_EQ(convolt(train(at("other")) + "--epochs 1 --seed 4").code, 0);
  const std::string before = text_of(at("other/last.safetensors"));
  const Outcome o = convolt(train(at("other")) + "--epochs 2 --resume '" + at("run/last.safetensors") + "'");
  EXPECT_EQ(o.code, 2);
  expect_sentence(o, "holds another training than");
  EXPECT_TRUE(text_of(at("other/last.safetensors")) == before);
  EXPECT_EQ(convolt(train(at("new")) + "--epochs 2 --resume '" + at("run") + "'").code, 0);
}

TEST_F(GoingOn, AResumeSaysThatTheDataSetChanged) {
  ASSERT_EQ(convolt(train(at("run")) + "--epochs 1").code, 0);
  const auto picture = *std::filesystem::directory_iterator(at("shapes/train/" + kClass));
  std::filesystem::copy_file(picture, at("shapes/train/" + kClass + "/more.jpg"));
  const Outcome more = convolt(train(at("run")) + "--epochs 2 --resume auto");
  EXPECT_EQ(more.code, 0) << more.error;
  EXPECT_THAT(more.error, HasSubstr("pictures for training, "));
  for (const char* part : {"train/", "val/"})
    std::filesystem::rename(at("shapes/" + std::string(part) + kClass), at("shapes/" + std::string(part) + "zzz"));
  const Outcome o = convolt(train(at("run")) + "--epochs 3 --resume auto");
  EXPECT_EQ(o.code, 3);
  expect_sentence(o, "resume with the same classes");
}

// The checkpoint has what they would load.
TEST_F(GoingOn, AResumeNeedsNoInitialWeights) {
  ASSERT_EQ(convolt(train(at("first")) + "--epochs 1").code, 0);
  const std::string from = "--weights '" + at("first/best.safetensors") + "' ";
  ASSERT_EQ(convolt(train(at("run")) + from + "--epochs 1").code, 0);
  std::filesystem::remove_all(at("first"));
  EXPECT_EQ(convolt(train(at("run")) + from + "--epochs 2 --resume auto").code, 0);
}

TEST_F(GoingOn, AnotherChoiceLeavesOutWhatBelongsToTheFiles) {
  ASSERT_EQ(
      convolt(train(at("run")) + "--epochs 1 --sched step --lr-step-size 2 --val-split 0.2 --val-split-seed 3").code,
      0);
  const std::string config = "train -q --dry-run --config '" + at("run/config.toml") + "' ";
  const Outcome o = convolt(config + "--opt adamw --sched=cosine --val-data-path '" + at("shapes") + "'");
  EXPECT_EQ(o.code, 0) << o.error;
  EXPECT_EQ(o.error, "");
  EXPECT_THAT(o.out, HasSubstr("opt = \"adamw\""));
  EXPECT_THAT(o.out, testing::Not(HasSubstr("\nmomentum")));
  EXPECT_THAT(o.out, testing::Not(HasSubstr("lr-step-size")));
  EXPECT_THAT(o.out, testing::Not(HasSubstr("val-split =")));
  EXPECT_EQ(convolt(config + "--opt adamw --momentum 0.5").code, 2) << "given by hand";
}

// Of a training whose pictures are gone.
TEST_F(GoingOn, AReportFindsTheValidationSetAlone) {
  std::filesystem::copy(at("shapes/train"), at("only"), std::filesystem::copy_options::recursive);
  ASSERT_EQ(convolt("train -q --data-path '" + at("only") + "' --val-data-path '" + at("shapes") +
                    "' --model resnet20 -b 8 --epochs 1 --output-dir '" + at("run") + "'")
                .code,
            0);
  std::filesystem::remove_all(at("only"));
  const Outcome o = convolt("report -q '" + at("run") + "'");
  EXPECT_EQ(o.code, 0);
  EXPECT_EQ(o.error, "");
}

TEST_F(GoingOn, TheLimitOfATrainingIsNoneOfItsEvaluation) {
  const std::string smaller = "train --data-path '" + at("shapes") + "' --model resnet20 -b 4 --limit 4 -q ";
  ASSERT_EQ(convolt(smaller + "--epochs 1 --output-dir '" + at("run") + "'").code, 0);
  const std::string eval = "eval -q --json --checkpoint '" + at("run/last.safetensors") + "' --config '";
  EXPECT_EQ(nlohmann::json::parse(convolt(eval + at("run/config.toml") + "'").out).at("samples"), 8);
  EXPECT_EQ(nlohmann::json::parse(convolt(eval + at("run/config.toml") + "' --limit 6").out).at("samples"), 6);
}

TEST_F(GoingOn, AFolderOfPicturesMayHoldMore) {
  ASSERT_EQ(convolt(train(at("run")) + "--epochs 1").code, 0);
  const std::string folder = at("shapes/val/" + kClass);
  for (const char* name : {"/.DS_Store", "/Thumbs.db", "/readme.txt"}) std::ofstream(folder + name) << "no picture";
  const Outcome o = convolt("predict --checkpoint '" + at("run/best.safetensors") + "' '" + folder + "'");
  EXPECT_EQ(o.code, 0) << o.error;
  EXPECT_EQ(std::count(o.out.begin(), o.out.end(), '\n'), 4);
}

TEST_F(GoingOn, ClassesWithoutPicturesAreTold) {
  std::ofstream list(at("list.csv"));
  list << "path,label\n";
  for (const auto& picture : std::filesystem::directory_iterator(at("shapes/train/" + kClass)))
    list << picture.path().string() << "," << 1 + picture.path().string().size() % 2 << "\n";
  list.close();
  const Outcome o = convolt("train -q --data-path '" + at("list.csv") + "' --model resnet20 -b 8 --epochs 1 --dry-run");
  EXPECT_EQ(o.code, 0);
  EXPECT_THAT(o.error, HasSubstr(" classes have no picture for training, '0' the first of them"));
}

}  // namespace
}  // namespace convolt::test
