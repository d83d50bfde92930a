// What the program says of augmentation, and recipes of it.
#include <gmock/gmock.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/main_job.h"

namespace convolt::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class Augmenting : public MainJob {};

TEST_F(Augmenting, WhatIsDrawnForAPictureCanBeAskedFor) {
  const std::string command =
      "augment --data-path '" + at("shapes") +
      "' --model resnet20 --rotate 15 --no-augment --hflip 1 --seed 4 --explain --sample 7 --epoch ";
  const Outcome o = convolt(command + "2 --json");
  ASSERT_EQ(o.code, 0) << o.error;
  const json j = json::parse(o.out);
  EXPECT_EQ(j.at("sample"), 7);
  EXPECT_EQ(j.at("output"), (json{32, 32}));
  // Centred: the shorter side whole.
  const std::vector<double> crop = j.at("drawn").at("crop");
  EXPECT_NEAR(std::min(crop[2] - crop[0], crop[3] - crop[1]),
              std::min(j.at("picture")[0].get<double>(), j.at("picture")[1].get<double>()), 1e-9);
  EXPECT_EQ(j.at("drawn").at("hflip"), (json{1.0}));
  EXPECT_LE(std::abs(j.at("drawn").at("rotate")[0].get<double>()), 15);
  EXPECT_EQ(j.at("drawn").size(), 3U);
  EXPECT_NE(json::parse(convolt(command + "3 --json").out).at("drawn").at("rotate"), j.at("drawn").at("rotate"));
  EXPECT_THAT(convolt(command + "2").out, HasSubstr("  hflip               1\n"));
  const json chosen = json::parse(convolt(command + "2 --json --aa rand-m9-n5-p1").out).at("drawn").at("policy");
  EXPECT_EQ(chosen.size(), 5U) << "each operation, also one that is chosen twice: " << chosen.dump();
}

// The two rows of a pair name each other. Which rows they are, tests/data/mixing_test.cpp compares with the loader.
TEST_F(Augmenting, WhatIsMixedIntoAPictureCanBeAskedFor) {
  const std::string command = "augment --data-path '" + at("shapes") +
                              "' --model resnet20 --cutmix 1 --mixup-mode pair -b 6 --seed 4 --min-res 16 --end-ramp 3 "
                              "--res-step 4 --explain --epoch 2 --sample ";
  int pairs = 0;
  for (int sample = 0; sample < 12; ++sample) {
    const Outcome o = convolt(command + std::to_string(sample) + " --json");
    ASSERT_EQ(o.code, 0) << o.error;
    const json j = json::parse(o.out);
    if (!j.at("shown").get<bool>() || j.at("mixing").is_null()) continue;
    ++pairs;
    EXPECT_EQ(j.at("output"), (json{20, 20}));
    const json& mixing = j.at("mixing");
    EXPECT_EQ(mixing.at("operation"), "cutmix");
    const std::vector<int> box = mixing.at("box");
    EXPECT_NEAR(mixing.at("part").get<double>(), 1 - box[2] * box[3] / 400.0, 1e-6);
    const int partner = mixing.at("partner").at("sample");
    const json other = json::parse(convolt(command + std::to_string(partner) + " --json").out);
    EXPECT_EQ(other.at("mixing").at("partner").at("sample"), sample);
    EXPECT_EQ(other.at("mixing").at("box"), mixing.at("box"));
    EXPECT_EQ(other.at("name"), mixing.at("partner").at("name"));
    EXPECT_EQ(other.at("batch"), j.at("batch"));
    EXPECT_EQ(other.at("row").get<int>() + j.at("row").get<int>(), 5);
    EXPECT_THAT(convolt(command + std::to_string(sample)).out,
                HasSubstr(" sample " + std::to_string(partner) + ", " + other.at("name").get<std::string>() + " ("));
  }
  EXPECT_GT(pairs, 5);
}

// A recipe's flags, those of the command line in their place, and all of them once more from what was printed.
TEST_F(Augmenting, ARecipeIsFlags) {
  const Outcome text = convolt("train --recipe cifar --dry-run");
  ASSERT_EQ(text.code, 0) << text.error;
  EXPECT_THAT(text.out, HasSubstr("crop-padding = 4\n"));
  const std::string data = "train --data-path '" + at("shapes") + "' --model resnet20 ";
  const Outcome all = convolt(data + "--recipe heavy --mixup 0.3 --dry-run --output-dir '" + at("none") + "'");
  ASSERT_EQ(all.code, 0) << all.error;
  EXPECT_THAT(all.out, HasSubstr("\nmixup = 0.3\n"));
  EXPECT_THAT(all.out, HasSubstr("\nauto-augment = \"rand-m9-n2-mstd0.5-p0.5-inc1\"\n"));
  EXPECT_THAT(all.out, HasSubstr("\nremode = \"pixel\"\n"));
  EXPECT_FALSE(std::filesystem::exists(at("none")));
  std::ofstream(at("printed.toml")) << all.out;
  EXPECT_EQ(convolt("train --config '" + at("printed.toml") + "' --dry-run").out, all.out);
  EXPECT_THAT(convolt(data + "--recipe heavy --config '" + at("printed.toml") + "' --hflip 0.25 --dry-run").out,
              HasSubstr("\nhflip = 0.25\n"));
}

}  // namespace
}  // namespace convolt::test
