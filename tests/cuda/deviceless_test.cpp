// cuDNN's answers for an H200 that is not there: every convolution of every model family has plans.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <set>

#include "conv/cuda_provider.h"
#include "convolt/models.h"
#include "graph/lower.h"

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

// 3x3 on square pictures, as many channels out as in.
ConvGeometry square(int64_t batch, int64_t channels, int64_t size) {
  return {.n = batch,
          .in_h = size,
          .in_w = size,
          .in_c = channels,
          .out_c = channels,
          .kernel_h = 3,
          .kernel_w = 3,
          .pad = 1};
}

// The convolutions of a model as the planner lowers them.
std::vector<ConvGeometry> convolutions(const ModelInfo& model, int batch) {
  Graph graph;
  build_model(graph, model.name, {.classes = 10, .channels = model.recipe == ModelInfo::Recipe::digits ? 1 : 3});
  std::vector<ConvGeometry> found;
  for (const Op& op : lower(graph, {.batch = batch}).step)
    if (const auto* conv = std::get_if<ConvAttrs>(&op.attrs)) found.push_back(conv->desc.geometry);
  return found;
}

TEST_F(DevicelessTest, EveryConvolutionOfEveryModelHasPlans) {
  const std::string device = h200();
  std::set<std::string> seen;
  std::printf("%-14s %12s %6s %14s %22s\n", "model", "new shapes", "plans", "of at most MB", "most wanted by");
  for (const ModelInfo& model : models()) {
    int shapes = 0, with_plans = 0;
    PlanReport largest;
    std::string largest_of;
    for (const ConvGeometry& g : convolutions(model, model.size >= 224 ? 64 : 128)) {
      if (!seen.insert(g.to_string()).second) continue;
      ++shapes;
      for (const ConvPass pass : kPasses)
        for (const DType dtype : kTypes) {
          const std::string what =
              g.to_string() + " " + kPassNames[static_cast<int>(pass)] + " " + std::string(name_of(dtype));
          const auto plans = deviceless_plans({.pass = pass, .geometry = g, .dtype = dtype}, device);
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
    std::printf("%-14s %12d %6d %14.1f   %s\n", std::string(model.name).c_str(), shapes, with_plans,
                static_cast<double>(largest.workspace_bytes) / 1e6, largest_of.c_str());
  }
  EXPECT_GE(seen.size(), 60U);
}

TEST_F(DevicelessTest, Float32StaysFloat32UnlessTf32IsAsked) {
  ConvDesc desc{.geometry = square(128, 64, 56), .dtype = DType::f32};
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
  g.pad.left = g.pad.right = 2;
  g.dilation_h = 2;
  g.groups = 3;
  for (const ConvPass pass : kPasses)
    for (const DType dtype : kTypes)
      EXPECT_FALSE(deviceless_plans({.pass = pass, .geometry = g, .dtype = dtype}, h200()).empty())
          << kPassNames[static_cast<int>(pass)] << " " << name_of(dtype);
}

TEST_F(DevicelessTest, BiasAndActivationAreFusedInFloat32) {
  for (const ConvEpilogue epilogue : {ConvEpilogue::bias, ConvEpilogue::bias_relu, ConvEpilogue::bias_relu6})
    EXPECT_FALSE(deviceless_plans({.geometry = square(8, 64, 14), .epilogue = epilogue}, h200()).empty())
        << static_cast<int>(epilogue);
}

TEST_F(DevicelessTest, FusionsThatAreNotOfferedHaveNoPlans) {
  const ConvGeometry g = square(8, 64, 14);
  EXPECT_TRUE(deviceless_plans({.geometry = g, .prologue = ConvPrologue::scale_bias_relu}, h200()).empty());
  EXPECT_TRUE(deviceless_plans({.geometry = g, .epilogue = ConvEpilogue::stats}, h200()).empty());
  EXPECT_TRUE(
      deviceless_plans({.pass = ConvPass::dgrad, .geometry = g, .epilogue = ConvEpilogue::bias}, h200()).empty());
}

TEST_F(DevicelessTest, ADescriptionThatIsNoneIsAFormatError) {
  const ConvDesc desc{.geometry = square(8, 64, 14)};
  EXPECT_THROW(deviceless_plans(desc, "{}"), FormatError);
  EXPECT_THROW(deviceless_plans(desc, "{\"deviceVer\":900}"), FormatError);
}

}  // namespace
}  // namespace convolt::test
