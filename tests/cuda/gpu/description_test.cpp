// What cuDNN says of the card: the description that plans are made from where there is none.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "conv/cuda_provider.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

// Kept in the file that CONVOLT_DEVICE_DESCRIPTION names, for machines without this card.
TEST(DeviceDescription, OfTheCardGivesThePlansThatTheCardGives) {
  if (cuda_device_count() == 0) GTEST_SKIP() << cuda_unavailable_reason();
  context_of(Device::cuda());  // makes the device the current one
  const std::string description = device_description();
  ASSERT_FALSE(description.empty());
  if (const char* path = std::getenv("CONVOLT_DEVICE_DESCRIPTION")) {
    std::ofstream file(path, std::ios::binary);
    ASSERT_TRUE((file << description).flush()) << path;
  }
  ConvDesc desc{};
  desc.geometry = {.n = 8, .in_h = 14, .in_w = 14, .in_c = 64, .out_c = 64, .kernel_h = 3, .kernel_w = 3, .pad = 1};
  desc.dtype = DType::f16;
  const auto offered = make_cudnn()->candidates(desc, Heuristics::a);
  const auto described = deviceless_plans(desc, description);
  ASSERT_FALSE(offered.empty());
  ASSERT_EQ(offered.size(), described.size());
  for (size_t i = 0; i < offered.size(); ++i) EXPECT_EQ(offered[i]->name(), described[i].name) << i;
}

}  // namespace
}  // namespace convolt::test
