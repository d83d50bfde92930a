#include "sgd.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "kernel_test.h"
#include "reference/sgd.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

using Vector = std::vector<double>;

// dtype() is the gradient's.
class SgdTest : public OpTest {};

// A parameter group of several tensors on the device, with the tables that the kernels read.
class Group {
public:
  Group(Context& context, DType gradient_dtype, const std::vector<int64_t>& sizes, DType copy_dtype = DType::f32)
      : context_(&context) {
    std::vector<OptimizerTensor> tensors;
    std::vector<OptimizerTile> tiles;
    for (const int64_t n : sizes) {
      const auto seed = static_cast<uint64_t>(n);
      weights.push_back(std::make_unique<DeviceTensor>(context, DType::f32, Shape{n}, random_values(n, seed)));
      moments.push_back(
          std::make_unique<DeviceTensor>(context, DType::f32, Shape{n}, Vector(weights.back()->values().size())));
      gradients.push_back(
          std::make_unique<DeviceTensor>(context, gradient_dtype, Shape{n}, random_values(n, seed + 1)));
      copies.push_back(std::make_unique<DeviceTensor>(context, copy_dtype, Shape{n}));
      for (int64_t first = 0; first < n; first += kOptimizerTile)
        tiles.push_back({static_cast<int32_t>(tensors.size()), first});
      tensors.push_back({.weight = weights.back()->as<float>(),
                         .moment = moments.back()->as<float>(),
                         .gradient = gradients.back()->tensor().data,
                         .copy = copy_dtype == DType::f32 ? nullptr : copies.back()->tensor().data,
                         .elements = n,
                         .gradient_dtype = gradient_dtype,
                         .copy_dtype = copy_dtype});
    }
    tensors_ = std::make_unique<DeviceArray<OptimizerTensor>>(context, tensors);
    tiles_ = std::make_unique<DeviceArray<OptimizerTile>>(context, tiles);
    StepInput in;
    in.learning_rate[2] = 0.125F;
    input = std::make_unique<DeviceArray<StepInput>>(context, std::vector{in});
    args = {.tensors = tensors_->get(),
            .tiles = tiles_->get(),
            .tile_count = static_cast<int64_t>(tiles.size()),
            .group = 2,
            .input = input->get()};
    set_status({});
  }

  void set_status(const StepStatus& value) {
    status = std::make_unique<DeviceArray<StepStatus>>(*context_, std::vector{value});
    args.status = status->get();
  }
  void step() const {
    run(*context_, [&](Stream s) { sgd_step(s, args); });
  }
  int32_t check() const {
    const DeviceTensor flags(*context_, DType::i32, {args.tile_count});
    run(*context_, [&](Stream s) { check_gradients(s, args, flags.as<int32_t>(), status->get()); });
    flags.check_guards();
    return status->value().skip;
  }
  void check_guards() const {
    for (const auto* list : {&weights, &moments, &gradients, &copies})
      for (const auto& t : *list) t->check_guards();
  }

  std::vector<std::unique_ptr<DeviceTensor>> weights, moments, gradients, copies;
  std::unique_ptr<DeviceArray<StepInput>> input;
  std::unique_ptr<DeviceArray<StepStatus>> status;
  SgdArgs args;

private:
  Context* context_;
  std::unique_ptr<DeviceArray<OptimizerTensor>> tensors_;
  std::unique_ptr<DeviceArray<OptimizerTile>> tiles_;
};

// Sizes around a packet and around a tile.
const std::vector<int64_t> kSizes{1, 7, 8, 9, 2047, 2048, 2049, 5000};

// w = 1, g = 1, rate 1/8, momentum 1/2: v = 1, w = 7/8; then v = 3/2, w = 11/16.
TEST_P(SgdTest, ByHand) {
  Group group(ctx(), dtype(), {1});
  group.weights[0]->set({1});
  group.gradients[0]->set({1});
  group.args.momentum = 0.5F;
  group.step();
  EXPECT_EQ(group.weights[0]->values(), Vector{0.875});
  EXPECT_EQ(group.moments[0]->values(), Vector{1});
  group.step();
  EXPECT_EQ(group.weights[0]->values(), Vector{0.6875});
  EXPECT_EQ(group.moments[0]->values(), Vector{1.5});
}

TEST_P(SgdTest, AgainstReference) {
  const reference::Sgd kinds[] = {{0.125, 0.9, 0, false}, {0.125, 0.9, 0.01, true}, {0.125, 0, 0.1, false}};
  for (const reference::Sgd& sgd : kinds) {
    Group group(ctx(), dtype(), kSizes);
    group.args.momentum = static_cast<float>(sgd.momentum);
    group.args.weight_decay = static_cast<float>(sgd.weight_decay);
    group.args.nesterov = sgd.nesterov;
    std::vector<Vector> w, v;
    for (const auto& t : group.weights) {
      w.push_back(t->values());
      v.emplace_back(w.back().size());
    }
    for (uint64_t step = 0; step < 3; ++step) {
      for (size_t i = 0; i < w.size(); ++i) {
        const Vector g = rounded(random_values(static_cast<int64_t>(w[i].size()), 100 * step + i), dtype());
        group.gradients[i]->set(g);
        sgd.step(w[i], v[i], g);
      }
      group.step();
    }
    for (size_t i = 0; i < w.size(); ++i) {
      expect_near(group.weights[i]->values(), w[i], 1e-6, 0, "weights");
      expect_near(group.moments[i]->values(), v[i], 1e-6, 0, "moments");
    }
    group.check_guards();
  }
}

TEST_P(SgdTest, CopiesFollowTheWeights) {
  for (const DType copy : {DType::bf16, DType::f16}) {
    Group group(ctx(), dtype(), kSizes, copy);
    group.step();
    for (size_t i = 0; i < kSizes.size(); ++i)
      EXPECT_EQ(group.copies[i]->values(), rounded(group.weights[i]->values(), copy)) << kSizes[i];
    group.check_guards();
  }
}

// Gradients that are 1024 times too large, and a loss scale of 1024: a power of two, so the bits agree.
TEST_P(SgdTest, LossScaleIsTakenOut) {
  Group plain(ctx(), dtype(), {100}), scaled(ctx(), dtype(), {100});
  Vector g = rounded(random_values(100, 5, 0.01, 1), dtype());
  plain.gradients[0]->set(g);
  for (double& v : g) v *= 1024;
  scaled.gradients[0]->set(g);
  scaled.set_status({.loss_scale = 1024});
  plain.step();
  scaled.step();
  EXPECT_EQ(scaled.weights[0]->values(), plain.weights[0]->values());
  EXPECT_EQ(scaled.moments[0]->values(), plain.moments[0]->values());
}

TEST_P(SgdTest, WritesNothingAfterABadStepOrOnSkip) {
  for (const StepStatus& status : {StepStatus{.first_bad_step = 0}, StepStatus{.skip = 1}}) {
    Group group(ctx(), dtype(), {1, 2049}, DType::bf16);
    std::vector<Vector> before;
    for (const auto* list : {&group.weights, &group.moments, &group.copies})
      for (const auto& t : *list) before.push_back(t->values());
    group.set_status(status);
    group.step();
    std::vector<Vector> after;
    for (const auto* list : {&group.weights, &group.moments, &group.copies})
      for (const auto& t : *list) after.push_back(t->values());
    for (size_t i = 0; i < before.size(); ++i) expect_near(after[i], before[i], 0, 0, "tensor " + std::to_string(i));
  }
}

TEST_P(SgdTest, GroupOutsideTheTableIsAnError) {
  Group group(ctx(), dtype(), {1});
  group.args.group = StepInput::kMaxGroups;
  EXPECT_THROW(group.step(), UsageError);
}

TEST_P(SgdTest, CheckFindsAnyGradientThatIsNotFinite) {
  Group group(ctx(), dtype(), {3, 2049, 5000});
  EXPECT_EQ(group.check(), 0);
  const std::pair<size_t, size_t> places[] = {{0, 0}, {0, 2}, {1, 0}, {1, 2047}, {1, 2048}, {2, 4093}, {2, 4999}};
  for (const auto& [tensor, element] : places)
    for (const double bad : {static_cast<double>(NAN), static_cast<double>(INFINITY), -static_cast<double>(INFINITY)}) {
      const Vector good = group.gradients[tensor]->values();
      Vector g = good;
      g[element] = bad;
      group.gradients[tensor]->set(g);
      group.set_status({});
      EXPECT_EQ(group.check(), 1) << tensor << ", " << element << ": " << bad;
      const PhasesBackwards backwards;
      group.set_status({});
      EXPECT_EQ(group.check(), 1) << tensor << ", " << element << ": " << bad;
      group.gradients[tensor]->set(good);
    }
  // What another group has found stays found.
  group.set_status({.skip = 1});
  EXPECT_EQ(group.check(), 1);
}

TEST_P(SgdTest, LargestFiniteGradientsAreFine) {
  Group group(ctx(), dtype(), {9});
  const double largest = dtype() == DType::f16 ? 65504 : dtype() == DType::bf16 ? 0x1.fep127 : 0x1.fffffep127;
  group.gradients[0]->set(Vector(9, largest));
  EXPECT_EQ(group.check(), 0);
}

INSTANTIATE_OP_TEST(SgdTest);

class LossScaleTest : public OpTest {
protected:
  StepStatus update(const StepStatus& before) const {
    const DeviceArray<StepStatus> status(ctx(), {before});
    run(ctx(), [&](Stream s) { update_loss_scale(s, status.get()); });
    return status.value();
  }
};

TEST_P(LossScaleTest, HalvesOnSkip) {
  const StepStatus s = update({.loss_scale = 1024, .good_steps = 50, .skip = 1, .skipped_steps = 3});
  EXPECT_EQ(s.loss_scale, 512);
  EXPECT_EQ(s.good_steps, 0);
  EXPECT_EQ(s.skip, 0);
  EXPECT_EQ(s.skipped_steps, 4);
  EXPECT_EQ(update({.loss_scale = 1, .skip = 1}).loss_scale, 1);
}

TEST_P(LossScaleTest, DoublesAfter2000GoodSteps) {
  EXPECT_EQ(update({.loss_scale = 8, .good_steps = 1998}).loss_scale, 8);
  EXPECT_EQ(update({.loss_scale = 8, .good_steps = 1998}).good_steps, 1999);
  EXPECT_EQ(update({.loss_scale = 8, .good_steps = 1999}).loss_scale, 16);
  EXPECT_EQ(update({.loss_scale = 8, .good_steps = 1999}).good_steps, 0);
  EXPECT_EQ(update({.loss_scale = 0x1p24F, .good_steps = 1999}).loss_scale, 0x1p24F);
}

TEST_P(LossScaleTest, RestsAfterABadStep) {
  const StepStatus s = update({.first_bad_step = 4, .loss_scale = 8, .good_steps = 1999, .skip = 1});
  EXPECT_EQ(s.loss_scale, 8);
  EXPECT_EQ(s.skipped_steps, 0);
}

INSTANTIATE_TEST_SUITE_P(Op, LossScaleTest,
                         testing::Combine(testing::Values(Device::cpu(), Device::cuda()), testing::Values(DType::f32)),
                         op_test_name);

}  // namespace
}  // namespace convolt::test
