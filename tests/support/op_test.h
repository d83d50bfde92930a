// One test body for each op, instantiated for every device and floating dtype.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <tuple>

#include "support/device.h"

namespace convolt::test {

class OpTest : public testing::TestWithParam<std::tuple<Device, DType>> {
protected:
  // Without a GPU the cuda cases are skipped, visibly, never passed.
  void SetUp() override {
    if (std::get<0>(GetParam()).is_cuda() && cuda_device_count() == 0) GTEST_SKIP() << cuda_unavailable_reason();
  }
  Context& ctx() const { return context_of(std::get<0>(GetParam())); }
  DType dtype() const { return std::get<1>(GetParam()); }
};

inline std::string op_test_name(const testing::TestParamInfo<std::tuple<Device, DType>>& info) {
  return (std::get<0>(info.param).is_cuda() ? "cuda_" : "cpu_") + std::string(name_of(std::get<1>(info.param)));
}

}  // namespace convolt::test

// Case names read Op/Suite.Test/cpu_bf16; rerun one with --gtest_filter.
#define INSTANTIATE_OP_TEST(Suite)                                                                 \
  INSTANTIATE_TEST_SUITE_P(Op, Suite,                                                              \
                           testing::Combine(testing::Values(Device::cpu(), Device::cuda()),        \
                                            testing::Values(DType::f32, DType::bf16, DType::f16)), \
                           ::convolt::test::op_test_name)
