// cuDNN's answers for an H200 that is not there: every convolution of every model family has plans.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <set>
#include <thread>

#include "conv/cuda_provider.h"
#include "conv/described_device.h"
#include "convolt/models.h"
#include "graph/lower.h"
#include "graph/passes/fusion.h"

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
  // The first as it is, for f32, and over blocks of pixels.
  Program program = lower(graph, {.batch = batch, .dtype = DType::f16});
  const auto note = [&](const Op& op) {
    if (const auto* conv = std::get_if<ConvAttrs>(&op.attrs)) found.push_back(conv->desc.geometry);
  };
  for (const Op& op : program.step) note(op);
  lay_out_stem(program, {*make_described_provider(described_device("h200"))}, false);
  for (const Op& op : program.step)
    if (op.in.size() > 1 && op.in[0] == program.step[0].out[0]) note(op);
  return found;
}

// What cuDNN offers for one convolution, in every pass and type.
struct Offer {
  std::string model;
  ConvGeometry geometry;
  int plans = 0;
  PlanReport largest;  // the first choice that wants the largest workspace
  std::string largest_of;
  std::vector<std::string> complaints;
};

void ask(const std::string& device, Offer& offer) {
  for (const ConvPass pass : kPasses)
    for (const DType dtype : kTypes) {
      const std::string what =
          offer.geometry.to_string() + " " + kPassNames[static_cast<int>(pass)] + " " + std::string(name_of(dtype));
      const auto plans = deviceless_plans({.pass = pass, .geometry = offer.geometry, .dtype = dtype}, device);
      if (plans.empty()) {
        offer.complaints.push_back(what + ": no plan");
        continue;
      }
      ++offer.plans;
      if (std::none_of(plans.begin(), plans.end(), [](const PlanReport& p) { return p.repeatable; }))
        offer.complaints.push_back(what + ": no repeatable plan");
      if (plans.front().workspace_bytes > int64_t{512} << 20)
        offer.complaints.push_back(what + ": the first choice wants more than 512 MiB");
      if (plans.front().workspace_bytes >= offer.largest.workspace_bytes) {
        offer.largest = plans.front();
        offer.largest_of = what;
      }
    }
}

// Every shape once, under the first model that has it.
std::vector<Offer> distinct_convolutions() {
  std::vector<Offer> found;
  std::set<std::string> seen;
  for (const ModelInfo& model : models())
    for (const ConvGeometry& g : convolutions(model, model.size >= 224 ? 64 : 128))
      if (seen.insert(g.to_string()).second) found.push_back({.model = std::string(model.name), .geometry = g});
  return found;
}

TEST_F(DevicelessTest, EveryConvolutionOfEveryModelHasPlans) {
  const std::string device = h200();
  std::vector<Offer> offers = distinct_convolutions();
  ASSERT_GE(offers.size(), 60U);
  std::atomic<size_t> next{0};
  const auto work = [&] {  // thousands of questions, each answered on one core
    for (size_t i = next++; i < offers.size(); i = next++) ask(device, offers[i]);
  };
  std::thread second(work);
  work();
  second.join();

  std::printf("%-20s %12s %6s %14s   %s\n", "model", "new shapes", "plans", "of at most MB", "wanted by");
  for (size_t i = 0; i < offers.size();) {
    const Offer* largest = &offers[i];
    size_t end = i;
    int plans = 0;
    for (; end < offers.size() && offers[end].model == offers[i].model; ++end) {
      plans += offers[end].plans;
      if (offers[end].largest.workspace_bytes >= largest->largest.workspace_bytes) largest = &offers[end];
      EXPECT_THAT(offers[end].complaints, testing::IsEmpty());
    }
    std::printf("%-20s %12zu %6d %14.1f   %s\n", offers[i].model.c_str(), end - i, plans,
                static_cast<double>(largest->largest.workspace_bytes) / 1e6, largest->largest_of.c_str());
    i = end;
  }
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

std::vector<std::string> names_of(const std::vector<PlanReport>& plans) {
  std::vector<std::string> names;
  for (const PlanReport& p : plans) names.push_back(p.name);
  return names;
}

// Mode B only adds: for many shapes its first plans are others than mode A's.
TEST_F(DevicelessTest, ModeBAddsPlansThatModeADoesNotName) {
  const ConvGeometry strided{.n = 128, .in_h = 28, .in_w = 28, .in_c = 256, .out_c = 512, .stride_h = 2, .stride_w = 2};
  int questions = 0, richer = 0, added = 0;
  for (const ConvGeometry& g : {square(128, 64, 56), strided})
    for (const ConvPass pass : kPasses)
      for (const DType dtype : kTypes) {
        const ConvDesc desc{.pass = pass, .geometry = g, .dtype = dtype};
        const auto usual = names_of(deviceless_plans(desc, h200()));
        auto all = names_of(deviceless_plans(desc, h200(), Heuristics::a_and_b));
        ASSERT_GE(all.size(), usual.size());
        EXPECT_TRUE(std::equal(usual.begin(), usual.end(), all.begin())) << g.to_string();
        ++questions;
        richer += all.size() > usual.size() ? 1 : 0;
        added += static_cast<int>(all.size() - usual.size());
        std::sort(all.begin(), all.end());
        EXPECT_EQ(std::adjacent_find(all.begin(), all.end()), all.end()) << g.to_string();
      }
  std::printf("mode B adds %d plans to %d of %d questions\n", added, richer, questions);
  EXPECT_GT(richer, 0);
}

TEST_F(DevicelessTest, BiasAndActivationAreFusedInFloat32) {
  for (const ConvEpilogue epilogue : {ConvEpilogue::bias, ConvEpilogue::bias_relu, ConvEpilogue::bias_relu6})
    EXPECT_FALSE(deviceless_plans({.geometry = square(8, 64, 14), .epilogue = epilogue}, h200()).empty())
        << static_cast<int>(epilogue);
}

TEST_F(DevicelessTest, FusionsThatAreNotOfferedHaveNoPlans) {
  const ConvGeometry g = square(8, 64, 14);
  EXPECT_TRUE(deviceless_plans({.geometry = g, .epilogue = ConvEpilogue::stats}, h200()).empty());
  EXPECT_TRUE(
      deviceless_plans({.pass = ConvPass::dgrad, .geometry = g, .epilogue = ConvEpilogue::bias}, h200()).empty());
  EXPECT_TRUE(deviceless_plans({.geometry = g, .dtype = DType::f16, .prologue = ConvPrologue::scale_bias_relu}, h200())
                  .empty());
}

TEST_F(DevicelessTest, ADescriptionThatIsNoneIsAFormatError) {
  const ConvDesc desc{.geometry = square(8, 64, 14)};
  EXPECT_THROW(deviceless_plans(desc, "{}"), FormatError);
  EXPECT_THROW(deviceless_plans(desc, "{\"deviceVer\":900}"), FormatError);
}

}  // namespace
}  // namespace convolt::test
