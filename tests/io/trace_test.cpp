#include "io/trace.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>
#include <thread>

namespace convolt::test {
namespace {

using std::chrono::milliseconds;

TEST(Trace, IsJsonWithTheSpansOfEachTrack) {
  Trace trace;
  const auto now = Trace::Clock::now();
  Trace::Track& first = trace.track("first");
  Trace::Track& second = trace.track("second");
  first.span("a", now, now + milliseconds(3));
  second.span("b", now + milliseconds(1), now + milliseconds(2));
  const auto json = nlohmann::json::parse(trace.json());
  std::map<int, std::string> tracks;
  std::map<std::string, nlohmann::json> spans;
  for (const auto& event : json.at("traceEvents")) {
    if (event.at("name") == "thread_name") tracks[event.at("tid")] = event.at("args").at("name");
    if (event.at("ph") == "X") spans[event.at("name")] = event;
  }
  ASSERT_EQ(spans.size(), 2U);
  EXPECT_EQ(tracks.at(spans["a"].at("tid")), "first");
  EXPECT_EQ(tracks.at(spans["b"].at("tid")), "second");
  EXPECT_NEAR(spans["a"].at("dur"), 3000, 0.01);
  EXPECT_NEAR(double(spans["b"].at("ts")) - double(spans["a"].at("ts")), 1000, 0.01);
}

TEST(Trace, KeepsTheFirstSpansOfEachTrack) {
  Trace trace;
  Trace::Track& track = trace.track("long");
  const auto now = Trace::Clock::now();
  for (int i = 0; i < 100'003; ++i) track.span("s", now, now);
  const std::string text = trace.json();
  size_t spans = 0;
  for (size_t at = text.find("\"X\""); at != text.npos; at = text.find("\"X\"", at + 1)) ++spans;
  EXPECT_EQ(spans, 100'000U);
}

TEST(Trace, TracksAreWrittenAtTheSameTime) {
  Trace trace;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&trace] {
        Trace::Track& track = trace.track("t");
        for (int i = 0; i < 100; ++i) track.span("s", Trace::Clock::now(), Trace::Clock::now());
      });
    trace.json();
  }
  EXPECT_EQ(nlohmann::json::parse(trace.json()).at("traceEvents").size(), 1 + 4 * 101U);
}

}  // namespace
}  // namespace convolt::test
