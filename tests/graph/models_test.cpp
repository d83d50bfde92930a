// Networks by name: their parameters against recorded tables of other people's implementations, and the kernels they
// get.
#include "convolt/models.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <sstream>

#include "convolt/error.h"
#include "convolt/network_file.h"
#include "graph/layer.h"
#include "graph/lower.h"
#include "graph/networks.h"
#include "graph/op.h"

namespace convolt::test {
namespace {

using Table = std::map<std::string, std::string>;  // name -> "64x3x7x7"

std::vector<std::vector<std::string>> read_tsv(const std::string& name) {
  std::ifstream file(CONVOLT_SOURCE_DIR "/tests/graph/golden/" + name + ".tsv");
  std::vector<std::vector<std::string>> rows;
  std::string line, cell;
  std::getline(file, line);  // the heading
  while (std::getline(file, line)) {
    std::istringstream cells(line);
    rows.emplace_back();
    while (std::getline(cells, cell, '\t')) rows.back().push_back(cell);
  }
  return rows;
}

std::string shape_in_files(const ParamSpec& spec) {
  const Shape extents = spec.file_shape();
  std::string shape = std::to_string(extents[0]);
  for (int i = 1; i < extents.rank(); ++i) shape.append("x").append(std::to_string(extents[i]));
  return shape;
}

Table parameters(const Graph& graph) {
  Table table;
  for (const ParamSpec& spec : graph.params()) table[spec.name] = shape_in_files(spec);
  return table;
}

// As tools/golden/torchvision_parameters.py computes it.
std::string digest(const Graph& graph) {
  std::set<std::string> lines;
  for (const ParamSpec& spec : graph.params())
    lines.insert(spec.name + ":" + shape_in_files(spec) + (spec.trainable ? ":parameter\n" : ":buffer\n"));
  uint64_t h = 0xCBF29CE484222325;
  for (const std::string& line : lines)
    for (const char c : line) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001B3;
  return fmt::format("{:016x}", h);
}

struct Known {
  std::string model;
  int64_t classes, parameters;
  int channels = 3;
  std::string digest = {};   // of what torchvision or timm recorded
  double multiply_adds = 0;  // 10^9
};
// CIFAR: Y. Idelbayev's pytorch_resnet_cifar10 (the paper says 0.27 M, 0.46 M, 0.66 M, 0.85 M and 1.7 M); lenet: Y.
// LeCun's 156 + 2416 + 48120 + 10164 + 850, with full connections in the second convolution; airbench94: the
// CifarNet of K. Jordan's airbench94_muon.py; all others: models.tsv.
std::vector<Known> known_models() {
  std::vector<Known> known{{"resnet20", 10, 269722},   {"resnet32", 10, 464154},   {"resnet44", 10, 658586},
                           {"resnet56", 10, 853018},   {"resnet110", 10, 1727962}, {"lenet", 10, 61706, 1},
                           {"airbench94", 10, 1972792}};
  for (const auto& row : read_tsv("models"))
    known.push_back({row.at(0), 1000, std::stoll(row.at(1)), 3, row.at(2), std::stod(row.at(3))});
  return known;
}

void PrintTo(const Known& known, std::ostream* out) { *out << known.model; }

class ModelTest : public testing::TestWithParam<Known> {};

TEST_P(ModelTest, HasTheParametersOfTheReferenceImplementation) {
  const Known& known = GetParam();
  Graph graph;
  build_model(graph, known.model, {.classes = known.classes, .channels = known.channels});
  EXPECT_EQ(graph.parameter_count(), known.parameters);
  Table expected;
  for (const auto& row : read_tsv(known.model)) expected[row.at(0)] = row.at(1);
  if (!expected.empty()) {
    EXPECT_EQ(parameters(graph), expected);
  }
  if (known.multiply_adds > 0) {
    EXPECT_NEAR(static_cast<double>(forward_multiply_adds(graph)) / 1e9, known.multiply_adds,
                0.01 * known.multiply_adds + 5e-4);
  }
  if (!known.digest.empty()) {
    EXPECT_EQ(digest(graph), known.digest);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, ModelTest, testing::ValuesIn(known_models()),
                         [](const auto& test) { return test.param.model; });

TEST(Models, EachIsKnownElsewhere) {
  std::multiset<std::string> known, built;
  for (const Known& k : known_models()) known.insert(k.model);
  for (const ModelInfo& model : models()) built.insert(model.name);
  EXPECT_EQ(built, known);
}

TEST(Models, EvaluationPicturesAreThoseOfThePublishedWeights) {
  for (const auto& row : read_tsv("models")) {
    const ModelInfo model = find_model(row.at(0));
    EXPECT_EQ(model.size, std::stoi(row.at(4))) << model.name;
    EXPECT_EQ(model.resize, std::stoi(row.at(5))) << model.name;
    EXPECT_EQ(model.mean[0], std::stof(row.at(6))) << model.name;
    const bool bicubic = model.interpolation == AugmentOptions::Interpolation::bicubic;
    EXPECT_EQ(bicubic ? "bicubic" : "bilinear", row.at(7)) << model.name;
  }
}

TEST(Models, AnUnknownNameOffersTheNearest) {
  try {
    find_model("resnet2O");
    FAIL();
  } catch (const UsageError& e) {
    EXPECT_STREQ(
        e.what(),
        "unknown model 'resnet2O', did you mean 'resnet20'? (see convolt models; FILE.json is a network file)");
  }
}

TEST(Models, APictureThatIsTooSmallNamesTheLayer) {
  Graph graph;
  try {
    build_model(graph, "lenet", {.classes = 10, .height = 8, .width = 9, .channels = 1});
    FAIL();
  } catch (const ShapeError& e) {
    EXPECT_STREQ(e.what(), "conv2d 'conv2': kernel 5 exceeds padded input 4x4");
  }
}

TEST(Models, RectanglesAndOtherClassCountsFit) {
  Graph graph;
  build_model(graph, "resnet18", {.classes = 37, .height = 96, .width = 64});
  EXPECT_EQ(graph.classes(), 37);
  EXPECT_EQ(graph.layers()[0].shape, (Shape{96, 64, 3}));
  EXPECT_EQ(graph.shapes_for(224, 160)[static_cast<size_t>(graph.output_layer())], (Shape{37}));
}

// The chances of a model's layers of stochastic depth, in order.
std::vector<double> drop_chances(const char* model, std::optional<double> drop_path) {
  Graph graph;
  build_model(graph, model, {.classes = 10, .drop_path = drop_path});
  std::vector<double> chances;
  for (const Layer& layer : graph.layers())
    if (layer.def->kind == "stochastic_depth")
      chances.push_back(static_cast<double>(std::any_cast<float>(layer.attributes)));
  return chances;
}

TEST(Models, DropPathRisesFromBlockToBlock) {
  const auto rising = [](double last, int blocks, int from) {
    std::vector<double> chances;
    for (int i = from; i < blocks; ++i) chances.push_back(last * i / (blocks - 1));
    return chances;
  };
  // timm's: drop_path_rate * net_block_idx / (net_num_blocks - 1), and none at the first block.
  expect_near(drop_chances("resnet50", 0.05), rising(0.05, 16, 1), 1e-8, 0, "resnet50");
  expect_near(drop_chances("resnet20", 0.3), rising(0.3, 9, 1), 1e-7, 0, "resnet20");
  expect_near(drop_chances("regnet_x_400mf", 0.1), rising(0.1, 22, 1), 1e-8, 0, "regnet_x_400mf");
  expect_near(drop_chances("convnext_tiny", 0.3), rising(0.3, 18, 0), 1e-7, 0, "convnext_tiny");
  expect_near(drop_chances("convnext_tiny", std::nullopt), rising(0.1, 18, 0), 1e-8, 0, "convnext_tiny's own");
  EXPECT_EQ(drop_chances("resnet50", std::nullopt).size(), 0U);
  EXPECT_EQ(drop_chances("resnet50", 0).size(), 0U);
  EXPECT_NEAR(drop_chances("efficientnet_b0", 0.4).back(), 0.4 * 14 / 16, 1e-7);
}

TEST(Models, DropPathNeedsBlocksToDrop) {
  EXPECT_THROW(drop_chances("vgg11", 0.1), UsageError);
  EXPECT_THROW(drop_chances("resnet20", 1), UsageError);
  EXPECT_THROW(drop_chances("resnet20", -0.1), UsageError);
  EXPECT_NO_THROW(drop_chances("vgg11", 0));
  Graph graph, again;
  build_model(graph, "resnet20", {.classes = 10});
  const ModelInfo file = parse_network("file", write_network(graph, find_model("resnet20")));
  EXPECT_THROW(build_model(again, file, {.drop_path = 0.1}), UsageError);
}

// Initial values as torchvision's: the spread of a convolution's weights is sqrt(2 / fan_out), of a CIFAR one's sqrt(2
// / fan_in).
TEST(Models, InitialWeightsHaveTheirSpread) {
  const auto check = [](const char* model,
                        std::initializer_list<std::pair<const char*, std::pair<double, double>>> expected) {
    Graph graph;
    build_model(graph, model, {.classes = 1000});
    const Params params(context_of(Device::cpu()), graph, 1);
    for (const auto& [name, spread] : expected) {
      const std::vector<double> values = doubles(params.values(params.find(name)));
      EXPECT_NEAR(norm(values) / std::sqrt(static_cast<double>(values.size())), spread.first, spread.second)
          << model << " " << name;
    }
  };
  check("resnet18", {{"layer3.0.conv1.weight", {std::sqrt(2.0 / (256 * 9)), 3e-4}},
                     {"fc.weight", {std::sqrt(1 / (3.0 * 512)), 2e-4}},  // uniform
                     {"layer1.0.bn1.running_var", {1, 0}}});
  check("resnet20", {{"layer3.1.conv1.weight", {std::sqrt(2.0 / (64 * 9)), 6e-4}}});
  check("mobilenet_v2",
        {{"features.2.conv.1.0.weight", {std::sqrt(2.0 / (96 * 9)), 4e-3}}, {"classifier.1.weight", {0.01, 1e-4}}});
}

// The first 24 of the 64 filters of layers.1.conv1 are the identity, the others uniform to 1 / sqrt(24 * 9).
TEST(Models, IdentityFiltersComeFirst) {
  Graph graph;
  build_model(graph, "airbench94", {.classes = 10});
  const Params params(context_of(Device::cpu()), graph, 1);
  const std::vector<double> w = doubles(params.values(params.find("layers.1.conv1.weight")));
  ASSERT_EQ(w.size(), 64U * 24 * 9);
  double squares = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    const size_t o = i / 216, in = i / 9 % 24, pixel = i % 9;
    if (o < 24)
      EXPECT_EQ(w[i], in == o && pixel == 4 ? 1 : 0) << i;
    else
      squares += w[i] * w[i];
  }
  EXPECT_NEAR(std::sqrt(squares / (40 * 216)), 1 / std::sqrt(3.0 * 216), 1e-3);
  const std::vector<double> head = doubles(params.values(params.find("head.weight")));
  EXPECT_NEAR(norm(head) / std::sqrt(2560.0) * 256, 1, 0.03);
}

TEST(Models, InitialWeightsAreTheSameForAnyNumberOfThreads) {
  Graph graph;
  build_model(graph, "mobilenet_v3_small", {.classes = 10});
  const auto one = Context::create({Device::cpu(), 1}), three = Context::create({Device::cpu(), 3});
  const Params a(*one, graph, 7), b(*three, graph, 7), other(*three, graph, 8);
  const Params zeros = Params::zeros(*three, graph);
  for (int i = 0; i < static_cast<int>(graph.params().size()); ++i) {
    const std::string& name = graph.params()[static_cast<size_t>(i)].name;
    EXPECT_EQ(a.values(i), b.values(i)) << name;
    if (name.ends_with("0.0.weight")) {
      EXPECT_NE(a.values(i), other.values(i)) << name;
    }
    EXPECT_EQ(zeros.values(i), std::vector<float>(a.values(i).size())) << name;
  }
}

// Plain weights or an odd dtype once made the library fall to code 200 times slower.
TEST(Models, NoLayerOfAnyModelGetsReferenceCode) {
  ConvProvider& provider = context_of(Device::cpu()).conv();
  std::set<std::string> seen;
  const auto check = [&](const Op& op, const std::string& what, const auto& desc) {
    if (!seen.insert(what).second) return;
    const auto kernels = provider.candidates(desc);
    ASSERT_FALSE(kernels.empty()) << op.layer << " " << what;
    EXPECT_EQ(kernels[0]->name().find("ref"), std::string::npos)
        << op.layer << " " << what << ": " << kernels[0]->name();
  };
  for (const ModelInfo& model : models())
    for (const DType dtype : {DType::f32, DType::bf16})
      for (const bool training : {true, false}) {
        const int size = model.recipe == ModelInfo::Recipe::imagenet ? 64 : 0;
        Graph graph;
        build_model(graph, model.name, {.classes = 10, .height = size, .width = size});
        const PlanOptions options{.batch = 2, .dtype = dtype, .training = training};
        Program program = lower(graph, options);
        if (!training) fold_batch_norm(program);
        fuse(program, provider, training);
        lower_training(program, options);
        for (const Op& op : program.step) {
          const std::string suffix = std::string(" ").append(name_of(dtype)).append(" ").append(op.def->name);
          if (const auto* conv = std::get_if<ConvAttrs>(&op.attrs))
            check(op, conv->desc.geometry.to_string() + suffix + std::to_string(static_cast<int>(conv->desc.epilogue)),
                  conv->desc);
          if (const auto* linear = std::get_if<LinearAttrs>(&op.attrs))
            check(op, std::to_string(linear->desc.in) + " -> " + std::to_string(linear->desc.out) + suffix,
                  linear->desc);
        }
      }
  EXPECT_GT(seen.size(), 100U);
}

}  // namespace
}  // namespace convolt::test
