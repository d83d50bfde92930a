// convolt tune, and the flags that choose kernels.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "cli/program.h"
#include "support/cache_home.h"

namespace convolt::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class Tune : public testing::Test {
protected:
  json result(const std::string& arguments) {
    const Outcome o = convolt(arguments);
    EXPECT_EQ(o.code, 0) << o.error;
    EXPECT_EQ(o.error, "");
    return json::parse(o.out);
  }
  CacheHome cache_;
  TempFolder folder_;
};

const std::string kLenet = "tune --model lenet -b 2 --training --json";

TEST_F(Tune, TheSecondStartTimesNothing) {
  const json first = result(kLenet), second = result(kLenet);
  EXPECT_GT(first.at("timed"), 0);
  EXPECT_GT(first.at("tuning_bytes"), 0);
  EXPECT_EQ(second.at("timed"), 0);
  EXPECT_EQ(second.at("kernels"), first.at("kernels"));
  EXPECT_EQ(second.at("shapes"), second.at("kernels").size());
  EXPECT_THAT(convolt("inspect --model lenet -b 2 --training --autotune quick").out, HasSubstr("(tuned)"));
  EXPECT_THAT(convolt("tune --model lenet -b 2 --training").out, HasSubstr(" shapes, 0 timed now"));
}

TEST_F(Tune, ListsTheQuickestFirstAndForgets) {
  EXPECT_EQ(result("tune --list --json"), json::array());
  const json tuned = result(kLenet);
  const json list = result("tune --list --json");
  ASSERT_EQ(list.size(), tuned.at("timed"));
  const std::string table = convolt("tune --list").out;
  for (const json& shape : list) {
    ASSERT_GE(shape.at("kernels").size(), 2U);
    EXPECT_EQ(shape["kernels"][0].at("kernel"), tuned.at("kernels").at(std::string(shape.at("description"))));
    EXPECT_LE(shape["kernels"][0].at("nanoseconds"), shape["kernels"][1].at("nanoseconds"));
    EXPECT_THAT(table, HasSubstr(std::string(shape["description"])));
    EXPECT_THAT(table, HasSubstr(std::string(shape["environment"])));
  }
  EXPECT_EQ(convolt("tune --clear").code, 0);
  EXPECT_EQ(convolt("tune --clear").code, 0);  // of nothing
  EXPECT_EQ(result("tune --list --json"), json::array());
}

TEST_F(Tune, WhatIsExportedServesElsewhere) {
  const json here = result(kLenet);
  const std::string file = folder_.path("timings.txt");
  EXPECT_EQ(convolt("tune --export '" + file + "'").code, 0);
  const CacheHome elsewhere;
  EXPECT_EQ(convolt("tune --import '" + file + "'").code, 0);
  const json there = result(kLenet);
  EXPECT_EQ(there.at("timed"), 0);
  EXPECT_EQ(there.at("kernels"), here.at("kernels"));
}

// Several at once: all that was timed is kept, and none is disturbed.
TEST_F(Tune, ProcessesShareTheCache) {
  std::vector<pid_t> children;
  for (const char* batch : {"1", "2", "3", "4"})
    children.push_back(start({"tune", "--model", "lenet", "-b", batch, "--training", "--threads", "1"}));
  for (const pid_t child : children) EXPECT_EQ(wait_for(child), 0);
  for (const char* batch : {"1", "2", "3", "4"})
    EXPECT_EQ(result("tune --model lenet --training --threads 1 --json -b " + std::string(batch)).at("timed"), 0);
}

TEST_F(Tune, ADamagedCacheIsOneWarning) {
  result(kLenet);
  const std::string path = cache_.folder().path("convolt/tuning-1.txt");
  put_contents(path, contents(path) + "x");
  EXPECT_EQ(convolt("tune --list").code, 3);
  const Outcome o = convolt(kLenet);
  EXPECT_EQ(o.code, 0);
  EXPECT_THAT(o.error, testing::MatchesRegex("warning: [^\n]*it is damaged[^\n]*\n"));
  EXPECT_EQ(result(kLenet).at("timed"), 0);
}

}  // namespace
}  // namespace convolt::test
