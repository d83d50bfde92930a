// Configuration files: TOML in, flags out, and back.
#include "io/config_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "convolt/error.h"

namespace convolt::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string error_of(const std::string& text) {
  try {
    parse_config(text, "run.toml");
  } catch (const FormatError& e) {
    return e.what();
  }
  return "no error";
}

TEST(ConfigFile, EveryKindOfValueBecomesText) {
  const auto entries = parse_config(
      "# a training\nmodel = 'resnet20'\nlr = 0.1\nepochs = 12\nnesterov = true\n\"data-path\" = \"a \\\"b\\\" "
      "\\u00e4\"\nscale = [0.08, 1]\nfreeze = ['conv1.*', \"layer[12]\\\\..*\"]\n",
      "run.toml");
  ASSERT_EQ(entries.size(), 7U);
  EXPECT_EQ(entries[0].key, "model");
  EXPECT_EQ(entries[0].line, 2);
  EXPECT_THAT(entries[0].values, ElementsAre("resnet20"));
  EXPECT_THAT(entries[1].values, ElementsAre("0.1"));
  EXPECT_THAT(entries[2].values, ElementsAre("12"));
  EXPECT_THAT(entries[3].values, ElementsAre("true"));
  EXPECT_FALSE(entries[3].array);
  EXPECT_EQ(entries[4].key, "data-path");
  EXPECT_THAT(entries[4].values, ElementsAre("a \"b\" \xc3\xa4"));
  EXPECT_TRUE(entries[5].array);
  EXPECT_THAT(entries[5].values, ElementsAre("0.08", "1"));
  EXPECT_THAT(entries[6].values, ElementsAre("conv1.*", "layer[12]\\..*"));
}

TEST(ConfigFile, WhatIsNotTomlIsRefusedWithItsPlace) {
  EXPECT_THAT(error_of("lr = 0.1\nepochs 12\n"), HasSubstr("run.toml:2:8: "));
  EXPECT_THAT(error_of("lr = \n"), HasSubstr("run.toml:1:"));
  EXPECT_THAT(error_of("lr = 0.1\nlr = 0.2\n"), HasSubstr("run.toml:2:"));
  EXPECT_THAT(error_of("model = \"open\n"), HasSubstr("run.toml:1:"));
  // Letters outside a string: U+E9, U+FE3F.
  EXPECT_THAT(error_of("\xc3\xa9poques = 12\n"), HasSubstr("run.toml:1:1: "));
  EXPECT_THAT(error_of("lr = \xef\xb8\xbf\n"), HasSubstr("run.toml:1:"));
}

TEST(ConfigFile, WhatIsNoFlagIsRefused) {
  EXPECT_EQ(error_of("\n[train]\nlr = 0.1\n"),
            "run.toml:2:1: 'train' holds a table; expected a string, a number, true or false, or an array of these");
  EXPECT_THAT(error_of("lr = 2020-01-01\n"), HasSubstr("'lr' holds a date or time"));
  EXPECT_THAT(error_of("scale = [[1]]\n"), HasSubstr("'scale' holds an array in an array"));
}

TEST(ConfigFile, WrittenEntriesReadBackTheSame) {
  const std::vector<ConfigEntry> entries{{.key = "lr", .values = {"0.05"}},
                                         {.key = "seed", .values = {"18446744073709551615"}},
                                         {.key = "model", .values = {"007"}},
                                         {.key = "nesterov", .values = {"true"}},
                                         {.key = "eps", .values = {"1e-08"}},
                                         {.key = "data-path", .values = {"C:\\a \"b\"\n\x01\x7f"}},
                                         {.key = "empty", .values = {}, .array = true},
                                         {.key = "freeze", .values = {"a,b", "-3", "0.25"}, .array = true}};
  std::string text;
  for (const ConfigEntry& entry : entries) text += format_config(entry) + "\n";
  const auto back = parse_config(text, "again.toml");
  ASSERT_EQ(back.size(), entries.size()) << text;
  for (size_t i = 0; i < back.size(); ++i) {
    EXPECT_EQ(back[i].key, entries[i].key);
    EXPECT_EQ(back[i].values, entries[i].values) << text;
    EXPECT_EQ(back[i].array, entries[i].array);
  }
  EXPECT_EQ(format_config(entries[0]), "lr = 0.05");
  EXPECT_EQ(format_config(entries[3]), "nesterov = true");
}

}  // namespace
}  // namespace convolt::test
