// cuDNN's answers for an H200 that is not there: every convolution of every model family has plans.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <set>

#include "conv/cuda_provider.h"

namespace convolt::test {
namespace {

constexpr DType kTypes[] = {DType::f32, DType::bf16, DType::f16};
constexpr ConvPass kPasses[] = {ConvPass::fprop, ConvPass::dgrad, ConvPass::wgrad};
const char* const kPassNames[] = {"fprop", "dgrad", "wgrad"};

std::string h200() {
  std::ifstream file(CONVOLT_SOURCE_DIR "/tests/cuda/h200.json", std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class DevicelessTest : public testing::Test {
protected:
  void SetUp() override {
    try {
      std::printf("%s\n", cudnn_version().c_str());
    } catch (const DeviceError& e) {
      GTEST_SKIP() << e.what();
    }
  }
};

// Square pictures and kernels.
struct Row {
  int64_t in, out, size;
  int kernel, stride, padding;
  int64_t groups = 1;
};

ConvGeometry geometry(int64_t batch, const Row& r) {
  return {.n = batch,
          .in_h = r.size,
          .in_w = r.size,
          .in_c = r.in,
          .out_c = r.out,
          .kernel_h = r.kernel,
          .kernel_w = r.kernel,
          .stride_h = r.stride,
          .stride_w = r.stride,
          .pad_h = r.padding,
          .pad_w = r.padding,
          .groups = r.groups};
}

struct Family {
  const char* name;
  int64_t batch;
  std::vector<Row> rows;
};

std::vector<Row> mobilenet_v2() {
  std::vector<Row> rows = {{3, 32, 224, 3, 2, 1}, {320, 1280, 7, 1, 1, 0}};
  struct Stage {
    int64_t expansion, out, repeats;
    int stride;
  };
  int64_t in = 32, size = 112;
  for (const Stage& s :
       {Stage{1, 16, 1, 1}, {6, 24, 2, 2}, {6, 32, 3, 2}, {6, 64, 4, 2}, {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}})
    for (int64_t i = 0; i < s.repeats; ++i) {
      const int stride = i == 0 ? s.stride : 1;
      const int64_t middle = in * s.expansion;
      if (s.expansion != 1) rows.push_back({in, middle, size, 1, 1, 0});
      rows.push_back({middle, middle, size, 3, stride, 1, middle});
      size /= stride;
      rows.push_back({middle, s.out, size, 1, 1, 0});
      in = s.out;
    }
  return rows;
}

// Torchvision's: the stride sits in the 3x3.
std::vector<Row> bottleneck_resnet() {
  std::vector<Row> rows = {{3, 64, 224, 7, 2, 3}};
  int64_t in = 64, size = 56;
  for (const int64_t width : {64, 128, 256, 512}) {
    const int stride = width == 64 ? 1 : 2;
    const int64_t out = size / stride;
    for (const Row& r : {Row{in, width, size, 1, 1, 0},
                         {width, width, size, 3, stride, 1},
                         {width, 4 * width, out, 1, 1, 0},
                         {in, 4 * width, size, 1, stride, 0},
                         {4 * width, width, out, 1, 1, 0},
                         {width, width, out, 3, 1, 1}})
      rows.push_back(r);
    in = 4 * width;
    size = out;
  }
  return rows;
}

std::vector<Family> families() {
  return {
      {"lenet", 128, {{1, 6, 28, 5, 1, 2}, {6, 16, 14, 5, 1, 0}, {3, 6, 32, 5, 1, 0}, {1, 6, 32, 5, 1, 0}}},
      {"resnet20/32/44/56/110",
       128,
       {{3, 16, 32, 3, 1, 1},
        {16, 16, 32, 3, 1, 1},
        {16, 32, 32, 3, 2, 1},
        {16, 32, 32, 1, 2, 0},
        {32, 32, 16, 3, 1, 1},
        {32, 64, 16, 3, 2, 1},
        {32, 64, 16, 1, 2, 0},
        {64, 64, 8, 3, 1, 1}}},
      {"resnet18/34",
       64,
       {{3, 64, 224, 7, 2, 3},
        {64, 64, 56, 3, 1, 1},
        {64, 128, 56, 3, 2, 1},
        {64, 128, 56, 1, 2, 0},
        {128, 128, 28, 3, 1, 1},
        {128, 256, 28, 3, 2, 1},
        {128, 256, 28, 1, 2, 0},
        {256, 256, 14, 3, 1, 1},
        {256, 512, 14, 3, 2, 1},
        {256, 512, 14, 1, 2, 0},
        {512, 512, 7, 3, 1, 1}}},
      {"resnet50/101/152", 64, bottleneck_resnet()},
      {"mobilenet_v2", 64, mobilenet_v2()},
  };
}

TEST_F(DevicelessTest, EveryConvolutionOfEveryModelHasPlans) {
  const std::string device = h200();
  std::set<std::string> seen;
  std::printf("%-24s %7s %6s %14s %22s\n", "models", "shapes", "plans", "of at most MB", "most wanted by");
  for (const Family& family : families()) {
    int shapes = 0, descriptions = 0, with_plans = 0;
    PlanReport largest;
    std::string largest_of;
    for (const Row& row : family.rows) {
      const ConvGeometry g = geometry(family.batch, row);
      if (!seen.insert(g.to_string()).second) continue;
      ++shapes;
      for (const ConvPass pass : kPasses)
        for (const DType dtype : kTypes) {
          const std::string what =
              g.to_string() + " " + kPassNames[static_cast<int>(pass)] + " " + std::string(name_of(dtype));
          const auto plans = deviceless_plans({.pass = pass, .geometry = g, .dtype = dtype}, device);
          ++descriptions;
          ASSERT_FALSE(plans.empty()) << what;
          ++with_plans;
          EXPECT_TRUE(std::any_of(plans.begin(), plans.end(), [](const PlanReport& p) { return p.repeatable; }))
              << what;
          EXPECT_LE(plans.front().workspace_bytes, int64_t{512} << 20) << what;
          if (plans.front().workspace_bytes >= largest.workspace_bytes) {
            largest = plans.front();
            largest_of = what;
          }
        }
    }
    std::printf("%-24s %7d %6d %14.1f   %s\n", family.name, shapes, with_plans,
                static_cast<double>(largest.workspace_bytes) / 1e6, largest_of.c_str());
    EXPECT_EQ(descriptions, 9 * shapes);
  }
}

TEST_F(DevicelessTest, Float32StaysFloat32UnlessTf32IsAsked) {
  ConvDesc desc{.geometry = geometry(128, {64, 64, 56, 3, 1, 1}), .dtype = DType::f32};
  const auto strict = deviceless_plans(desc, h200());
  desc.tf32 = true;
  const auto rounded = deviceless_plans(desc, h200());
  ASSERT_FALSE(strict.empty());
  ASSERT_FALSE(rounded.empty());
  // The tensor-core engine that cuDNN puts first is not among the strict ones.
  EXPECT_TRUE(std::none_of(strict.begin(), strict.end(), [&](const PlanReport& p) {
    return p.name == rounded.front().name;
  })) << rounded.front().name;
}

TEST_F(DevicelessTest, DilationGroupsAndUnevenSizesHavePlans) {
  ConvGeometry g{.n = 2, .in_h = 19, .in_w = 13, .in_c = 12, .out_c = 18, .kernel_h = 3, .kernel_w = 5};
  g.stride_h = 2;
  g.pad_w = 2;
  g.dilation_h = 2;
  g.groups = 3;
  for (const ConvPass pass : kPasses)
    for (const DType dtype : kTypes)
      EXPECT_FALSE(deviceless_plans({.pass = pass, .geometry = g, .dtype = dtype}, h200()).empty())
          << kPassNames[static_cast<int>(pass)] << " " << name_of(dtype);
}

TEST_F(DevicelessTest, BiasAndActivationAreFusedInFloat32) {
  for (const ConvEpilogue epilogue : {ConvEpilogue::bias, ConvEpilogue::bias_relu, ConvEpilogue::bias_relu6})
    EXPECT_FALSE(
        deviceless_plans({.geometry = geometry(8, {64, 64, 14, 3, 1, 1}), .epilogue = epilogue}, h200()).empty())
        << static_cast<int>(epilogue);
}

TEST_F(DevicelessTest, FusionsThatAreNotOfferedHaveNoPlans) {
  const ConvGeometry g = geometry(8, {64, 64, 14, 3, 1, 1});
  EXPECT_TRUE(deviceless_plans({.geometry = g, .prologue = ConvPrologue::scale_bias_relu}, h200()).empty());
  EXPECT_TRUE(deviceless_plans({.geometry = g, .epilogue = ConvEpilogue::stats}, h200()).empty());
  EXPECT_TRUE(
      deviceless_plans({.pass = ConvPass::dgrad, .geometry = g, .epilogue = ConvEpilogue::bias}, h200()).empty());
}

TEST_F(DevicelessTest, ADescriptionThatIsNoneIsAFormatError) {
  const ConvDesc desc{.geometry = geometry(8, {64, 64, 14, 3, 1, 1})};
  EXPECT_THROW(deviceless_plans(desc, "{}"), FormatError);
  EXPECT_THROW(deviceless_plans(desc, "{\"deviceVer\":900}"), FormatError);
}

}  // namespace
}  // namespace convolt::test
