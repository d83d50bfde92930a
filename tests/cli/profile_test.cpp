// Where a training's time goes, as the user sees it.
#include <gmock/gmock.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/program.h"

namespace convolt::test {
namespace {

using testing::HasSubstr;

struct Span {
  std::string name;
  double begin, end;
};

TEST(Profile, ATrainingSaysWhatItWaitedFor) {
  const TempFolder folder;
  const auto at = [&](const char* name) { return folder.path(name); };
  ASSERT_EQ(convolt("synth '" + at("shapes") +
                    "' --classes 2 --train-per-class 16 --val-per-class 4 --min-side 32 --max-side 48")
                .code,
            0);
  const Outcome o = convolt("train --data-path '" + at("shapes") +
                            "' --model resnet20 -b 8 -j 2 --epochs 2 --accum 2 --aug-repeats 2 --output-dir '" +
                            at("run") + "' --profile '" + at("trace.json") + "'");
  ASSERT_EQ(o.code, 0) << o.error;
  EXPECT_THAT(o.error, HasSubstr("waited for data "));
  EXPECT_THAT(text_of(at("run/config.toml")), HasSubstr("\nrepeats = 2\n"));
  EXPECT_THAT(text_of(at("run/config.toml")), testing::Not(HasSubstr("trace.json"))) << "a repetition has its own";

  std::map<std::string, std::vector<Span>> tracks;
  std::map<int, std::string> names;
  const auto trace = nlohmann::json::parse(text_of(at("trace.json")));
  for (const auto& event : trace.at("traceEvents")) {
    if (event.at("name") == "thread_name") names[event.at("tid")] = event.at("args").at("name");
    if (event.at("ph") != "X") continue;
    const double begin = event.at("ts"), length = event.at("dur");
    tracks[names.at(event.at("tid"))].push_back({event.at("name"), begin, begin + length});
  }
  for (const char* track : {"training", "decode thread 1", "decode thread 2", "copies to the device"})
    EXPECT_GT(tracks[track].size(), 0U) << track;
  std::map<std::string, int> counts;
  for (const Span& s : tracks["training"]) {
    ++counts[s.name];
    if (s.name == "step" || s.name == "validation") continue;
    const auto holds = [&](const Span& step) {
      return step.name == "step" && step.begin <= s.begin + 0.002 && s.end <= step.end + 0.002;
    };
    EXPECT_TRUE(std::any_of(tracks["training"].begin(), tracks["training"].end(), holds)) << s.name;
  }
  const std::map<std::string, int> expected{
      {"step", 4}, {"validation", 2}, {"wait for batch", 8}, {"wait for device", 8}, {"submit", 8}};
  EXPECT_EQ(counts, expected);

  std::istringstream lines(text_of(at("run/times.jsonl")));
  int epochs = 0;
  for (std::string line; std::getline(lines, line); ++epochs) {
    const auto times = nlohmann::json::parse(line);
    EXPECT_EQ(times.at("epoch"), epochs);
    for (const char* share : {"data_wait", "read", "decode", "copy"}) {
      EXPECT_GE(times.at(share), 0) << share;
      EXPECT_LE(times.at(share), 1) << share;
    }
    EXPECT_GT(times.at("decode"), 0);
  }
  EXPECT_EQ(epochs, 2);
}

}  // namespace
}  // namespace convolt::test
