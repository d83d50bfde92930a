// Whole networks against PyTorch in double: logits, and for the cheaper ones a step of training; and small networks
// through 20 steps under SGD and AdamW, one under Muon. Weights and pictures are a function of (name, index) that
// tools/golden/formula.py computes too; what network_steps.py and training.py there recorded lies in golden/steps and
// golden/training.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <regex>
#include <sstream>

#include "convolt/layers.h"
#include "convolt/network_file.h"
#include "graph/networks.h"
#include "models/blocks.h"

namespace convolt::test {
namespace {

using Row = std::vector<std::string>;

std::vector<Row> recorded(const std::string& name) {
  std::ifstream file(CONVOLT_SOURCE_DIR "/tests/graph/golden/" + name + ".tsv");
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

// Squared gain of the weights; biases lie around `bias`.
void set_weights(Params& params, double gain, float bias = 0) {
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
    else if (spec.name.ends_with("bias"))
      centre = bias;
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
// Row i has the label 3 i + shift, modulo 10.
Batch batch_of(const std::string& pictures, int rows, int size, int64_t shift = 0) {
  const Uniform uniform(pictures);
  const auto side = static_cast<size_t>(size), n = static_cast<size_t>(rows);
  Batch batch;
  for (size_t i = 0; i < n; ++i) {
    for (size_t pixel = 0; pixel < side * side; ++pixel)
      for (size_t c = 0; c < 3; ++c) batch.images.push_back(uniform((i * 3 + c) * side * side + pixel));
    batch.labels.push_back(static_cast<int32_t>((3 * i + static_cast<size_t>(shift)) % 10));
  }
  return batch;
}

double largest(const std::vector<double>& values) {
  double most = 0;
  for (const double v : values) most = std::max(most, std::abs(v));
  return most;
}

constexpr double kTolerance = 1e-4;  // of the largest logit, and of the largest norm of a gradient

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

class NetworkStep : public testing::TestWithParam<std::string> {};

TEST_P(NetworkStep, ComputesWhatPyTorchDoes) {
  const std::vector<Row> rows = recorded("steps/" + GetParam());
  ASSERT_GE(rows.size(), 2U);
  const int size = std::stoi(rows[0].at(1)), batch = std::stoi(rows[0].at(2));
  Graph graph;
  build_model(graph, without_chance(GetParam()), {.classes = 10, .height = size, .width = size});
  Params params = Params::zeros(context_of(Device::cpu()), graph);
  set_weights(params, std::stod(rows[0].at(3)), std::stof(rows[0].at(4)));
  const Batch input = batch_of(rows[0].at(5), batch, size);
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
      expect_near({norm(g), g[0], g[g.size() / 2], g.back()}, numbers(row, 2), kTolerance * steepest, row[1]);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Networks, NetworkStep,
                         testing::Values("alexnet", "vgg11_bn", "squeezenet1_1", "resnext50_32x4d", "se_resnet50",
                                         "densenet121", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5",
                                         "mnasnet0_5", "efficientnet_b0", "efficientnet_v2_s", "regnet_x_400mf",
                                         "regnet_y_400mf", "convnext_tiny", "airbench94"),
                         [](const auto& test) { return test.param; });

// The networks of tools/golden/training.py.

Value projected(Value x, const std::string& name, int64_t channels, int stride) {
  return conv_norm(
      x, {.conv = name + ".downsample.0", .norm = name + ".downsample.1", .channels = channels, .stride = stride});
}

Value basic_block(Value x, const std::string& name, int64_t channels, int stride) {
  Value y = relu(conv_norm(
      x, {.conv = name + ".conv1", .norm = name + ".bn1", .channels = channels, .kernel = 3, .stride = stride}));
  y = conv_norm(y, {.conv = name + ".conv2", .norm = name + ".bn2", .channels = channels, .kernel = 3});
  return relu(add(y, stride == 1 ? x : projected(x, name, channels, stride)));
}

void build_resnet(Graph& g, int size) {
  Value x = g.input("image", {size, size, 3});
  x = relu(conv_norm(x, {.conv = "conv1", .norm = "bn1", .channels = 16, .kernel = 3}));
  x = max_pool(x, {.kernel = 3, .stride = 2, .padding = 1});
  x = basic_block(basic_block(x, "layer1.0", 16, 1), "layer2.0", 32, 2);
  Value y = relu(conv_norm(x, {.conv = "layer3.0.conv1", .norm = "layer3.0.bn1", .channels = 16}));
  y = relu(conv_norm(y, {.conv = "layer3.0.conv2", .norm = "layer3.0.bn2", .channels = 16, .kernel = 3, .stride = 2}));
  y = conv_norm(y, {.conv = "layer3.0.conv3", .norm = "layer3.0.bn3", .channels = 64});
  x = relu(add(y, projected(x, "layer3.0", 64, 2)));
  g.output(linear(global_avg_pool(x), 10, {.name = "fc"}));
}

Value inverted_residual(Value x, const std::string& name, int64_t channels, int stride) {
  const int64_t hidden = 6 * x.shape()[2];
  Value y = relu6(conv_norm(x, {.conv = name + ".conv.0.0", .norm = name + ".conv.0.1", .channels = hidden}));
  y = relu6(conv_norm(y, {.conv = name + ".conv.1.0",
                          .norm = name + ".conv.1.1",
                          .channels = hidden,
                          .kernel = 3,
                          .stride = stride,
                          .groups = hidden}));
  y = conv_norm(y, {.conv = name + ".conv.2", .norm = name + ".conv.3", .channels = channels});
  return stride == 1 ? add(x, y) : y;
}

void build_mobilenet_v2(Graph& g, int size) {
  Value x = g.input("image", {size, size, 3});
  x = relu6(conv_norm(x, {.conv = "features.0.0", .norm = "features.0.1", .channels = 16, .kernel = 3, .stride = 2}));
  const Value y = relu6(conv_norm(
      x, {.conv = "features.1.conv.0.0", .norm = "features.1.conv.0.1", .channels = 16, .kernel = 3, .groups = 16}));
  x = add(x, conv_norm(y, {.conv = "features.1.conv.1", .norm = "features.1.conv.2", .channels = 16}));
  x = inverted_residual(inverted_residual(x, "features.2", 24, 2), "features.3", 24, 1);
  x = relu6(conv_norm(x, {.conv = "features.4.0", .norm = "features.4.1", .channels = 64}));
  g.output(linear(global_avg_pool(x), 10, {.name = "classifier.1"}));
}

Value convnext_block(Value x, const std::string& name) {
  const int64_t channels = x.shape()[2];
  Value y =
      conv2d(x, channels, {.name = name + ".block.0", .kernel = 7, .padding = 3, .groups = channels, .bias = true});
  y = gelu(linear(layer_norm(y, {.name = name + ".block.2"}), 4 * channels, {.name = name + ".block.3"}));
  return add(layer_scale(linear(y, channels, {.name = name + ".block.5"}), {.name = name + ".layer_scale"}), x);
}

void build_convnext(Graph& g, int size) {
  Value x = g.input("image", {size, size, 3});
  x = conv2d(x, 24, {.name = "features.0.0", .kernel = 4, .stride = 4, .bias = true});
  x = layer_norm(x, {.name = "features.0.1"});
  x = convnext_block(convnext_block(x, "features.1.0"), "features.1.1");
  x = layer_norm(x, {.name = "features.2.0"});
  x = convnext_block(conv2d(x, 48, {.name = "features.2.1", .kernel = 2, .stride = 2, .bias = true}), "features.3.0");
  g.output(linear(layer_norm(global_avg_pool(x), {.name = "classifier.0"}), 10, {.name = "classifier.2"}));
}

struct TrainingCase {
  std::string network;
  void (*build)(Graph& graph, int size);
  std::string optimizer;
  OptimizerOptions options;
  float rate;
};
void PrintTo(const TrainingCase& c, std::ostream* out) { *out << c.network << " by " << c.optimizer; }

std::vector<TrainingCase> training_cases() {
  std::vector<TrainingCase> cases;
  const std::pair<std::string, void (*)(Graph&, int)> networks[] = {
      {"resnet", build_resnet}, {"mobilenet_v2", build_mobilenet_v2}, {"convnext", build_convnext}};
  for (const auto& [name, build] : networks) {
    cases.push_back({name, build, "sgd", {.momentum = 0.9F, .weight_decay = 1e-3F}, 0.02F});
    cases.push_back({name, build, "adamw", {.kind = OptimizerKind::adamw, .weight_decay = 0.05F, .eps = 1e-3}, 0.002F});
  }
  cases.push_back({"resnet",
                   build_resnet,
                   "muon",
                   {.kind = OptimizerKind::muon,
                    .momentum = 0.85F,
                    .weight_decay = 1e-3F,
                    .muon_momentum = 0.6F,
                    .muon_renormalise = true},
                   0.02F});
  return cases;
}

class NetworkTraining : public testing::TestWithParam<TrainingCase> {};

// Norm, and how far each value moved: scalar product with the probe, and three elements.
std::vector<double> movement(const std::vector<double>& before, const std::vector<double>& after) {
  const Uniform probe("probe");
  std::vector<double> moved(after.size());
  double product = 0;
  for (size_t i = 0; i < moved.size(); ++i) {
    moved[i] = after[i] - before[i];
    product += moved[i] * static_cast<double>(probe(i));
  }
  return {norm(moved), product, moved[0], moved[moved.size() / 2], moved.back()};
}

// Every loss within 1e-4 of itself; every weight and running statistic within 1e-3 of how far its tensor moved.
TEST_P(NetworkTraining, FollowsPyTorchForTwentySteps) {
  const TrainingCase& c = GetParam();
  const std::vector<Row> rows = recorded("training/" + c.network);
  ASSERT_GE(rows.size(), 2U);
  const int size = std::stoi(rows[0].at(1)), batch = std::stoi(rows[0].at(2));
  Graph graph;
  c.build(graph, size);
  Params params = Params::zeros(context_of(Device::cpu()), graph);
  set_weights(params, std::stod(rows[0].at(3)));
  const std::vector<reference::Values> before = values_of(params);
  Optimizer optimizer(params, c.options);
  Plan plan(graph, params, {.batch = batch, .training = true, .optimizer = &optimizer});
  Row pictures;
  for (const Row& row : rows) {
    if (row.at(1) != c.optimizer) continue;
    if (row[0] == "pictures") {
      pictures = row;
    } else if (row[0] == "loss") {
      double sum = 0;
      for (size_t step = 0; step + 2 < row.size(); ++step) {
        const auto n = static_cast<int64_t>(step);
        const Batch input = batch_of(pictures.at(step + 2), batch, size, n);
        plan.run(input.images.data(), input.labels.data(), batch, n, c.rate);
        const double now = plan.meters().values.loss, expected = std::stod(row[step + 2]);
        EXPECT_NEAR((now - sum) / batch, expected, 1e-4 * expected) << "step " << step;
        sum = now;
      }
    } else if (row[0] == "after") {
      const int p = params.find(row[2]);
      ASSERT_GE(p, 0) << row[2];
      const auto expected = numbers(row, 3), after = doubles(params.values(p));
      std::vector<double> found = movement(before[static_cast<size_t>(p)], after);
      found.insert(found.begin(), norm(after));
      expect_near(found, expected, 1e-3 * expected[1], row[2]);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Networks, NetworkTraining, testing::ValuesIn(training_cases()),
                         [](const auto& test) { return test.param.network + "_" + test.param.optimizer; });

}  // namespace
}  // namespace convolt::test
