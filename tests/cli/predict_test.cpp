// Pictures, folders and lists as users hand them to predict.
#include <gmock/gmock.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/main_job.h"

namespace convolt::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

TEST_F(MainJob, APictureThatCannotBeReadIsALineWithItsError) {
  ASSERT_EQ(convolt(train("bad") + "--steps 1 --quiet").code, 0);
  std::ofstream(at("nothing.jpg")) << "no picture";
  const std::string predict = "predict --checkpoint '" + at("bad/last.safetensors") + "' --json ";
  for (const char* name : {"nothing.jpg", "missing.jpg"}) {
    const Outcome p = convolt(predict + "'" + at(name) + "'");
    EXPECT_EQ(p.code, 3);
    EXPECT_TRUE(json::parse(p.out).contains("error")) << p.out;
  }
}

TEST_F(MainJob, WhatCannotBeLookedAtKeepsNoOtherPictureFromBeingPredicted) {
  namespace fs = std::filesystem;
  // There a folder without permissions cannot be listed by root either.
  if (std::system("unshare -U true 2>/dev/null") != 0) GTEST_SKIP() << "unshare(1) may not make a user namespace";
  ASSERT_EQ(convolt(train("mixed-run") + "--steps 1 --quiet").code, 0);
  fs::create_directories(at("mixed/locked"));
  for (const char* name : {"mixed/a.jpg", "mixed/z.jpg"}) fs::copy(at("shapes/val/arrow/000.jpg"), at(name));
  fs::create_symlink("loop", at("mixed/loop"));
  fs::permissions(at("mixed/locked"), fs::perms::none);
  fs::create_directories(at("mixed/named"));  // may be listed, but not entered
  fs::copy(at("shapes/val/arrow/000.jpg"), at("mixed/named/inside.jpg"));
  fs::permissions(at("mixed/named"), fs::perms::owner_read);
  const int status = std::system(("unshare -U '" CONVOLT_PROGRAM "' predict --json --checkpoint '" +
                                  at("mixed-run/last.safetensors") + "' '" + at("mixed") + "' >'" + at("out") + "'")
                                     .c_str());
  for (const char* name : {"mixed/locked", "mixed/named"}) fs::permissions(at(name), fs::perms::owner_all);
  EXPECT_EQ(code_of_status(status), 3);
  std::istringstream lines(text_of(at("out")));
  std::vector<std::string> said;
  for (std::string line; std::getline(lines, line);) {
    const json answer = json::parse(line);
    said.push_back(fs::path(answer.at("path")).filename().string() + " " + answer.value("error", "is predicted"));
  }
  EXPECT_THAT(said, testing::ElementsAre("a.jpg is predicted", "locked cannot be opened (Permission denied)",
                                         "loop cannot be opened (Too many levels of symbolic links)",
                                         "inside.jpg cannot be opened (Permission denied)", "z.jpg is predicted"));
  EXPECT_THAT(
      convolt("predict --checkpoint '" + at("mixed-run/last.safetensors") + "' '" + at("mixed/loop") + "'").error,
      HasSubstr("mixed/loop: cannot be opened (Too many"));
}

TEST_F(MainJob, PredictReadsAListFromStdin) {
  ASSERT_EQ(convolt(train("stdin") + "--steps 1 --quiet").code, 0);
  const std::string predict = "predict --checkpoint '" + at("stdin/last.safetensors") + "' - --json <'";
  std::ofstream(at("list")) << at("shapes/val/arrow/001.jpg") << "\n";
  const Outcome p = convolt(predict + at("list") + "'");
  EXPECT_EQ(p.code, 0) << p.error;
  EXPECT_EQ(json::parse(p.out).at("path"), at("shapes/val/arrow/001.jpg"));

  std::ofstream(at("list")) << at("shapes/val/arrow/001.jpg") << '\0' << at("shapes/val/arrow/002.jpg") << '\0';
  const Outcome nul = convolt(predict + at("list") + "'");
  EXPECT_EQ(nul.code, 2);
  EXPECT_EQ(nul.out, "");
  EXPECT_EQ(nul.error,
            "convolt: the list on stdin has a NUL byte; expected a name a line, not what find -print0 makes\n");

  const Outcome folder = convolt(predict + at("shapes") + "'");
  EXPECT_EQ(folder.code, 1);
  EXPECT_EQ(folder.error, "convolt: the list on stdin cannot be read (Is a directory)\n");
}
}  // namespace
}  // namespace convolt::test
