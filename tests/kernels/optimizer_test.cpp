#include "optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <sstream>

#include "optimizer_network.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

using Kind = OptimizerKind;

// dtype() is the gradient's.
class OptimizerTest : public OpTest {};

// Sizes around a packet and around a tile, and one of five pieces.
const std::vector<int64_t> kParameters{1, 7, 8, 9, 2047, 2048, 2049, 9000};

// w = 1, g = 1, rate 1/8, momentum 1/2: v = 1, w = 7/8; then v = 3/2, w = 11/16.
TEST_P(OptimizerTest, SgdByHand) {
  Network net(ctx(), {1}, {.momentum = 0.5F}, {.gradient_dtype = dtype()});
  net.weights[0]->set({1});
  net.gradients[0]->set({1});
  net.step();
  EXPECT_EQ(net.weights[0]->values(), Vector{0.875});
  EXPECT_EQ(net.first[0]->values(), Vector{1});
  net.step();
  EXPECT_EQ(net.weights[0]->values(), Vector{0.6875});
  EXPECT_EQ(net.first[0]->values(), Vector{1.5});
  EXPECT_EQ(net.updates(), 2);
}

TEST_P(OptimizerTest, AgainstReference) {
  const reference::Optimizer kinds[] = {
      {.kind = Kind::sgd, .rate = 0.125},
      {.kind = Kind::sgd, .rate = 0.125, .weight_decay = 0.01, .nesterov = true},
      {.kind = Kind::sgd, .rate = 0.125, .momentum = 0, .weight_decay = 0.1},
      {.kind = Kind::adam, .rate = 0.01, .weight_decay = 0.1},
      {.kind = Kind::adamw, .rate = 0.01, .weight_decay = 0.1, .beta1 = 0.8, .beta2 = 0.95, .eps = 1e-3},
      {.kind = Kind::rmsprop, .rate = 0.01, .weight_decay = 0.1},
      {.kind = Kind::rmsprop, .rate = 0.01, .momentum = 0, .alpha = 0.9},
      {.kind = Kind::lars, .rate = 0.5, .weight_decay = 0.01, .trust = 0.05},
      {.kind = Kind::lion, .rate = 0.01, .weight_decay = 0.1, .beta2 = 0.99},
      {.kind = Kind::lamb, .rate = 0.03125, .weight_decay = 0.1, .eps = 1e-6},
      {.kind = Kind::lamb, .rate = 0.03125, .weight_decay = 0.5, .beta1 = 0.8, .beta2 = 0.95, .eps = 1e-3}};
  for (const reference::Optimizer& base : kinds) {
    Network net(ctx(), kParameters, rule_of(base), {.gradient_dtype = dtype()});
    std::vector<Vector> w, m, s;
    for (size_t i = 0; i < kParameters.size(); ++i) {
      w.push_back(net.weights[i]->values());
      m.emplace_back(w[i].size());
      s.emplace_back(w[i].size());
      // Settings of its own for each tensor.
      net.table[i].rate_scale = i % 2 == 0 ? 1.F : 0.5F;
      net.table[i].weight_decay = static_cast<float>(i % 3 == 0 ? 0 : base.weight_decay);
      net.table[i].adapts = i != 4;
    }
    if (base.momentum == 0)
      for (OptimizerTensor& t : net.table) t.moments[base.kind == Kind::sgd ? 0 : 1] = nullptr;
    net.input.learning_rate = static_cast<float>(base.rate);
    for (int64_t step = 0; step < 3; ++step) {
      for (size_t i = 0; i < w.size(); ++i) {
        const auto seed = 100 * static_cast<uint64_t>(step) + i;
        const Vector g = rounded(random_values(kParameters[i], seed, 0.1, 1), dtype());
        net.gradients[i]->set(g);
        reference::Optimizer by = base;
        by.rate = static_cast<double>(net.input.learning_rate * net.table[i].rate_scale);
        by.weight_decay = static_cast<double>(net.table[i].weight_decay);
        by.adapts = net.table[i].adapts;
        by.step(w[i], m[i], s[i], g, step + 1);
      }
      net.step();
    }
    for (size_t i = 0; i < w.size(); ++i) {
      const std::string what =
          "kind " + std::to_string(static_cast<int>(base.kind)) + " of " + std::to_string(kParameters[i]);
      expect_near(net.weights[i]->values(), w[i], 1e-6, 0, "weights, " + what);
      if (net.table[i].moments[0] != nullptr) expect_near(net.first[i]->values(), m[i], 1e-6, 1e-6, "first, " + what);
      if (net.table[i].moments[1] != nullptr) expect_near(net.second[i]->values(), s[i], 1e-6, 1e-6, "second, " + what);
    }
    net.check_guards();
  }
}

// What torch.optim and timm computed from the same gradients (tools/golden/optimizers.py).
TEST_P(OptimizerTest, AgainstTorchAndTimm) {
  std::ifstream file(CONVOLT_SOURCE_DIR "/tests/kernels/golden/optimizers.txt");
  const std::map<std::string, Kind> kinds{{"sgd", Kind::sgd},
                                          {"adam", Kind::adam},
                                          {"adamw", Kind::adamw},
                                          {"rmsprop", Kind::rmsprop},
                                          {"lamb", Kind::lamb}};
  int cases = 0;
  for (std::string line, word; std::getline(file, line); ++cases) {
    std::istringstream words(line);
    std::map<std::string, double> numbers;
    words >> word;
    reference::Optimizer o{.kind = kinds.at(word)};
    while (words >> word && word != ":")
      numbers[word.substr(0, word.find('='))] = std::stod(word.substr(word.find('=') + 1));
    const auto number = [&](const char* name, double otherwise) {
      return numbers.count(name) > 0 ? numbers.at(name) : otherwise;
    };
    o.momentum = number("momentum", 0);
    o.nesterov = number("nesterov", 0) != 0;
    o.beta1 = number("beta1", o.beta1);
    o.beta2 = number("beta2", o.beta2);
    o.alpha = number("alpha", o.alpha);
    o.eps = number("eps", o.eps);
    UpdateRule rule = rule_of(o);
    rule.clip_norm = static_cast<float>(number("clip", 0));
    Network net(ctx(), {11, 6}, rule, {.gradient_dtype = dtype()});
    net.input.learning_rate = static_cast<float>(numbers.at("rate"));
    for (size_t t = 0; t < 2; ++t) {
      Vector w;
      for (int i = 0; i < net.table[t].elements; ++i) w.push_back((i * 37 % 97 - 48) / 64.0);
      net.weights[t]->set(w);
      net.table[t].weight_decay = static_cast<float>(number("wd", 0));
    }
    for (int step = 0; step < 4; ++step) {
      for (size_t t = 0; t < 2; ++t) {
        Vector g;
        for (int i = 0; i < net.table[t].elements; ++i) g.push_back(((i * 53 + step * 29) % 101 - 50) / 128.0);
        net.gradients[t]->set(g);  // exact in every dtype
      }
      net.step();
    }
    for (size_t t = 0; t < 2; ++t) {
      Vector expected(static_cast<size_t>(net.table[t].elements));
      for (double& v : expected) words >> v;
      expect_near(net.weights[t]->values(), expected, 1e-7, 1e-6, line.substr(0, line.find(':')));
    }
  }
  EXPECT_EQ(cases, 14);
}

TEST_P(OptimizerTest, CopiesFollowTheWeights) {
  for (const DType copy : {DType::bf16, DType::f16}) {
    Network net(ctx(), kParameters, {}, {.gradient_dtype = dtype(), .copy_dtype = copy});
    net.step();
    for (size_t i = 0; i < kParameters.size(); ++i)
      EXPECT_EQ(net.copies[i]->values(), rounded(net.weights[i]->values(), copy)) << kParameters[i];
    net.check_guards();
  }
}

// average = 3/4 average + 1/4 weight, of what has no gradient too.
TEST_P(OptimizerTest, TheAverageFollowsTheWeights) {
  Network net(ctx(), kParameters, {.average_decay = 0.75}, {.gradient_dtype = dtype(), .average = true});
  net.table[3].gradient = nullptr;
  const Vector still = net.weights[3]->values();
  net.averages[3]->set(Vector(9, 1));
  std::vector<Vector> expected;
  for (const auto& t : net.averages) expected.push_back(t->values());
  for (int step = 0; step < 2; ++step) {
    net.step();
    for (size_t i = 0; i < expected.size(); ++i) {
      const Vector w = net.weights[i]->values();
      for (size_t k = 0; k < w.size(); ++k) expected[i][k] = 0.75 * expected[i][k] + 0.25 * w[k];
    }
  }
  EXPECT_EQ(net.weights[3]->values(), still);
  for (size_t i = 0; i < expected.size(); ++i) expect_near(net.averages[i]->values(), expected[i], 3e-7, 0, "average");
  net.check_guards();
}

// Gradients that are 1024 times too large, and a loss scale of 1024: a power of two, so the bits agree, clipped too.
TEST_P(OptimizerTest, LossScaleIsTakenOut) {
  for (const UpdateRule& rule : {UpdateRule{}, UpdateRule{.clip_norm = 0.5F}, UpdateRule{.clip_adaptive = 0.01F},
                                 UpdateRule{.kind = Kind::lars}, UpdateRule{.kind = Kind::lamb, .clip_norm = 1}}) {
    Network plain(ctx(), {100}, rule, {.gradient_dtype = dtype()}),
        scaled(ctx(), {100}, rule, {.gradient_dtype = dtype()});
    Vector g = rounded(random_values(100, 5, 0.01, 1), dtype());
    plain.gradients[0]->set(g);
    for (double& v : g) v *= 1024;
    scaled.gradients[0]->set(g);
    scaled.set_status({.loss_scale = 1024});
    plain.step();
    scaled.step();
    EXPECT_EQ(scaled.values(), plain.values());
    EXPECT_EQ(scaled.status->value().gradient_norm, plain.status->value().gradient_norm);
  }
}

TEST_P(OptimizerTest, GlobalNormClipsAllTensorsAlike) {
  for (const double largest : {1.0, 1000.0}) {
    const reference::Optimizer by{.rate = 0.125, .momentum = 0};
    UpdateRule rule = rule_of(by);
    rule.clip_norm = static_cast<float>(largest);
    Network net(ctx(), kParameters, rule, {.gradient_dtype = dtype()});
    std::vector<Vector> g, w;
    for (size_t i = 0; i < kParameters.size(); ++i) {
      g.push_back(net.gradients[i]->values());
      w.push_back(net.weights[i]->values());
    }
    const double norm = reference::clip_by_norm(g, largest);
    net.step();
    EXPECT_NEAR(net.status->value().gradient_norm, norm, 1e-6 * norm);
    for (size_t i = 0; i < w.size(); ++i) {
      Vector none(w[i].size()), other(w[i].size());
      by.step(w[i], none, other, g[i], 1);
      expect_near(net.weights[i]->values(), w[i], 1e-6, 0, "weights, largest norm " + std::to_string(largest));
    }
  }
}

// Rows of odd length, of packets, and whole tensors; the last tensor is left alone, as the head of a network is.
TEST_P(OptimizerTest, AdaptiveClippingTakesEachUnitByItself) {
  for (const int64_t unit : {int64_t{3}, int64_t{8}, int64_t{27}, int64_t{0}}) {
    const reference::Optimizer by{.rate = 0.125, .momentum = 0};
    UpdateRule rule = rule_of(by);
    rule.clip_adaptive = 0.9F;
    const std::vector<int64_t> sizes{24, 2160, 5, 7776, 30};
    Network net(ctx(), sizes, rule, {.gradient_dtype = dtype(), .unit = unit});
    net.table.back().unit = 0;
    net.weights[0]->set(random_values(sizes[0], 1, -1e-5, 1e-5));  // below the least norm, 1e-3
    net.weights[2]->set(random_values(sizes[2], 2, -4e-3, 4e-3));  // little above it
    const PhasesBackwards backwards;
    std::vector<Vector> expected, all;
    for (size_t i = 0; i < sizes.size(); ++i) {
      Vector w = net.weights[i]->values(), g = net.gradients[i]->values(), none(w.size()), other(w.size());
      all.push_back(g);
      if (net.table[i].unit > 0) reference::clip_by_units(g, w, static_cast<size_t>(net.table[i].unit), 0.9F);
      by.step(w, none, other, g, 1);
      expected.push_back(w);
    }
    net.step();
    for (size_t i = 0; i < sizes.size(); ++i)
      expect_near(net.weights[i]->values(), expected[i], 1e-6, 0, "unit " + std::to_string(unit));
    const double norm = reference::clip_by_norm(all, 1);
    EXPECT_NEAR(net.status->value().gradient_norm, norm, 1e-6 * norm);
    net.check_guards();
  }
}

// Two micro-batches of weights 3 and 5: the update sees (3 a + 5 b) / 8, once.
TEST_P(OptimizerTest, MicroBatchesGiveTheirWeightedMean) {
  Network net(ctx(), kParameters, {.momentum = 0}, {.gradient_dtype = dtype(), .sums = true});
  std::vector<Vector> w, a, b;
  for (size_t i = 0; i < kParameters.size(); ++i) {
    w.push_back(net.weights[i]->values());
    a.push_back(net.gradients[i]->values());
    b.push_back(rounded(random_values(kParameters[i], 50 + i), dtype()));
  }
  net.input.micro_batches = 2;
  net.set_status({.loss_weight = 3, .gradient_weight = 3});
  net.accumulate();
  const std::vector<Vector> before = net.values();
  net.step();
  EXPECT_EQ(net.values(), before) << "no update before the last micro-batch";
  EXPECT_EQ(net.updates(), 0);
  for (size_t i = 0; i < b.size(); ++i) net.gradients[i]->set(b[i]);
  net.input.micro_batch = 1;
  net.set_status({.loss_weight = 5, .gradient_weight = 8});
  net.accumulate();
  net.step();
  for (size_t i = 0; i < w.size(); ++i) {
    for (size_t k = 0; k < w[i].size(); ++k) w[i][k] -= 0.125 * (3 * a[i][k] + 5 * b[i][k]) / 8;
    expect_near(net.weights[i]->values(), w[i], 1e-6, 0, "weights");
  }
  EXPECT_EQ(net.updates(), 1);
  net.check_guards();
}

TEST_P(OptimizerTest, WritesNothingAfterABadStep) {
  Network net(ctx(), {1, 2049}, {.average_decay = 0.5}, {dtype(), DType::bf16, true});
  const std::vector<Vector> before = net.values();
  net.set_status({.first_bad_step = 0});
  net.step();
  EXPECT_EQ(net.values(), before);
  EXPECT_EQ(net.updates(), 0);
}

// With a policy that goes on: the bad step writes nothing, the next one updates as if it had not been.
TEST_P(OptimizerTest, GoesOnAfterABadStep) {
  for (const bool halves : {false, true}) {
    const UpdateRule rule{.momentum = 0.5F, .bad_steps = halves ? BadStepPolicy::halve_rate : BadStepPolicy::skip};
    Network net(ctx(), {1, 2049}, rule, {dtype(), DType::bf16, true});
    Network good(ctx(), {1, 2049}, rule, {dtype(), DType::bf16, true});
    const std::vector<Vector> before = net.values();
    net.input.step = good.input.step = 4;
    net.set_status({.first_bad_step = 4, .rate_factor = 0.5F, .last_bad_step = 4, .bad_steps = 3, .bad_in_a_row = 1});
    net.step();
    EXPECT_EQ(net.values(), before);
    const StepStatus bad = net.status->value();
    EXPECT_EQ(bad.bad_steps, 4);
    EXPECT_EQ(bad.bad_in_a_row, 2);
    EXPECT_EQ(bad.rate_factor, halves ? 0.25F : 0.5F);
    net.input.step = 5;
    net.step();
    good.set_status({.rate_factor = bad.rate_factor});
    good.step();
    EXPECT_EQ(net.values(), good.values());
    EXPECT_EQ(net.status->value().bad_in_a_row, 0);
    EXPECT_EQ(net.updates(), 1);
  }
}

// Though moments remember steps of another rate.
TEST_P(OptimizerTest, NothingMovesAtARateOfZero) {
  for (const Kind kind : {Kind::sgd, Kind::adam, Kind::adamw, Kind::rmsprop, Kind::lars, Kind::lion, Kind::lamb}) {
    Network net(ctx(), {9, 2049}, {.kind = kind}, {dtype()});
    const auto weights = [&] { return std::vector{net.weights[0]->values(), net.weights[1]->values()}; };
    const std::vector<Vector> first = weights();
    net.step();
    const std::vector<Vector> before = weights();
    EXPECT_NE(first, before);
    net.input.learning_rate = 0;
    net.step();
    EXPECT_EQ(weights(), before) << static_cast<int>(kind);
  }
}

// Tensors of groups that end early have a rate of their own.
TEST_P(OptimizerTest, TensorsHaveTheirOwnRates) {
  Network own(ctx(), {9, 2049}, {}, {dtype()}), common(ctx(), {9, 2049}, {}, {dtype()});
  own.table[1].rate = 2;
  own.input.own_rates[0] = NAN;
  own.input.own_rates[1] = own.input.learning_rate / 4;
  own.set_status({.rate_factor = 0.5F});
  own.step();
  common.input.learning_rate /= 2;
  common.table[1].rate_scale = 0.25F;
  common.step();
  EXPECT_EQ(own.values(), common.values());
}

TEST_P(OptimizerTest, TheRateFactorIsOneOfTheLearningRate) {
  Network half(ctx(), {9}, {}, {dtype()}), whole(ctx(), {9}, {}, {dtype()});
  half.set_status({.rate_factor = 0.5F});
  half.step();
  whole.input.learning_rate /= 2;
  whole.step();
  EXPECT_EQ(half.values(), whole.values());
}

// Without loss scaling a gradient that is not finite makes a bad step, whatever the loss.
TEST_P(OptimizerTest, AGradientThatIsNotFiniteMakesABadStep) {
  Network net(ctx(), {9}, {.check_finite = true, .bad_steps = BadStepPolicy::skip}, {dtype()});
  const std::vector<Vector> before = net.values();
  const Vector gradient = net.gradients[0]->values();
  net.gradients[0]->set(Vector(9, INFINITY));
  net.input.step = 7;
  net.step();
  EXPECT_EQ(net.values(), before);
  EXPECT_EQ(net.status->value().first_bad_step, 7);
  EXPECT_EQ(net.status->value().last_bad_step, 7);
  EXPECT_EQ(net.status->value().bad_steps, 1);
  EXPECT_EQ(net.status->value().loss_scale, 1);
  EXPECT_EQ(net.status->value().skipped_steps, 0);
  net.gradients[0]->set(gradient);
  net.input.step = 8;
  net.step();
  EXPECT_EQ(net.updates(), 1);
}

TEST_P(OptimizerTest, AnyGradientThatIsNotFiniteSkipsTheStep) {
  Network net(ctx(), {3, 2049, 5000}, {.kind = Kind::adam, .check_finite = true, .scale_loss = true},
              {.gradient_dtype = dtype()});
  const std::pair<size_t, size_t> places[] = {{0, 0}, {0, 2}, {1, 0}, {1, 2047}, {1, 2048}, {2, 4093}, {2, 4999}};
  const std::vector<Vector> before = net.values();
  for (const auto& [tensor, element] : places)
    for (const double bad : {static_cast<double>(NAN), static_cast<double>(INFINITY), -static_cast<double>(INFINITY)}) {
      const Vector good = net.gradients[tensor]->values();
      Vector g = good;
      g[element] = bad;
      net.gradients[tensor]->set(g);
      net.set_status({.loss_scale = 4});
      net.step();
      EXPECT_EQ(net.status->value().skip, 1) << tensor << ", " << element << ": " << bad;
      const PhasesBackwards backwards;
      net.step();
      EXPECT_EQ(net.status->value().skipped_steps, 2) << tensor << ", " << element << ": " << bad;
      net.gradients[tensor]->set(good);
    }
  EXPECT_EQ(net.values(), before);
  EXPECT_EQ(net.updates(), 0) << "skipped steps are no updates";
  net.step();
  EXPECT_EQ(net.status->value().skip, 0);
  EXPECT_EQ(net.updates(), 1);
}

TEST_P(OptimizerTest, LargestFiniteGradientsAreFine) {
  Network net(ctx(), {9}, {.check_finite = true, .scale_loss = true}, {.gradient_dtype = dtype()});
  const double largest = dtype() == DType::f16 ? 65504 : dtype() == DType::bf16 ? 0x1.fep127 : 0x1.fffffep127;
  net.gradients[0]->set(Vector(9, largest));
  net.step();
  EXPECT_EQ(net.status->value().skip, 0);
}

INSTANTIATE_OP_TEST(OptimizerTest);

class LossScaleTest : public OpTest {
protected:
  StepStatus update(const StepStatus& before, bool finite = true) const {
    Network net(ctx(), {9}, {.check_finite = true, .scale_loss = true});
    if (!finite) net.gradients[0]->set(Vector(9, INFINITY));
    net.set_status(before);
    net.step();
    return net.status->value();
  }
};

TEST_P(LossScaleTest, HalvesOnSkip) {
  const StepStatus s = update({.loss_scale = 1024, .good_steps = 50, .skipped_steps = 3}, false);
  EXPECT_EQ(s.loss_scale, 512);
  EXPECT_EQ(s.good_steps, 0);
  EXPECT_EQ(s.skip, 1);
  EXPECT_EQ(s.skipped_steps, 4);
  EXPECT_EQ(update({.loss_scale = 1.5F}, false).loss_scale, 1);
}

// A gradient that is not finite at a scale of 1 would be so in every step, for all that scaling can do.
TEST_P(LossScaleTest, AtOneTheStepIsABadOne) {
  const StepStatus s = update({.loss_scale = 1, .good_steps = 50, .skipped_steps = 3}, false);
  EXPECT_EQ(s.first_bad_step, 0);
  EXPECT_EQ(s.last_bad_step, 0);
  EXPECT_EQ(s.bad_steps, 1);
  EXPECT_EQ(s.loss_scale, 1);
  EXPECT_EQ(s.good_steps, 0);
  EXPECT_EQ(s.skipped_steps, 3);
  EXPECT_EQ(update({.loss_scale = 2}, false).bad_steps, 0);
}

TEST_P(LossScaleTest, DoublesAfter2000GoodSteps) {
  EXPECT_EQ(update({.loss_scale = 8, .good_steps = 1998}).loss_scale, 8);
  EXPECT_EQ(update({.loss_scale = 8, .good_steps = 1998, .skip = 1}).good_steps, 1999);
  EXPECT_EQ(update({.loss_scale = 8, .good_steps = 1999}).loss_scale, 16);
  EXPECT_EQ(update({.loss_scale = 8, .good_steps = 1999}).good_steps, 0);
  EXPECT_EQ(update({.loss_scale = 0x1p24F, .good_steps = 1999}).loss_scale, 0x1p24F);
}

TEST_P(LossScaleTest, RestsAfterABadStep) {
  const StepStatus s = update({.first_bad_step = 4, .loss_scale = 8, .good_steps = 1999}, false);
  EXPECT_EQ(s.loss_scale, 8);
  EXPECT_EQ(s.skipped_steps, 0);
}

INSTANTIATE_TEST_SUITE_P(Op, LossScaleTest,
                         testing::Combine(testing::Values(Device::cpu(), Device::cuda()), testing::Values(DType::f32)),
                         op_test_name);

}  // namespace
}  // namespace convolt::test
