#include "io/names.h"

#include <gtest/gtest.h>

#include <vector>

namespace convolt::test {
namespace {

TEST(NearestName, FindsWhatWasMeant) {
  const std::vector<std::string> models{"resnet18", "resnet20", "resnet50", "mobilenet_v2", "vgg16"};
  EXPECT_EQ(nearest_name("resnet2O", models), "resnet20");  // a substitution
  EXPECT_EQ(nearest_name("resnt50", models), "resnet50");   // a deletion
  EXPECT_EQ(nearest_name("vgg116", models), "vgg16");       // an insertion
  EXPECT_EQ(nearest_name("mobilenetv2", models), "mobilenet_v2");
  EXPECT_EQ(nearest_name("vgg16", models), "vgg16");
}

TEST(NearestName, ASwapOfNeighboursIsOneEdit) {
  EXPECT_EQ(nearest_name("abdc", std::vector<std::string>{"abxx", "abcd"}), "abcd");  // 2 substitutions against 1 swap
  EXPECT_EQ(nearest_name("badcef", std::vector<std::string>{"abcdef"}), "abcdef");    // 2 swaps
}

TEST(NearestName, TheFirstOfEqualsWins) {
  EXPECT_EQ(nearest_name("resnet", std::vector<std::string>{"resnet50", "resnet18"}), "resnet50");
}

TEST(NearestName, IsEmptyWhenNothingIsNear) {
  EXPECT_EQ(nearest_name("alexnet", std::vector<std::string>{"resnet18", "vgg16"}), "");
  EXPECT_EQ(nearest_name("", std::vector<std::string>{"lr", "b"}), "");
  EXPECT_EQ(nearest_name("xy", std::vector<std::string>{"lr"}), "");
  EXPECT_EQ(nearest_name("vgg16", std::vector<std::string>{}), "");
}

TEST(NearestName, LongWordsMayDifferMore) {
  const std::vector<std::string> flags{"--random-resized-crop"};
  EXPECT_EQ(nearest_name("--random-resize", flags), "");         // 6 off, 15 / 3 = 5
  EXPECT_EQ(nearest_name("--random-resized", flags), flags[0]);  // 5 off, 16 / 3 = 5
}

}  // namespace
}  // namespace convolt::test
