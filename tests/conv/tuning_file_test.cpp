// The file of timings: what is written reads back, what is damaged is refused, and nobody's timings are lost.
#include "conv/tuning_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <thread>

#include "convolt/error.h"
#include "support/temp_folder.h"

namespace convolt::test {
namespace {

TuningTable some_timings() {
  return {{{"card, driver, library", "fprop n1"}, {{"engine 1", {1234, true}}, {"engine 2, packed weights", {}}}},
          {{"card, driver, library", "dgrad n1"}, {{"engine 1", {.nanoseconds = 1}}}},
          {{"another card", "fprop n1"}, {{"engine 1", {.nanoseconds = int64_t{1} << 60}}}}};
}

TEST(TuningFile, ReadsBackWhatItWrites) {
  const std::string text = format_tuning(some_timings());
  EXPECT_EQ(parse_tuning(text, "file"), some_timings());
  EXPECT_EQ(text.substr(text.find('\n') + 1),
            "another card\tfprop n1\tengine 1\tquick\t1152921504606846976\n"
            "card, driver, library\tdgrad n1\tengine 1\tquick\t1\n"
            "card, driver, library\tfprop n1\tengine 1\tfull\t1234\n"
            "card, driver, library\tfprop n1\tengine 2, packed weights\tquick\twrong\n");
  EXPECT_EQ(parse_tuning(format_tuning({}), "file"), TuningTable());
}

// As zlib.crc32 of Python has it: files of one machine are read on another.
TEST(TuningFile, TheChecksumIsCrc32) {
  EXPECT_EQ(format_tuning({{{"e", "d"}, {{"k", {.nanoseconds = 5}}}}}),
            "convolt-tuning 1 053cefed\ne\td\tk\tquick\t5\n");
}

TEST(TuningFile, EveryFlippedByteAndEveryCutIsNoticed) {
  const std::string text = format_tuning(some_timings());
  for (size_t i = 0; i < text.size(); ++i) {
    std::string damaged = text;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    EXPECT_THROW(parse_tuning(damaged, "file"), FormatError) << i;
    EXPECT_THROW(parse_tuning(text.substr(0, i), "file"), FormatError) << i;
  }
}

std::string refusal(const std::string& text) {
  try {
    parse_tuning(text, "file");
  } catch (const FormatError& e) {
    return e.what();
  }
  return "";
}

TEST(TuningFile, SaysWhatIsWrong) {
  EXPECT_EQ(refusal("something else"), "file: it holds no kernel timings of Convolt");
  EXPECT_EQ(refusal("convolt-tuning 2 00000000\n"),
            "file: its kernel timings are of version '2', and this program reads 1");
  EXPECT_EQ(refusal("convolt-tuning 1 00000001\n"), "file: it is damaged: its checksum does not fit");
  EXPECT_EQ(refusal(with_first_line("e\td\tk\tquick\t5\n")), "");
  for (const char* line :
       {"e\td\tk\tquick", "e\td\tk\tquick\t5\t6", "\td\tk\tquick\t5", "e\td\tk\tslow\t5", "e\td\tk\tquick\t0",
        "e\td\tk\tquick\t-1", "e\td\tk\tquick\t5x", "e\td\tk\tquick\t9223372036854775808", "", "e\td\tk0\tquick\t5"})
    EXPECT_EQ(refusal(with_first_line("e\td\tk0\tquick\t5\n" + std::string(line) + "\n")),
              "file:3: it is no kernel timing")
        << line;
}

TEST(TuningFile, MergesByKernelAndKeepsWhatWasMeasuredBetter) {
  const TuningKey key{"e", "d"};
  TuningTable table{{key, {{"quick", {1, false}}, {"full", {2, true}}, {"other", {3, false}}}}};
  merge(table, {{key, {{"quick", {10, false}}, {"full", {20, false}}, {"new", {30, true}}}}, {{"e", "d2"}, {}}});
  merge(table, {{key, {{"new", {31, true}}}}});
  const Timings expected{{"quick", {10, false}}, {"full", {2, true}}, {"other", {3, false}}, {"new", {31, true}}};
  EXPECT_EQ(table.at(key), expected);
}

class TuningCacheTest : public testing::Test {
protected:
  TempFolder folder_;
  TuningCache cache_{folder_.path("a/b/tuning-1.txt")};
};

TEST_F(TuningCacheTest, BeginsEmptyAndKeepsWhatIsAdded) {
  EXPECT_TRUE(cache_.read().empty());
  cache_.clear();
  EXPECT_TRUE(folder_.names().empty());
  cache_.add(some_timings());
  EXPECT_EQ(cache_.read(), some_timings());
  cache_.clear();
  EXPECT_TRUE(cache_.read().empty());
}

TEST_F(TuningCacheTest, ADamagedFileIsRefusedAndReplaced) {
  cache_.add(some_timings());
  put_contents(cache_.path(), contents(cache_.path()).substr(0, 60));
  EXPECT_THROW(cache_.read(), FormatError);
  cache_.add(some_timings());
  EXPECT_EQ(cache_.read(), some_timings());
}

TEST_F(TuningCacheTest, WhatCannotBeWrittenIsAnError) {
  put_contents(folder_.path("a"), "a file");
  EXPECT_THROW(cache_.add(some_timings()), Error);
  EXPECT_THROW(TuningCache("").add(some_timings()), Error);
  EXPECT_TRUE(TuningCache("").read().empty());
}

// Each as a process of its own would: with its own file and its own lock.
TEST_F(TuningCacheTest, NobodysTimingsAreLost) {
  constexpr int kWriters = 4, kEach = 8;
  std::vector<std::thread> writers;
  for (int w = 0; w < kWriters; ++w)
    writers.emplace_back([&, w] {
      const TuningCache mine(cache_.path());
      for (int i = 0; i < kEach; ++i) {
        mine.add({{{"e", std::to_string(w)}, {{std::to_string(i), {.nanoseconds = 1}}}}});
        mine.read();  // never half a file
      }
    });
  for (std::thread& t : writers) t.join();
  const TuningTable all = cache_.read();
  ASSERT_EQ(all.size(), static_cast<size_t>(kWriters));
  for (const auto& [key, timings] : all) EXPECT_EQ(timings.size(), static_cast<size_t>(kEach)) << key.description;
}

TEST(TuningCache, LiesWhereTheXdgSpecificationSays) {
  const std::string xdg = std::getenv("XDG_CACHE_HOME") ? std::getenv("XDG_CACHE_HOME") : "";
  const std::string home = std::getenv("HOME") ? std::getenv("HOME") : "";
  setenv("HOME", "/home/somebody", 1);
  setenv("XDG_CACHE_HOME", "/caches", 1);
  EXPECT_EQ(TuningCache::default_path(), "/caches/convolt/tuning-1.txt");
  setenv("XDG_CACHE_HOME", "relative", 1);
  EXPECT_EQ(TuningCache::default_path(), "/home/somebody/.cache/convolt/tuning-1.txt");
  unsetenv("XDG_CACHE_HOME");
  EXPECT_EQ(TuningCache::default_path(), "/home/somebody/.cache/convolt/tuning-1.txt");
  unsetenv("HOME");
  EXPECT_EQ(TuningCache::default_path(), "");
  if (!xdg.empty()) setenv("XDG_CACHE_HOME", xdg.c_str(), 1);
  if (!home.empty()) setenv("HOME", home.c_str(), 1);
}

}  // namespace
}  // namespace convolt::test
