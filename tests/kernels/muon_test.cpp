#include "muon.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "optimizer_network.h"
#include "support/op_test.h"

namespace convolt::test {
namespace {

using Kind = OptimizerKind;

// dtype() is the gradient's.
class MuonTest : public OpTest {};

// Elements and rows: rows of odd length, one tile and its edges, tall ones, single rows and columns; 0: no matrix.
const std::vector<std::pair<int64_t, int64_t>> kMatrices{{35, 5},    {1320, 40},  {2310, 33},  {9, 1},    {9, 9},
                                                         {4096, 64}, {7600, 100}, {4900, 140}, {2049, 0}, {10, 0}};

Network network_of(Context& context, const reference::Optimizer& o, DType gradient_dtype,
                   const std::vector<std::pair<int64_t, int64_t>>& matrices = kMatrices) {
  std::vector<int64_t> sizes;
  Made made{.gradient_dtype = gradient_dtype};
  for (const auto& [elements, rows] : matrices) {
    sizes.push_back(elements);
    made.rows.push_back(rows);
  }
  return {context, sizes, rule_of(o), made};
}

// |u| = 1 whatever the gradient, and a + b + c = 0.701: w = 1 - 1/8 0.701; v = 3, then 1/2 3 + 3.
TEST_P(MuonTest, OneNumberByHand) {
  Network net = network_of(ctx(), {.kind = Kind::muon, .matrix_momentum = 0.5, .iterations = 1}, dtype(), {{1, 1}});
  net.weights[0]->set({1});
  net.gradients[0]->set({3});
  net.step();
  EXPECT_NEAR(net.weights[0]->values()[0], 1 - 0.125 * 0.701, 1e-6);
  EXPECT_EQ(net.first[0]->values(), Vector{3});
  net.step();
  EXPECT_EQ(net.first[0]->values(), Vector{4.5});
}

TEST_P(MuonTest, AgainstReference) {
  const reference::Optimizer kinds[] = {
      {.kind = Kind::muon, .momentum = 0.85, .weight_decay = 0.1, .matrix_momentum = 0.6, .iterations = 3},
      {.kind = Kind::muon, .matrix_momentum = 0.95, .iterations = 4, .renormalise = true},
      {.kind = Kind::muon, .momentum = 0.5, .weight_decay = 0.1, .matrix_momentum = 0, .iterations = 1}};
  for (const reference::Optimizer& base : kinds) {
    Network net = network_of(ctx(), base, dtype());
    std::vector<Vector> w, v;
    for (const auto& t : net.weights) w.push_back(t->values());
    for (const Vector& x : w) v.emplace_back(x.size());
    for (size_t i = 0; i < w.size(); ++i) {
      net.table[i].rate_scale = 1.F + static_cast<float>(i) / 8;
      net.table[i].weight_decay = static_cast<float>(base.weight_decay);
    }
    for (int64_t step = 0; step < 3; ++step) {
      const PhasesBackwards backwards;
      for (size_t i = 0; i < w.size(); ++i) {
        const Vector g =
            rounded(random_values(net.table[i].elements, 100 * static_cast<uint64_t>(step) + i, -1, 1), dtype());
        net.gradients[i]->set(g);
        reference::Optimizer by = base;
        by.rate = static_cast<double>(net.input.learning_rate * net.table[i].rate_scale);
        by.weight_decay = static_cast<double>(net.table[i].weight_decay);
        by.rows = static_cast<size_t>(kMatrices[i].second);
        Vector none(w[i].size());
        by.step(w[i], v[i], none, g, step + 1);
      }
      net.step();
    }
    for (size_t i = 0; i < w.size(); ++i) {
      const std::string what = std::to_string(kMatrices[i].second) + " rows of " + std::to_string(kMatrices[i].first);
      expect_near(net.weights[i]->values(), w[i], 2e-6, 1e-6, "weights, " + what);
      expect_near(net.first[i]->values(), v[i], 1e-6, 1e-6, "momentum, " + what);
    }
    net.check_guards();
  }
}

// What PyTorch computes in double (tools/golden/muon.py).
TEST_P(MuonTest, AgainstTorch) {
  std::ifstream file(CONVOLT_SOURCE_DIR "/tests/kernels/golden/muon.txt");
  int cases = 0;
  for (std::string line; std::getline(file, line); ++cases) {
    std::istringstream words(line);
    int64_t rows = 0, columns = 0;
    double renormalise = 0;
    reference::Optimizer o{.kind = Kind::muon};
    double rate = 0;
    words >> rows >> columns >> rate >> o.matrix_momentum >> o.iterations >> renormalise;
    o.renormalise = renormalise != 0;
    Network net = network_of(ctx(), o, dtype(), {{rows * columns, rows}});
    net.input.learning_rate = static_cast<float>(rate);
    Vector values(static_cast<size_t>(rows * columns));
    for (size_t i = 0; i < values.size(); ++i) values[i] = (static_cast<double>(i * 37 % 97) - 48) / 64;
    net.weights[0]->set(values);
    for (size_t step = 0; step < 3; ++step) {
      for (size_t i = 0; i < values.size(); ++i)
        values[i] = (static_cast<double>((i * i * 53 + step * 29) % 101) - 50) / 128;
      net.gradients[0]->set(values);  // exact in every dtype
      net.step();
    }
    for (double& v : values) words >> v;
    ASSERT_TRUE(words) << line;
    expect_near(net.weights[0]->values(), values, 2e-6, 0, line.substr(0, 40));
  }
  EXPECT_EQ(cases, 4);
}

// Singular values come near 1, whatever they were: those of a diagonal matrix, 1 to 1/8, lie between 0.6 and 1.3.
TEST_P(MuonTest, SingularValuesComeNearOne) {
  Network net = network_of(ctx(), {.kind = Kind::muon, .iterations = 5}, dtype(), {{4 * 6, 4}});
  Vector g(24), zeros(24);
  for (size_t i = 0; i < 4; ++i) g[i * 6 + i] = 1.0 / static_cast<double>(size_t{1} << i);
  net.gradients[0]->set(g);
  net.weights[0]->set(zeros);
  net.input.learning_rate = 1;
  net.step();
  const Vector w = net.weights[0]->values();
  for (size_t i = 0; i < 24; ++i)
    if (i % 7 == 0 && i < 22) {
      EXPECT_LT(w[i], -0.6) << i;
      EXPECT_GT(w[i], -1.3) << i;
    } else {
      EXPECT_EQ(w[i], 0) << i;
    }
}

TEST_P(MuonTest, TheSizeOfTheGradientDoesNotMatter) {
  const reference::Optimizer o{.kind = Kind::muon, .matrix_momentum = 0.5};
  Network net = network_of(ctx(), o, dtype(), {{300, 10}}), scaled = network_of(ctx(), o, dtype(), {{300, 10}});
  Vector g = net.gradients[0]->values();
  for (double& v : g) v *= 1024;
  scaled.gradients[0]->set(g);
  net.step();
  scaled.step();
  expect_near(scaled.weights[0]->values(), net.weights[0]->values(), 1e-6, 0, "weights");
  // A loss scale of 1024 is taken out to the bit, of the momentum too.
  Network unscaled = network_of(ctx(), o, dtype(), {{300, 10}});
  unscaled.gradients[0]->set(g);
  unscaled.set_status({.loss_scale = 1024});
  unscaled.step();
  EXPECT_EQ(unscaled.values(), net.values());
}

TEST_P(MuonTest, RestsWithARateOfZeroAndWithNoGradient) {
  const reference::Optimizer o{.kind = Kind::muon, .matrix_momentum = 0.5, .renormalise = true};
  Network net = network_of(ctx(), o, dtype(), {{300, 10}, {300, 10}});
  const Vector before = net.weights[0]->values();
  net.table[0].rate_scale = 0;
  net.gradients[1]->set(Vector(300));
  net.weights[1]->set(Vector(300));
  net.step();
  EXPECT_EQ(net.weights[0]->values(), before);
  EXPECT_EQ(net.weights[1]->values(), Vector(300));
}

TEST_P(MuonTest, WritesNothingAfterABadStep) {
  Network net = network_of(ctx(), {.kind = Kind::muon}, dtype());
  const std::vector<Vector> before = net.values();
  net.set_status({.first_bad_step = 0});
  net.step();
  EXPECT_EQ(net.values(), before);
}

INSTANTIATE_OP_TEST(MuonTest);

}  // namespace
}  // namespace convolt::test
