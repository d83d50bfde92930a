// convolt pack and unpack as people run them: killed, on a full disk, with nonsense.
#include <gmock/gmock.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <thread>

#include "cli/program.h"

namespace convolt::test {
namespace {

using testing::HasSubstr;

class Pack : public testing::Test {
protected:
  void SetUp() override {
    ASSERT_EQ(convolt("synth '" + at("shapes") +
                      "' --classes 2 --train-per-class 40 --val-per-class 4 --min-side 32 --max-side 200")
                  .code,
              0);
  }
  std::string at(const std::string& name) const { return folder_.path(name); }
  std::string pack(const std::string& output) const {
    return "pack --data-path '" + at("shapes") + "' --out '" + at(output) + "' ";
  }
  static void expect_one_sentence(const Outcome& o, int code, const std::string& says) {
    EXPECT_EQ(o.code, code);
    EXPECT_THAT(o.error, HasSubstr(says));
    EXPECT_TRUE(o.error.starts_with("convolt: ")) << o.error;
    EXPECT_LE(std::count(o.error.begin(), o.error.end(), '\n'), 2) << o.error;
    EXPECT_EQ(o.out, "");
  }

  const TempFolder folder_;
};

TEST(PackHelp, ShowsAnExample) {
  for (const char* command : {"pack", "unpack"}) {
    const Outcome o = convolt(std::string(command) + " --help");
    EXPECT_EQ(o.code, 0);
    EXPECT_THAT(o.out, HasSubstr("Example"));
  }
}

TEST_F(Pack, WritesTheFileThatALinkLeadsTo) {
  namespace fs = std::filesystem;
  fs::create_directory(at("disk"));
  fs::create_symlink("disk/set.cvt", at("link.cvt"));
  for (const char* again : {"", "--overwrite"}) {
    const Outcome o = convolt(pack("link.cvt") + again);
    ASSERT_EQ(o.code, 0) << o.error;
    EXPECT_TRUE(fs::is_symlink(at("link.cvt")));
    EXPECT_TRUE(fs::is_regular_file(at("disk/set.cvt")));
  }
}

TEST_F(Pack, TrainingIsThatOfTheFolder) {
  const Outcome packed = convolt(pack("set.cvt"));
  ASSERT_EQ(packed.code, 0) << packed.error;
  EXPECT_THAT(packed.out, HasSubstr("set.cvt: 80 pictures for training, 8 for validation, 0 left out, "));
  for (const std::string source : {"shapes", "set.cvt"}) {
    const Outcome o = convolt("train --data-path '" + at(source) +
                              "' --model resnet20 -b 8 --steps 2 -q --output-dir '" + at("run-" + source) + "'");
    ASSERT_EQ(o.code, 0) << o.error;
  }
  const std::string metrics = text_of(at("run-shapes/metrics.jsonl"));
  EXPECT_THAT(metrics, HasSubstr("loss"));
  EXPECT_EQ(text_of(at("run-set.cvt/metrics.jsonl")), metrics);

  ASSERT_EQ(convolt("unpack '" + at("set.cvt") + "' --output-dir '" + at("again") + "'").code, 0);
  EXPECT_EQ(std::system(("diff -r '" + at("shapes") + "' '" + at("again") + "'").c_str()), 0);
}

TEST_F(Pack, GoesOnAfterKill) {
  ASSERT_EQ(convolt(pack("whole.cvt") + "--raw -j 1").code, 0);
  const std::string partial = at("killed.cvt.partial");
  int kills = 0;
  for (const uintmax_t bytes : {uintmax_t{1}, uintmax_t{1'000'000}, uintmax_t{3'000'000}}) {
    const pid_t child = start({"pack", "--data-path", at("shapes"), "--out", at("killed.cvt"), "--raw", "-j", "2"});
    std::error_code none;
    for (int i = 0; i < 20'000 && !std::filesystem::exists(at("killed.cvt")); ++i) {
      if (const auto size = std::filesystem::file_size(partial, none); !none && size >= bytes) break;
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    kill(child, SIGKILL);
    kills += wait_for(child) == 0 ? 0 : 1;
    if (std::filesystem::exists(at("killed.cvt"))) break;
  }
  EXPECT_GE(kills, 1);
  EXPECT_TRUE(std::filesystem::exists(at("killed.cvt")) || convolt(pack("killed.cvt") + "--raw -j 3").code == 0);
  EXPECT_TRUE(text_of(at("killed.cvt")) == text_of(at("whole.cvt")));
  EXPECT_FALSE(std::filesystem::exists(partial));
}

// In a file system of its own, which only this process and its children see.
TEST_F(Pack, AFullDiskKeepsWhatIsDone) {
  if (std::system("unshare -rm true 2>/dev/null") != 0) GTEST_SKIP() << "unshare(1) may not make a mount namespace";
  ASSERT_EQ(convolt(pack("whole.cvt") + "--raw").code, 0);
  std::filesystem::create_directory(at("disk"));
  const std::string command = "'" CONVOLT_PROGRAM "' " + pack("disk/set.cvt") + "--raw";
  std::ofstream(at("script")) << "mount -t tmpfs -o size=1m none " << at("disk") << " || exit 98\n"
                              << command << " >" << at("out") << " 2>" << at("error") << "\ncode=$?\n"
                              << "ls " << at("disk") << " >" << at("names") << "\n"
                              << "mount -o remount,size=64m none " << at("disk") << " || exit 97\n"
                              << command << " || exit 96\n"
                              << "cmp " << at("disk/set.cvt") << " " << at("whole.cvt") << " || exit 95\n"
                              << "exit $code\n";
  const int status = std::system(("unshare -rm sh '" + at("script") + "' >/dev/null").c_str());
  expect_one_sentence({WEXITSTATUS(status), text_of(at("out")), text_of(at("error"))}, 1,
                      "No space left on device; what is done stays in " + at("disk/set.cvt.partial"));
  EXPECT_EQ(text_of(at("names")), "set.cvt.partial\nset.cvt.partial-journal\n");
}

// Three are the standard streams, and two the set that is begun; whoever runs the tests may have left others open.
TEST_F(Pack, AWantOfOpenFilesLeavesNoPictureOut) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "UBSan opens a pipe to look at an object, and where it cannot it calls the object broken";
#endif
  const std::string command = "(exec 3>&- 4>&-; ulimit -n 5; exec '" CONVOLT_PROGRAM "' " + pack("set.cvt") +
                              "-q -j 8 --overwrite) >'" + at("out") + "' 2>'" + at("error") + "'";
  const int code = code_of_status(std::system(command.c_str()));
  expect_one_sentence({code, text_of(at("out")), text_of(at("error"))}, 1, "(Too many open files); raise the limit");
  EXPECT_THAT(convolt(pack("set.cvt") + "--overwrite").out,
              HasSubstr("80 pictures for training, 8 for validation, 0 left out"));
}

TEST_F(Pack, ASetOfNoPicturesIsRefusedAndLeavesNothing) {
  namespace fs = std::filesystem;
  for (const char* name : {"none/a/1.jpg", "none/a/2.jpg", "none/a/3.jpg"}) {
    fs::create_directories(fs::path(at(name)).parent_path());
    std::ofstream(at(name)) << "not a picture";
  }
  ASSERT_EQ(convolt(pack("set.cvt")).code, 0);
  const std::string before = text_of(at("set.cvt")), none = "pack --raw -q --data-path '" + at("none") + "' --out '";
  expect_one_sentence(convolt(none + at("set.cvt") + "' --overwrite"), 3, "none of its 3 pictures can be used");
  EXPECT_TRUE(text_of(at("set.cvt")) == before);
  fs::create_directory(at("shards"));
  expect_one_sentence(convolt(none + at("shards/x.cvt") + "' --shards 2"), 3, "none of its 3 pictures can be used");
  EXPECT_TRUE(fs::is_empty(at("shards")));
}

TEST_F(Pack, NamesDoNotSpeakToTheTerminal) {
  std::ofstream(std::filesystem::directory_iterator(at("shapes/train"))->path() / "bro\x1b[2Jken.jpg") << "no picture";
  const Outcome o = convolt(pack("set.cvt") + "--raw -q");
  EXPECT_EQ(o.code, 0);
  EXPECT_THAT(o.error, HasSubstr("/bro?[2Jken.jpg: not a picture"));
  EXPECT_THAT(o.error, testing::Not(HasSubstr("\x1b")));
}

TEST_F(Pack, ASignalLeavesNothingOfAFolder) {
  for (const auto& [signal, code] : {std::pair{SIGINT, 130}, std::pair{SIGTERM, 143}}) {
    const pid_t child = start({"synth", at("out/large"), "--train-per-class", "100000"});
    for (int i = 0; i < 600 && !std::filesystem::exists(at("out/large.partial-" + std::to_string(child) + "-0/train"));
         ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    kill(child, signal);
    EXPECT_EQ(wait_for(child), code);
    EXPECT_TRUE(std::filesystem::is_empty(at("out")));
  }
}

TEST_F(Pack, NonsenseGetsOneSentence) {
  ASSERT_EQ(convolt(pack("set.cvt") + "--quiet").code, 0);
  expect_one_sentence(convolt(pack("set.cvt")), 2, "set.cvt: is there already");
  expect_one_sentence(convolt(pack("set.zip")), 2, "expected a name that ends in .cvt");
  expect_one_sentence(convolt(pack("x.cvt") + "--raw --jpeg"), 2, "--raw excludes --jpeg");
  expect_one_sentence(convolt(pack("x.cvt") + "--shards 100"), 2, "--shards 100 is more than the 88 pictures");
  expect_one_sentence(convolt(pack("none/x.cvt")), 1, "x.cvt: No such file or directory");
  expect_one_sentence(convolt("pack --data-path '" + at("none") + "' --out '" + at("x.cvt") + "'"), 3, "no such file");
  expect_one_sentence(convolt("unpack '" + at("shapes") + "' --output-dir '" + at("x") + "'"), 3, "packed set");
  expect_one_sentence(convolt("unpack '" + at("set.cvt") + "' --output-dir '" + at("shapes") + "'"), 2, "not an empty");
  std::ofstream(std::filesystem::directory_iterator(at("shapes/train"))->path() / "broken.jpg") << "not a picture";
  const Outcome left_out = convolt(pack("raw.cvt") + "--raw");
  EXPECT_EQ(left_out.code, 0);
  EXPECT_THAT(left_out.out, HasSubstr("80 pictures for training, 8 for validation, 1 left out"));
  EXPECT_THAT(left_out.error, HasSubstr("1 picture could not be used:\n  " + at("shapes/train")));
  expect_one_sentence(convolt(pack("x.cvt") + "--raw --bad-images fail"), 3, "broken.jpg: ");
  std::filesystem::resize_file(at("set.cvt"), 5000);
  expect_one_sentence(convolt("train -q --model resnet20 --data-path '" + at("set.cvt") + "'"), 3, "is it cut short?");
}

}  // namespace
}  // namespace convolt::test
