// A tuner over kernels that are right or wrong and quick or slow as they are told to be.
#pragma once

#include <gtest/gtest.h>

#include "conv/autotune.h"
#include "conv/fake_provider.h"
#include "support/device.h"
#include "support/temp_folder.h"

namespace convolt::test {

constexpr int64_t kMs = 1'000'000;

inline ConvDesc small_conv(ConvPass pass = ConvPass::fprop) {
  return {.pass = pass,
          .geometry = {.n = 2, .in_h = 6, .in_w = 6, .in_c = 8, .out_c = 8, .kernel_h = 3, .kernel_w = 3, .pad = 1}};
}

class AutotuneTest : public testing::Test {
protected:
  AutotuneTest() {
    options_.autotune = Autotune::quick;
    options_.warning = [this](const std::string& message) { warnings_.push_back(message); };
  }

  TuningTools tools() { return {TuningCache(folder_.path("cache/tuning-1.txt")), provider_.device.clock()}; }
  // By a tuner of its own, as another process would; "" where there is no kernel.
  template <class Desc>
  std::string choice(const Desc& desc, bool training = true) {
    Autotuner tuner(context_, provider_, options_, training, tools());
    const auto [kernel, origin] = tuner.choose(desc);
    origin_ = origin;
    choices_ = tuner.choices();
    tuner.finish();
    return kernel ? kernel->name() : "";
  }
  int runs() const {
    int all = 0;
    for (const auto& [name, count] : provider_.device.runs) all += count;
    return all;
  }

  Context& context_ = context_of(Device::cpu());
  TempFolder folder_;
  FakeProvider provider_;
  KernelOptions options_;
  std::vector<std::string> warnings_;
  Autotuner::Origin origin_ = Autotuner::Origin::order;
  KernelChoices choices_;
};

}  // namespace convolt::test
