// Whole networks against PyTorch: logits, and for the cheaper ones a step of training. Weights and pictures are a
// function of (name, index) that tools/golden/network_steps.py computes too; what it recorded lies in golden/steps.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <regex>
#include <sstream>

#include "convolt/network_file.h"
#include "graph/networks.h"

namespace convolt::test {
namespace {

using Row = std::vector<std::string>;

std::vector<Row> recorded(const std::string& model) {
  std::ifstream file(CONVOLT_SOURCE_DIR "/tests/graph/golden/steps/" + model + ".tsv");
  std::vector<Row> rows;
  for (std::string line, cell; std::getline(file, line);) {
    std::istringstream cells(line);
    rows.emplace_back();
    while (std::getline(cells, cell, '\t')) rows.back().push_back(cell);
  }
  return rows;
}

std::vector<double> numbers(const Row& row, size_t from) {
  std::vector<double> n;
  for (size_t i = from; i < row.size(); ++i) n.push_back(std::stod(row[i]));
  return n;
}

// In [-1, 1): MurmurHash3's finaliser of FNV-1a(name) + index * 0x9E3779B9, its upper 24 bits.
class Uniform {
public:
  explicit Uniform(const std::string& name) {
    for (const char c : name) seed_ = (seed_ ^ static_cast<uint8_t>(c)) * 0x01000193;
  }
  float operator()(size_t index) const {
    uint32_t h = seed_ + static_cast<uint32_t>(index) * 0x9E3779B9;
    h = (h ^ h >> 16) * 0x85EBCA6B;
    h = (h ^ h >> 13) * 0xC2B2AE35;
    h ^= h >> 16;
    return static_cast<float>(h >> 8) * 0x1p-23F - 1;
  }

private:
  uint32_t seed_ = 0x811C9DC5;
};

void set_weights(Params& params, double gain) {
  for (size_t i = 0; i < params.specs().size(); ++i) {
    const ParamSpec& spec = params.specs()[i];
    const Shape shape = spec.file_shape();
    float centre = 0, scale = 0.1F;
    if (spec.name.ends_with("layer_scale"))
      scale = 0.25F;
    else if (shape.rank() > 1)
      scale = static_cast<float>(std::sqrt(gain / static_cast<double>(shape.elements() / shape[0])));
    else if (spec.name.ends_with("running_var") || spec.name.ends_with("weight"))
      centre = 1, scale = 0.25F;
    const Uniform uniform(spec.name);
    std::vector<float> values(static_cast<size_t>(shape.elements()));
    for (size_t k = 0; k < values.size(); ++k) values[k] = centre + uniform(k) * scale;
    params.set_values(static_cast<int>(i), values);
  }
}

struct Batch {
  std::vector<float> images;  // NHWC
  std::vector<int32_t> labels;
};
Batch batch_of(int rows, int size) {
  const Uniform uniform("image");
  const auto side = static_cast<size_t>(size), n = static_cast<size_t>(rows);
  Batch batch;
  for (size_t i = 0; i < n; ++i) {
    for (size_t pixel = 0; pixel < side * side; ++pixel)
      for (size_t c = 0; c < 3; ++c) batch.images.push_back(uniform((i * 3 + c) * side * side + pixel));
    batch.labels.push_back(static_cast<int32_t>(3 * i % 10));
  }
  return batch;
}

double largest(const std::vector<double>& values) {
  double most = 0;
  for (const double v : values) most = std::max(most, std::abs(v));
  return most;
}

constexpr double kTolerance = 1e-4;  // of the largest logit, and of the largest norm of a gradient
// Where activations have kinks some element among 10^5 lies so near to one that rounding decides on which side, and a
// whole gradient comes or goes with it: PyTorch's own float differs from its double by up to 1.4e-3 here.
constexpr double kKinks = 5e-3;

void expect_near(const std::vector<double>& found, const std::vector<double>& expected, double tolerance,
                 const std::string& what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], tolerance) << what << ", number " << i;
}

// The network without dropout and stochastic depth, by way of its description.
ModelInfo without_chance(const std::string& model) {
  Graph graph;
  const ModelInfo info = find_model(model);
  build_model(graph, info, {.classes = 10, .height = 64, .width = 64});
  return parse_network(model, std::regex_replace(write_network(graph, info), std::regex(R"(,"p":[0-9.e-]+)"), ""));
}

struct Case {
  std::string model;
  double gradients = kTolerance;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.model; }

class NetworkStep : public testing::TestWithParam<Case> {};

TEST_P(NetworkStep, ComputesWhatPyTorchDoes) {
  const std::vector<Row> rows = recorded(GetParam().model);
  ASSERT_GE(rows.size(), 2U);
  const int size = std::stoi(rows[0].at(1)), batch = std::stoi(rows[0].at(2));
  Graph graph;
  build_model(graph, without_chance(GetParam().model), {.classes = 10, .height = size, .width = size});
  Params params(context_of(Device::cpu()), graph, 0);
  set_weights(params, std::stod(rows[0].at(3)));
  const Batch input = batch_of(batch, size);
  Plan evaluation(graph, params, {.batch = batch});
  evaluation.run(input.images.data(), input.labels.data(), batch);
  const std::vector<double> logits = numbers(rows[1], 1);
  expect_near(doubles(evaluation.logits()), logits, kTolerance * largest(logits), "logits");
  if (rows.size() == 2) return;

  Plan training(graph, params, {.batch = batch, .training = true});
  training.run(input.images.data(), input.labels.data(), batch);
  double steepest = 0;
  for (const Row& row : rows)
    if (row[0] == "gradient") steepest = std::max(steepest, std::stod(row[2]));
  for (const Row& row : rows) {
    if (row[0] == "loss") expect_near({training.meters().values.loss / batch}, numbers(row, 1), kTolerance, "loss");
    if (row[0] != "gradient" && row[0] != "buffer") continue;
    const int p = params.find(row[1]);
    ASSERT_GE(p, 0) << row[1];
    if (row[0] == "buffer") {
      auto values = doubles(params.values(p));
      values.resize(row.size() - 2);
      expect_near(values, numbers(row, 2), kTolerance, row[1]);
    } else {
      const auto g = doubles(training.gradient(p));
      expect_near({norm(g), g[0], g[g.size() / 2], g.back()}, numbers(row, 2), GetParam().gradients * steepest, row[1]);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Networks, NetworkStep,
                         testing::Values(Case{"alexnet"}, Case{"vgg11_bn"}, Case{"squeezenet1_1", kKinks},
                                         Case{"resnext50_32x4d"}, Case{"se_resnet50", kKinks},
                                         Case{"densenet121", kKinks}, Case{"mobilenet_v2", kKinks},
                                         Case{"mobilenet_v3_small"}, Case{"shufflenet_v2_x0_5", kKinks},
                                         Case{"mnasnet0_5", kKinks}, Case{"efficientnet_b0"}, Case{"efficientnet_v2_s"},
                                         Case{"regnet_x_400mf", kKinks}, Case{"regnet_y_400mf", kKinks},
                                         Case{"convnext_tiny"}),
                         [](const auto& test) { return test.param.model; });

}  // namespace
}  // namespace convolt::test
