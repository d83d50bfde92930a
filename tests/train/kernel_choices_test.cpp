// The kernels that a checkpoint names, and what a training that goes on makes of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "conv/autotune.h"
#include "support/cache_home.h"
#include "train/trial.h"

namespace convolt::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class KernelChoicesTest : public testing::Test {
protected:
  KernelChoicesTest() {
    options_ = made_options();
    options_.steps = 2;
    options_.output_dir = folder_.path("run");
    observer_.warning = [this](const std::string& message) { warnings_.push_back(message); };
  }
  void train() { Trial().train(data_, &validation_, options_, observer_); }
  std::string last() const { return folder_.path("run/last.safetensors"); }
  TrainingState state() {
    Trial t;
    Optimizer optimizer(*t.params, options_.optimizer);
    return load_training(last(), *t.params, optimizer);
  }
  // Writes the checkpoint again with other kernels, and goes on from it.
  void go_on_with(const KernelChoices& kernels) {
    Trial t;
    Optimizer optimizer(*t.params, options_.optimizer);
    TrainingState state = load_training(last(), *t.params, optimizer);
    state.kernels = kernels;
    save_checkpoint(last(), *t.params, made_card(), &optimizer, &state);
    options_.resume = last();
    ++options_.steps;
    train();
  }

  CacheHome cache_;
  TempFolder folder_;
  MadeSet data_{32}, validation_{16};
  TrainOptions options_;
  TrainObserver observer_;
  std::vector<std::string> warnings_;
};

// The linear layer's: one with packed weights and one without.
constexpr const char* kShape = "fprop linear n16 288 -> 3, f32, bias, weights packed each step";

TEST_F(KernelChoicesTest, TrainingAndValidationAreWrittenDown) {
  train();
  const KernelChoices kernels = state().kernels;
  ASSERT_TRUE(kernels.contains(kShape));
  EXPECT_TRUE(kernels.contains("fprop linear n16 288 -> 3, f32, bias, weights packed once"));
  EXPECT_TRUE(kernels.contains("wgrad n16 12x12x1 -> 8, 3x3 s1 p1, f32, weights packed each step"));
}

TEST_F(KernelChoicesTest, ATrainingThatGoesOnKeepsThem) {
  train();
  KernelChoices kernels = state().kernels;
  Context& context = context_of(Device::cpu());
  const LinearDesc desc{.rows = 16, .in = 288, .out = 3, .epilogue = ConvEpilogue::bias};
  const auto candidates = context.conv().candidates(desc);
  ASSERT_EQ(candidates.size(), 2U);
  const std::string other = candidates[1]->name() + (candidates[1]->packed_bytes() > 0 ? ", packed weights" : "");
  ASSERT_NE(kernels.at(kShape), other);
  kernels[kShape] = other;
  go_on_with(kernels);
  EXPECT_EQ(state().kernels, kernels);
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(KernelChoicesTest, OneThatIsGoneIsNamedAndReplaced) {
  train();
  const KernelChoices before = state().kernels;
  KernelChoices kernels = before;
  kernels[kShape] = "a kernel of another version";
  go_on_with(kernels);
  EXPECT_EQ(state().kernels, before);
  EXPECT_THAT(warnings_,
              ElementsAre(HasSubstr("the first being 'a kernel of another version' of " + std::string(kShape))));
}

TEST_F(KernelChoicesTest, WithNoneNamedItChoosesForItself) {
  train();
  go_on_with({});
  EXPECT_TRUE(state().kernels.contains(kShape));
  EXPECT_THAT(warnings_, IsEmpty());
}

// Whatever the timings say by then.
TEST_F(KernelChoicesTest, ATunedTrainingResumesToTheSameBits) {
  const MadeSet data(64), validation(16);
  TrainOptions whole = made_options();
  whole.log_every = 1;
  whole.epochs = 2;  // the first of which ends with a reading that is waited for: then at the latest it is interrupted
  whole.kernels = {.autotune = Autotune::quick, .deterministic = true};
  whole.output_dir = folder_.path("whole");
  Trial().train(data, &validation, whole);

  TrainOptions part = whole;
  part.output_dir = folder_.path("run");
  std::atomic<int> interrupt{0};
  observer_.progress = [&](const TrainProgress&) { interrupt = 2; };
  ASSERT_TRUE(Trial().train(data, &validation, part, observer_, &interrupt).interrupted);

  const TuningCache cache;
  TuningTable turned = cache.read();
  for (auto& [key, timings] : turned)
    for (auto& [kernel, timing] : timings) timing.nanoseconds = 1'000'000'000'000 / timing.nanoseconds;
  cache.add(turned);
  part.resume = last();
  Trial().train(data, &validation, part);
  EXPECT_TRUE(contents(last()) == contents(folder_.path("whole/last.safetensors")));
}

}  // namespace
}  // namespace convolt::test
