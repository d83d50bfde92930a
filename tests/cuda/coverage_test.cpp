// Which convolutions of every model cuDNN fuses with batch norms on an H200, and which our own kernels do: the
// described device says the same as the library itself, and docs/conv-coverage.md is what comes out.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <thread>

#include "conv/cuda_provider.h"
#include "conv/described_device.h"
#include "convolt/models.h"
#include "graph/lower.h"
#include "graph/passes/fusion.h"
#include "graph/program.h"

namespace convolt::test {
namespace {

struct Fusion {
  const char* name;
  ConvPass pass;
  ConvPrologue prologue;
  ConvEpilogue epilogue;
  DType dtype = DType::f16;
};
constexpr Fusion kFusions[] = {
    {"statistics", ConvPass::fprop, ConvPrologue::none, ConvEpilogue::stats},
    {"prologue + statistics", ConvPass::fprop, ConvPrologue::scale_bias_relu, ConvEpilogue::stats},
    {"dgrad + ReLU + sums", ConvPass::dgrad, ConvPrologue::none, ConvEpilogue::drelu_bn_reduce},
    {"prologue + wgrad", ConvPass::wgrad, ConvPrologue::scale_bias_relu, ConvEpilogue::none}};

// What our own kernels are for.
constexpr Fusion kOwnFusions[] = {
    {"f16 prologue + statistics", ConvPass::fprop, ConvPrologue::scale_bias_relu, ConvEpilogue::stats},
    {"f16 dgrad + join", ConvPass::dgrad, ConvPrologue::none, ConvEpilogue::join},
    {"bf16 statistics", ConvPass::fprop, ConvPrologue::none, ConvEpilogue::stats, DType::bf16},
    {"bf16 dgrad + ReLU + sums", ConvPass::dgrad, ConvPrologue::none, ConvEpilogue::drelu_bn_reduce, DType::bf16},
    {"bf16 dgrad + join", ConvPass::dgrad, ConvPrologue::none, ConvEpilogue::join, DType::bf16}};

ConvDesc desc_of(const Fusion& f, const ConvGeometry& geometry) {
  return {.pass = f.pass, .geometry = geometry, .dtype = f.dtype, .prologue = f.prologue, .epilogue = f.epilogue};
}

std::string device_json() {
  std::ifstream file(CONVOLT_SOURCE_DIR "/tests/cuda/h200.json", std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct Shape {
  std::string model;  // the first that has it
  ConvGeometry geometry;
  bool offered[std::size(kFusions)] = {}, own[std::size(kOwnFusions)] = {};
};

// Every convolution of every model at its usual size, the first over blocks of pixels, each shape once.
std::vector<Shape> distinct_shapes() {
  const auto provider = make_described_provider(described_device("h200"));
  std::vector<Shape> found;
  std::set<std::string> seen;
  for (const ModelInfo& model : models()) {
    Graph graph;
    build_model(graph, model.name, {.classes = 10, .channels = model.recipe == ModelInfo::Recipe::digits ? 1 : 3});
    Program program = lower(graph, {.batch = model.size >= 224 ? 64 : 128, .dtype = DType::f16});
    lay_out_stem(program, {*provider}, false);
    for (const Op& op : program.step)
      if (const auto* conv = std::get_if<ConvAttrs>(&op.attrs))
        if (seen.insert(conv->desc.geometry.to_string()).second)
          found.push_back({std::string(model.name), conv->desc.geometry});
  }
  return found;
}

std::string class_of(const ConvGeometry& g) {
  if (g.groups == g.in_c && g.groups > 1) return "depthwise";
  if (g.groups > 1) return "grouped";
  return g.in_c % 8 != 0 || g.out_c % 8 != 0 ? "dense, channels not in eights" : "dense";
}

std::string yes_of(int yes, int all) { return yes == all ? "all" : yes == 0 ? "-" : std::to_string(yes); }

std::string document(const std::vector<Shape>& shapes) {
  std::ostringstream out;
  out << "# Which convolutions are fused with batch norms\n\n"
         "Made by `tests/cuda/coverage_test.cpp`, which asks cuDNN (9.19) for plans on an H200 that is not there: f16, "
         "the\nshapes of every model at its usual size, the first convolution over blocks of pixels. Numbers are "
         "distinct shapes, counted under the first model "
         "that has them.\nIn bf16 and f32 cuDNN has none of the four. The last five columns are our own kernels' "
         "(`kernels/pointwise.h`): 1x1, stride 1,\nwhere a plain product with a sweep behind it should take longer by "
         "bytes and operations. Shapes without a fusion run plain, with\nthe sweeps of their batch norms beside them; "
         "plans say nothing of speed.\n\n"
         "| model | kind | shapes |";
  for (const Fusion& f : kFusions) out << " " << f.name << " |";
  for (const Fusion& f : kOwnFusions) out << " " << f.name << " |";
  out << "\n|---|---|---|---|---|---|---|---|---|---|---|---|\n";
  for (size_t i = 0; i < shapes.size();) {
    std::map<std::string, std::vector<const Shape*>> kinds;
    const std::string model = shapes[i].model;
    for (; i < shapes.size() && shapes[i].model == model; ++i)
      kinds[class_of(shapes[i].geometry)].push_back(&shapes[i]);
    for (const auto& [kind, of_kind] : kinds) {
      out << "| " << model << " | " << kind << " | " << of_kind.size() << " |";
      for (size_t f = 0; f < std::size(kFusions); ++f) {
        int yes = 0;
        for (const Shape* s : of_kind) yes += s->offered[f];
        out << " " << yes_of(yes, static_cast<int>(of_kind.size())) << " |";
      }
      for (size_t f = 0; f < std::size(kOwnFusions); ++f) {
        int yes = 0;
        for (const Shape* s : of_kind) yes += s->own[f];
        out << " " << yes_of(yes, static_cast<int>(of_kind.size())) << " |";
      }
      out << "\n";
    }
  }
  return out.str();
}

// Whether a kernel of that name is among the candidates.
bool has(ConvProvider& provider, const ConvDesc& desc, std::string_view name) {
  for (const auto& kernel : provider.candidates(desc))
    if (kernel->name() == name) return true;
  return false;
}

TEST(Coverage, DescribedDevicesAnswerAsCudnnDoes) {
  try {
    cudnn_version();
  } catch (const DeviceError& e) {
    GTEST_SKIP() << e.what();
  }
  const std::string device = device_json();
  const auto described = make_described_provider(described_device("h200"));
  std::vector<Shape> shapes = distinct_shapes();
  ASSERT_GE(shapes.size(), 60U);
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < shapes.size(); i = next++)
      for (size_t f = 0; f < std::size(kFusions); ++f) {
        const Fusion& fusion = kFusions[f];
        shapes[i].offered[f] = !deviceless_plans(desc_of(fusion, shapes[i].geometry), device).empty();
      }
  };
  std::thread second(work);
  work();
  second.join();
  for (const Shape& s : shapes)
    for (size_t f = 0; f < std::size(kFusions); ++f) {
      const Fusion& fusion = kFusions[f];
      const bool said = has(*described, desc_of(fusion, s.geometry), "cuDNN");
      EXPECT_EQ(said, s.offered[f]) << s.model << ": " << s.geometry.to_string() << ", " << fusion.name;
    }
  for (Shape& s : shapes)
    for (size_t f = 0; f < std::size(kOwnFusions); ++f)
      s.own[f] = has(*described, desc_of(kOwnFusions[f], s.geometry), "convolt pointwise");
  const std::string made = document(shapes);
  std::ifstream file(CONVOLT_SOURCE_DIR "/docs/conv-coverage.md");
  const std::string kept{std::istreambuf_iterator<char>(file), {}};
  if (made != kept) {
    std::ofstream("conv-coverage.md") << made;
    ADD_FAILURE() << "docs/conv-coverage.md is not what cuDNN says now; a new one lies in conv-coverage.md here";
  }
}

}  // namespace
}  // namespace convolt::test
