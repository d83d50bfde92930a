// Tuning on a device: no kernel of NVIDIA's libraries is taken for a wrong one, names tell kernels apart, and the
// second start times nothing.
#include <gtest/gtest.h>

#include <set>

#include "conv/autotune.h"
#include "support/cache_home.h"
#include "support/device.h"

namespace convolt::test {
namespace {

class GpuTuning : public testing::TestWithParam<DType> {
protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << cuda_unavailable_reason();
  }
};

std::vector<ConvDesc> convolutions(DType dtype) {
  std::vector<ConvDesc> all;
  for (const ConvPass pass : {ConvPass::fprop, ConvPass::dgrad, ConvPass::wgrad})
    for (const ConvGeometry& g :
         {ConvGeometry{.n = 8, .in_h = 28, .in_w = 28, .in_c = 64, .out_c = 64, .kernel_h = 3, .kernel_w = 3, .pad = 1},
          ConvGeometry{.n = 8, .in_h = 14, .in_w = 14, .in_c = 256, .out_c = 64},  // products too
          ConvGeometry{.n = 4,
          .in_h = 16,
          .in_w = 16,
          .in_c = 32,
          .out_c = 32,
          .kernel_h = 3,
          .kernel_w = 3,
          .stride_h = 2,
          .stride_w = 2,
          .pad = 1,
          .groups = 32}})
      all.push_back({.pass = pass, .geometry = g, .dtype = dtype});
  return all;
}

TEST_P(GpuTuning, AllKernelsAreRightAndTheSecondStartTimesNothing) {
  const CacheHome cache;
  Context& context = context_of(Device::cuda());
  KernelOptions options;
  options.warning = [](const std::string& message) { ADD_FAILURE() << message; };
  const auto choose_all = [&] {
    Autotuner tuner(context, context.conv(), options, true);
    for (const ConvDesc& desc : convolutions(GetParam())) EXPECT_NE(tuner.choose(desc).kernel, nullptr);
    EXPECT_NE(tuner.choose(LinearDesc{.rows = 64, .in = 512, .out = 1000, .dtype = GetParam()}).kernel, nullptr);
    tuner.finish();
    return tuner.choices();
  };
  const KernelChoices first = choose_all();
  const int64_t timed = context.counters().tunings;
  EXPECT_GT(timed, 0);
  EXPECT_EQ(choose_all(), first);
  EXPECT_EQ(context.counters().tunings, timed);
}

TEST_P(GpuTuning, NamesTellKernelsApart) {
  Context& context = context_of(Device::cuda());
  for (const ConvDesc& desc : convolutions(GetParam())) {
    std::set<std::string> names;
    for (const auto& kernel : context.conv().candidates(desc))
      EXPECT_TRUE(names.insert(kernel->name()).second) << kernel->name() << " of " << desc.geometry.to_string();
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, GpuTuning, testing::Values(DType::f32, DType::bf16, DType::f16));

}  // namespace
}  // namespace convolt::test
