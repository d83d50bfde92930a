#include "bench/record.h"

#include <gmock/gmock.h>

#include <fstream>

#include "convolt/error.h"
#include "support/temp_folder.h"

namespace convolt::test {
namespace {

using namespace bench;
using testing::HasSubstr;
using testing::StartsWith;

TEST(Summary, ByHand) {
  const Summary s = summary_of({11, 1, 3, 2, 10, 4, 9, 5, 8, 6, 7});
  EXPECT_EQ(s.n, 11);
  EXPECT_EQ(s.median, 6);
  EXPECT_EQ(s.p10, 2);
  EXPECT_EQ(s.p90, 10);
  EXPECT_EQ(s.min, 1);
  EXPECT_EQ(summary_of({1, 2}).median, 1.5);
  EXPECT_EQ(summary_of({3}).p90, 3);
  EXPECT_EQ(summary_of({}).n, 0);
}

TEST(InTurn, WarmsUpAndThenTakesTurns) {
  std::string order;
  const auto times = in_turn({.samples = 4, .seconds = 1e9}, {[&] {
                                                                order += 'a';
                                                                return static_cast<double>(order.size());
                                                              },
                                                              [&] {
                                                                order += 'b';
                                                                return -1.0;
                                                              }});
  EXPECT_EQ(order, "ababababab");
  EXPECT_EQ(times, (std::vector<std::vector<double>>{{3, 5, 7, 9}, {-1, -1, -1, -1}}));
}

// Where there is no time, three rounds all the same: fewer have no spread.
TEST(InTurn, TakesThreeRoundsAtLeast) {
  const auto times = in_turn({.samples = 50, .seconds = 0}, {[] { return 1.0; }});
  EXPECT_EQ(times[0].size(), 3U);
}

Row row(const std::string& name, double median, double spread) {
  return {.name = name,
          .dtype = "f32",
          .shape = "[8, 2]",
          .bytes = 6'000'000,
          .timings = {{"cold", {7, median, median - spread, median + spread, median - spread}, 0.5}}};
}

Record sample() {
  Record r{.version = "0.1", .benchmark = "kernels", .device = "CPU \"x\" (2 threads)", .threads = 2};
  r.last_cache_bytes = 1 << 25;
  r.copy = {"memcpy", 3e10, 2.5e10};
  r.rows = {row("add", 2, 0.5), row("mul, wide", 4, 0.25)};
  r.rows[1].flops = 8'000'000;
  r.rows[1].images = 16;
  r.rows[1].memory = 123;
  r.rows[1].count = 3;
  r.rows[1].timings.push_back({"warm", {3, 1, 1, 1, 1}, 0, true});
  return r;
}

std::string written(const TempFolder& folder, const std::string& text) {
  const std::string path = folder.path("record.json");
  std::ofstream(path, std::ios::trunc) << text;
  return path;
}

TEST(Record, RatesByHand) {
  const Record r = sample();
  EXPECT_EQ(bytes_per_second(r.rows[0], r.rows[0].timings[0]), 6e6 / 1.5e-3);  // by the best time
  EXPECT_DOUBLE_EQ(flops_per_second(r.rows[1], r.rows[1].timings[0]), 8e6 / 3.75e-3);
  EXPECT_EQ(images_per_second(r.rows[1], r.rows[1].timings[0]), 16 / 4e-3);  // by the median
  EXPECT_EQ(images_per_second(r.rows[0], r.rows[0].timings[0]), 0);
}

TEST(Record, JsonComesBackWhole) {
  const TempFolder folder;
  const Record r = sample();
  const Record back = read_record(written(folder, to_json(r)));
  EXPECT_EQ(to_json(back), to_json(r));
  EXPECT_EQ(back.device, r.device);
  EXPECT_EQ(back.copy.best, r.copy.best);
  EXPECT_EQ(back.matmul.best, 0);
  ASSERT_EQ(back.rows.size(), 2U);
  EXPECT_EQ(back.rows[1].name, "mul, wide");
  EXPECT_EQ(back.rows[1].memory, 123);
  EXPECT_EQ(back.rows[1].count, 3);
  ASSERT_EQ(back.rows[1].timings.size(), 2U);
  EXPECT_EQ(back.rows[1].timings[0].ms.p90, 4.25);
  EXPECT_TRUE(back.rows[1].timings[1].chosen);
}

TEST(Record, CsvHasALineForEachTiming) {
  const std::string csv = to_csv(sample());
  EXPECT_THAT(csv, StartsWith("name,dtype,shape,timing,bytes,"));
  EXPECT_THAT(csv, HasSubstr("\nadd,f32,\"[8, 2]\",cold,6000000,0,0,0,7,2,1.5,2.5,1.5,4,0,0,0.5\n"));
  EXPECT_THAT(csv, HasSubstr("\n\"mul, wide\",f32,\"[8, 2]\",warm,"));
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 4);
}

TEST(Record, WhatIsNoRecordIsRefused) {
  const TempFolder folder;
  for (const char* text : {"", "no json", "[]", "{}", R"({"bench": "kernels"})"})
    EXPECT_THROW(read_record(written(folder, text)), DataError) << text;
  std::string cut = to_json(sample());
  EXPECT_THROW(read_record(written(folder, cut.substr(0, cut.size() / 2))), DataError);
  cut.replace(cut.find("\"ms_p10\""), 8, "\"ms_p11\"");
  EXPECT_THROW(read_record(written(folder, cut)), DataError);
  EXPECT_THROW(read_record(folder.path("missing")), DataError);
}

TEST(Compare, ARecordWithItselfIsQuiet) {
  const Comparison c = compare(sample(), sample());
  EXPECT_EQ(c.compared, 3);
  EXPECT_EQ(c.only_now, 0);
  EXPECT_EQ(c.only_before, 0);
  EXPECT_TRUE(c.slower.empty());
  EXPECT_TRUE(c.quicker.empty());
}

TEST(Compare, FindsASlowdownBeyondTheSpread) {
  Record now = sample();
  now.rows[0] = row("add", 3.5, 0.5);  // 3 to 4 beside 1.5 to 2.5
  const Comparison c = compare(sample(), now);
  ASSERT_EQ(c.slower.size(), 1U);
  EXPECT_EQ(c.slower[0].name, "add");
  EXPECT_EQ(c.slower[0].timing, "cold");
  EXPECT_EQ(c.slower[0].ratio(), 1.75);
  EXPECT_EQ(c.slower[0].before.p90, 2.5);
  const Comparison reversed = compare(now, sample());
  EXPECT_TRUE(reversed.slower.empty());
  EXPECT_EQ(reversed.quicker.size(), 1U);
}

TEST(Compare, NoiseIsNoSlowdown) {
  Record now = sample();
  now.rows[0] = row("add", 3.25, 1);  // twice as slow, but from 2.25 on beside up to 2.5
  EXPECT_TRUE(compare(sample(), now).slower.empty());
  Record before = sample();
  before.rows[0] = row("add", 2, 0);
  now.rows[0] = row("add", 2.09, 0);  // spreads apart, by less than 5 %
  EXPECT_TRUE(compare(before, now).slower.empty());
  now.rows[0] = row("add", 2.11, 0);
  EXPECT_EQ(compare(before, now).slower.size(), 1U);
}

TEST(Compare, RowsMatchByNameTypeAndShape) {
  Record now = sample();
  now.rows[0].shape = "[8, 3]";
  now.rows[1].dtype = "bf16";
  now.rows.push_back(row("add", 2, 0.5));
  const Comparison c = compare(sample(), now);
  EXPECT_EQ(c.compared, 1);
  EXPECT_EQ(c.only_now, 3);
  EXPECT_EQ(c.only_before, 2);
}

TEST(Compare, WhatCannotBeComparedIsNoSuccess) {
  Record now = sample();
  now.rows.resize(1);
  now.rows[0].shape = "[8, 3]";
  EXPECT_THROW(compare(sample(), now), UsageError);
  now = sample();
  now.benchmark = "conv";
  EXPECT_THROW(compare(sample(), now), UsageError);
}

TEST(Record, TheChosenTimingIsTheOneThatIsMarked) {
  EXPECT_EQ(chosen_of(sample().rows[0]).name, "cold");
  EXPECT_EQ(chosen_of(sample().rows[1]).name, "warm");
}

// What the host spends on a step moves none of its bytes.
TEST(Record, PartsHaveNoRates) {
  Record r = sample();
  r.rows[1].timings.push_back({.name = "host, alone", .ms = {3, 1, 1, 1, 1}, .part = true});
  EXPECT_THAT(to_csv(r), HasSubstr(",\"host, alone\",6000000,8000000,16,0,3,1,1,1,1,0,0,0,0\n"));
  EXPECT_THAT(to_json(r), HasSubstr(R"("host, alone":{"n":3,"ms_median":1.0,"ms_p10":1.0,"ms_p90":1.0,"ms_min":1.0})"));
}

TEST(Compare, TheLargestChangeComesFirst) {
  Record now = sample();
  now.rows[0] = row("add", 4, 0.1);
  now.rows[1] = row("mul, wide", 12, 0.1);
  const Comparison c = compare(sample(), now);
  ASSERT_EQ(c.slower.size(), 2U);
  EXPECT_EQ(c.slower[0].name, "mul, wide");
}

}  // namespace
}  // namespace convolt::test
