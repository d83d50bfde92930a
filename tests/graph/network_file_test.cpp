// Networks as data: every model there and back, what a file may say, and what is refused.
#include "convolt/network_file.h"

#include <gtest/gtest.h>

#include <fstream>
#include <random>
#include <set>
#include <sstream>

#include "convolt/error.h"
#include "convolt/layers.h"
#include "graph/layer.h"
#include "graph/networks.h"
#include "support/temp_folder.h"

namespace convolt::test {
namespace {

// One line for each layer and each parameter: everything that makes two graphs equal.
std::string summary(const Graph& graph) {
  std::string text;
  for (const Layer& layer : graph.layers()) {
    text += std::string(layer.def->kind) + " " + layer.name + " " + layer.shape.to_string();
    for (const int i : layer.inputs) text += " " + std::to_string(i);
    text += "\n";
  }
  for (const ParamSpec& p : graph.params()) {
    text += p.name + " " + p.shape.to_string() + " " + p.file_shape().to_string() + " " + std::to_string(p.trainable) +
            std::to_string(p.decays) + " " + std::to_string(p.fan_in) + " " + std::to_string(p.fan_out) + " " +
            std::to_string(static_cast<int>(p.init.kind)) + std::to_string(static_cast<int>(p.init.fan)) + " " +
            std::to_string(p.init.gain) + "\n";
  }
  return text + std::to_string(graph.output_layer());
}

TEST(NetworkFile, HoldsEveryModel) {
  for (const ModelInfo& model : models()) {
    Graph graph, again;
    build_model(graph, model, {.classes = 0, .channels = model.channels});
    const std::string text = write_network(graph, model);
    const ModelInfo read = parse_network(model.name, text);
    build_model(again, read, {.classes = 0, .channels = model.channels});
    EXPECT_EQ(summary(again), summary(graph)) << model.name;
    EXPECT_EQ(write_network(again, read), text) << model.name;
    EXPECT_EQ(read.size, model.size);
    EXPECT_EQ(read.resize, model.resize) << model.name;
    EXPECT_EQ(read.mean, model.mean);
    EXPECT_EQ(read.recipe, model.recipe);
    EXPECT_EQ(read.summary, model.summary);
  }
}

// The networks of the plan's tests hold every kind of layer.
TEST(NetworkFile, HoldsEveryKindOfLayer) {
  std::set<std::string_view> seen;
  for (const Network& network : networks()) {
    Graph graph, again;
    network.build(graph);
    for (const Layer& layer : graph.layers()) seen.insert(layer.def->kind);
    const ModelInfo info{.name = network.name, .size = 1, .recipe = ModelInfo::Recipe::cifar};
    const std::string text = write_network(graph, info);
    const ModelInfo read = parse_network(network.name, text);
    build_model(again, read, {.classes = 0, .channels = read.channels});
    EXPECT_EQ(summary(again), summary(graph)) << network.name;
    EXPECT_EQ(write_network(again, read), text) << network.name;
  }
  for (const LayerDef* kind : all_layer_kinds()) EXPECT_EQ(seen.count(kind->kind), 1U) << kind->kind;
}

// The network of docs/network-format.md.
std::string example() {
  std::ifstream file(CONVOLT_SOURCE_DIR "/docs/network-format.md");
  std::ostringstream text;
  text << file.rdbuf();
  const std::string begin = "```json\n", page = text.str();
  const size_t first = page.find(begin) + begin.size();
  return page.substr(first, page.find("```", first) - first);
}

std::string with(const std::string& from, const std::string& to) {
  std::string text = example();
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(NetworkFile, TheExampleReads) {
  const ModelInfo info = parse_network("net.json", example());
  EXPECT_EQ(info.size, 32);
  EXPECT_EQ(info.recipe, ModelInfo::Recipe::cifar);
  Graph graph;
  build_model(graph, info, {.classes = 7, .height = 20, .width = 24, .channels = 1});
  EXPECT_EQ(graph.classes(), 7);
  EXPECT_EQ(graph.layers()[0].shape, (Shape{20, 24, 1}));
  EXPECT_EQ(graph.layers()[5].name, "add1");
  EXPECT_EQ(graph.layers()[5].inputs, (std::vector<int>{4, 3}));
  EXPECT_EQ(graph.parameter_count(), 1 * 9 * 16 + 32 + 16 * 3 * 16 + 16 + 16 * 7 + 7);
}

std::string error_of(const std::string& text) {
  try {
    parse_network("net.json", text);
  } catch (const FormatError& e) {
    return e.what();
  }
  return "no error";
}

TEST(NetworkFile, ErrorsNameTheLayerAndTheRemedy) {
  EXPECT_EQ(error_of(with("\"kernel\": 3", "\"kernel\": \"x\"")),
            "net.json: layer 1 'stem': 'kernel': expected a whole number, found \"x\"");
  EXPECT_EQ(
      error_of(with("\"kernel\": 3", "\"kernal\": 3")),
      "net.json: layer 1 'stem': unknown 'kernal', did you mean 'kernel'?; it takes kind, name, inputs, channels, "
      "kernel, stride, padding, dilation, groups, bias, init, bias_init");
  EXPECT_EQ(error_of(with("\"kernel\": 3", "\"kernel\": 77")),
            "net.json: layer 1 'stem': conv2d 'stem': kernel 77 exceeds padded input 34x34");
  EXPECT_EQ(error_of(with("batch_norm", "bach_norm")).substr(0, 78),
            "net.json: layer 2 'norm': unknown kind 'bach_norm', did you mean 'batch_norm'?");
  EXPECT_EQ(error_of(with("\"act\"]", "\"akt\"]")),
            "net.json: layer 5: no layer before it is named 'akt', did you mean 'act'?");
  EXPECT_EQ(error_of(with(", \"act\"]", "]")), "net.json: layer 5: add 'add1': expected 2 inputs, found 1");
  EXPECT_EQ(error_of(with("\"name\": \"norm\"", "\"name\": \"stem\"")),
            "net.json: layer 2 'stem': two layers are named 'stem'");
  EXPECT_EQ(error_of(with("\"output\": \"head\"", "\"output\": \"stem\"")),
            "net.json: 'output': the output must be a vector of logits [K], found [32, 32, 16]; flatten() or pool it "
            "first");
  EXPECT_EQ(error_of(with("\"units\": \"classes\"", "\"units\": 12")),
            "net.json: expected 10 outputs, found 12; give the last layer \"classes\" in place of a number, so that it "
            "follows the data set");
  EXPECT_EQ(error_of(with("\"convolt_network\": 1", "\"convolt_network\": 2")),
            "net.json: expected \"convolt_network\": 1, found 2");
  EXPECT_EQ(error_of(with("{\"kind\": \"global_avg_pool\"}", "7")),
            "net.json: layer 6: expected an object {...}, found 7");
  EXPECT_EQ(error_of("{}"), "net.json: expected \"convolt_network\": 1, found none");
  EXPECT_EQ(error_of("[1").substr(0, 60), "net.json: it is not JSON: parse error at line 1, column 3: s");
  EXPECT_EQ(error_of(with("\"kernel\": 3", "\"kernel\": 2000")),
            "net.json: layer 1 'stem': 'kernel': expected a whole number from -1024 to 1024, found 2000");
  EXPECT_EQ(error_of(with("\"units\": \"classes\"", "\"units\": \"clases\"")),
            "net.json: layer 7 'head': 'units': expected a whole number or \"classes\", found \"clases\"");
  EXPECT_EQ(error_of(with("\"kernel\": 3", "\"kernel\": 3, \"kernel\": 5")), "net.json: an object has two 'kernel'");
  EXPECT_EQ(error_of(with("\"resize\": 32", "\"resize\": -5")),
            "net.json: 'preprocessing': 'resize': expected at least 1, found -5");
  EXPECT_EQ(error_of(with("\"resize\": 32", "\"std\": [1, 0, 1]")),
            "net.json: 'preprocessing': 'std': expected numbers above 0, found 0");
  EXPECT_EQ(error_of(with("\"size\": 32", "\"size\": [0, 32]")),
            "net.json: 'input': 'size': expected at least 1, found 0 x 32");
}

// What would fail when the first checkpoint is written, after an epoch.
TEST(NetworkFile, NamesOfParametersAreTheirOwn) {
  EXPECT_EQ(error_of(with("\"kind\": \"relu\", \"name\": \"act\"}",
                          "\"kind\": \"relu\", \"name\": \"act\"}, {\"kind\": \"layer_scale\", \"name\": "
                          "\"stem.weight\"}, {\"kind\": \"relu\"}")),
            "net.json: layer 4 'stem.weight': two parameters are called 'stem.weight': give layer 'stem.weight' "
            "another name");
  for (const char* name : {"ema.norm", "optim.norm", "__metadata__"})
    EXPECT_NE(
        error_of(with("\"kind\": \"relu\", \"name\": \"act\"}",
                      std::string("\"kind\": \"relu\", \"name\": \"act\"}, {\"kind\": \"layer_scale\", \"name\": \"") +
                          name + "\"}, {\"kind\": \"relu\"}"))
            .find("checkpoints mean something else by that name"),
        std::string::npos)
        << name;
}

// What a layer wanted that could not be made is free again.
TEST(GraphNames, ALayerThatIsRefusedTakesNoNames) {
  Graph g;
  const Value x = g.input("image", {8, 8, 3});
  const Value scaled = layer_scale(x, {.name = "x.bias"});
  EXPECT_THROW(batch_norm(scaled, {.name = "x"}), UsageError);
  EXPECT_NO_THROW(conv2d(scaled, 4, {.name = "x", .kernel = 3}));
}

// The program's pictures are square; of those that are not the library knows both sides.
TEST(NetworkFile, PicturesThatAreNotSquare) {
  const std::string text = with("\"size\": 32", "\"size\": [24, 40]");
  const ModelInfo info = parse_network("net.json", text);
  EXPECT_EQ(info.size, 24);
  EXPECT_EQ(info.width, 40);
  Graph graph;
  build_model(graph, info, {});
  EXPECT_EQ(graph.layers()[0].shape, Shape({24, 40, 3}));
  const TempFolder folder;
  std::ofstream(folder.path("net.json")) << text;
  EXPECT_THROW(find_model(folder.path("net.json")), UsageError);
}

TEST(NetworkFile, StartsOfParametersAreWhole) {
  const auto start = [](const std::string& text) {
    Graph graph;
    const ModelInfo info = parse_network("net.json", with("\"kernel\": 3", "\"kernel\": 3, \"init\": " + text));
    build_model(graph, info, {});
    return graph.params()[0].init;
  };
  const Init normal = start(R"({"kind": "normal", "gain": 0.02})"), wider = start(R"({"gain": 3})");
  EXPECT_EQ(normal.kind, Init::Kind::normal);
  EXPECT_EQ(normal.gain, 0.02F);
  EXPECT_EQ(normal.fan, Init::Fan::none);
  EXPECT_EQ(wider.gain, 3);
  EXPECT_EQ(wider.fan, Init::Fan::out);  // of convolutions
  EXPECT_EQ(error_of(with("\"kernel\": 3", "\"kernel\": 3, \"init\": {\"kind\": \"normal\"}")),
            "net.json: layer 1 'stem': 'init': expected 'gain' beside 'kind', found {\"kind\":\"normal\"}");
}

TEST(NetworkFile, WhatIsUsualNeedNoWord) {
  const std::string text = with(R"("input": {"size": 32, "channels": 3},)", "");
  const ModelInfo info = parse_network("net.json", text);
  EXPECT_EQ(info.size, 224);
  EXPECT_EQ(info.channels, 3);
}

// Extents whose product would overflow are refused before anything multiplies them.
TEST(NetworkFile, RefusesWhatCannotBe) {
  const std::string deep(1000000, '['), closed = deep + std::string(1000000, ']');
  EXPECT_EQ(error_of(deep), "net.json: it has more than 64 lists in lists");
  EXPECT_EQ(error_of(closed), "net.json: it has more than 64 lists in lists");
  EXPECT_NE(error_of(with("\"channels\": 16", "\"channels\": 1048577")), "no error");
  EXPECT_NE(error_of(with("\"channels\": 16", "\"channels\": 18446744073709551615")), "no error");
  EXPECT_NE(error_of(with("\"channels\": 16", "\"channels\": -5")), "no error");
  EXPECT_NE(error_of(with("\"kind\": \"relu\"", "\"kind\": \"split_part\", \"place\": 3")), "no error");
  EXPECT_NE(error_of(with("\"kind\": \"relu\"", "\"kind\": \"input\"")), "no error");
  EXPECT_NE(error_of(with("\"size\": 32", "\"size\": 0")), "no error");
  EXPECT_NE(error_of(std::string(5 << 20, ' ')), "no error");
  std::string doubling;  // 64 times twice the channels
  for (int i = 0; i < 64; ++i)
    doubling += R"({"kind": "concat", "name": "c)" + std::to_string(i) + R"(", "inputs": [")" +
                (i == 0 ? "act" : "c" + std::to_string(i - 1)) + R"(", ")" +
                (i == 0 ? "act" : "c" + std::to_string(i - 1)) + R"("]},)";
  EXPECT_NE(error_of(with("{\"kind\": \"global_avg_pool\"}", doubling + "{\"kind\": \"global_avg_pool\"}"))
                .find("beyond what a network may have"),
            std::string::npos);
}

// Any text is read, and then lowered, or refused with an error of ours.
TEST(NetworkFile, DamagedTextsAreRefusedOrRead) {
  std::vector<std::string> wholes{example()};
  for (const Network& network : networks()) {
    Graph graph;
    network.build(graph);
    wholes.push_back(write_network(graph, {.name = network.name, .size = 1, .recipe = ModelInfo::Recipe::cifar}));
  }
  std::mt19937 random(1);
  const std::string tokens[] = {
      "0",     "-1",          "1048576", "[",      "]",       "{",      "}",    ",",      "\"",   "null",
      "1e300", "\"classes\"", "split",   "linear", "flatten", "inputs", "stem", "concat", "size", "adaptive_avg_pool"};
  int read = 0;
  for (int round = 0; round < 6000; ++round) {
    std::string text = wholes[static_cast<size_t>(round) % wholes.size()];
    for (uint32_t change = 0; change <= random() % 3; ++change) {
      const size_t at = random() % text.size();
      const std::string& token = tokens[random() % std::size(tokens)];
      text = text.replace(at, std::min<size_t>(random() % 6, text.size() - at), token);
    }
    try {
      const ModelInfo info = parse_network("net.json", text);
      Graph graph;
      build_model(graph, info, {.classes = 0, .channels = info.channels});
      forward_multiply_adds(graph);  // lowering holds too
      ++read;
    } catch (const FormatError&) {
      continue;
    }
  }
  EXPECT_GT(read, 10);
}

}  // namespace
}  // namespace convolt::test
