// Networks by name: their parameters against recorded tables of other people's implementations, and the kernels they
// get.
#include "convolt/models.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <set>

#include "convolt/error.h"
#include "graph/lower.h"
#include "graph/networks.h"
#include "graph/op.h"

namespace convolt::test {
namespace {

using Table = std::map<std::string, std::string>;  // name -> "64x3x7x7"

Table golden(const std::string& model) {
  std::ifstream file(CONVOLT_SOURCE_DIR "/tests/graph/golden/" + model + ".tsv");
  Table table;
  std::string line;
  std::getline(file, line);  // the heading
  while (std::getline(file, line)) table[line.substr(0, line.find('\t'))] = line.substr(line.find('\t') + 1);
  return table;
}

Table parameters(const Graph& graph) {
  Table table;
  for (const ParamSpec& spec : graph.params()) {
    const Shape extents = spec.file_shape();
    std::string shape = std::to_string(extents[0]);
    for (int i = 1; i < extents.rank(); ++i) shape.append("x").append(std::to_string(extents[i]));
    table[spec.name] = shape;
  }
  return table;
}

struct Known {
  const char* model;
  int64_t classes, parameters;
  bool table;
  int channels = 3;
};
// torchvision 0.29; CIFAR: Y. Idelbayev's pytorch_resnet_cifar10 (the paper says 0.27 M, 0.46 M, 0.66 M, 0.85 M and 1.7
// M); lenet: Y. LeCun's 156 + 2416 + 48120 + 10164 + 850, with full connections in the second convolution.
constexpr Known kKnown[] = {
    {"resnet18", 1000, 11689512, true},  {"resnet34", 1000, 21797672, true},  {"resnet50", 1000, 25557032, true},
    {"resnet101", 1000, 44549160, true}, {"resnet152", 1000, 60192808, true}, {"mobilenet_v2", 1000, 3504872, true},
    {"resnet20", 10, 269722, true},      {"resnet32", 10, 464154, true},      {"resnet44", 10, 658586, false},
    {"resnet56", 10, 853018, false},     {"resnet110", 10, 1727962, false},   {"lenet", 10, 61706, false, 1}};

class ModelTest : public testing::TestWithParam<Known> {};

TEST_P(ModelTest, HasTheParametersOfTheReferenceImplementation) {
  const Known& known = GetParam();
  Graph graph;
  build_model(graph, known.model, {.classes = known.classes, .channels = known.channels});
  EXPECT_EQ(graph.parameter_count(), known.parameters);
  if (!known.table) return;
  const Table expected = golden(known.model);
  ASSERT_FALSE(expected.empty());
  EXPECT_EQ(parameters(graph), expected);
}

INSTANTIATE_TEST_SUITE_P(Models, ModelTest, testing::ValuesIn(kKnown),
                         [](const auto& test) { return std::string(test.param.model); });

TEST(Models, EachIsKnownElsewhere) {
  for (const ModelInfo& model : models())
    EXPECT_TRUE(std::any_of(std::begin(kKnown), std::end(kKnown), [&](const Known& k) {
      return k.model == model.name;
    })) << model.name;
}

TEST(Models, AnUnknownNameOffersTheNearest) {
  try {
    find_model("resnet2O");
    FAIL();
  } catch (const UsageError& e) {
    EXPECT_NE(
        std::string(e.what()).find("unknown model 'resnet2O', did you mean 'resnet20'? (known: lenet, resnet20, "),
        std::string::npos)
        << e.what();
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
