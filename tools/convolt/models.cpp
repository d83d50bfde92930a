#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "commands.h"
#include "convolt/convolt.h"
#include "json_text.h"

namespace convolt::cli {
namespace {

struct ModelRow {
  const ModelInfo& model;
  int64_t parameters, multiply_adds;
};

ModelRow row_of(const ModelInfo& model) {
  Graph graph;
  build_model(graph, model, {.classes = 0, .channels = model.channels});
  return {model, graph.parameter_count(), forward_multiply_adds(graph)};
}

void print_json() {
  auto list = nlohmann::ordered_json::array();
  for (const ModelInfo& m : models()) {
    const ModelRow r = row_of(m);
    list.push_back({{"model", m.name},
                    {"parameters", r.parameters},
                    {"multiply_adds", r.multiply_adds},
                    {"size", m.size},
                    {"resize", m.resize},
                    {"classes", m.classes},
                    {"summary", m.summary}});
  }
  fmt::print("{}\n", json_text(list));
}

}  // namespace

int list_models(bool json) {
  if (json) {
    print_json();
    return 0;
  }
  fmt::print("{:<18} {:>11} {:>8} {:>5}  {}\n", "model", "parameters", "GMAC", "size", "family");
  for (const ModelInfo& m : models()) {
    const ModelRow r = row_of(m);
    fmt::print("{:<18} {:>11} {:>8.3f} {:>5}  {}\n", m.name, r.parameters, static_cast<double>(r.multiply_adds) / 1e9,
               m.size, m.summary);
  }
  return 0;
}

Subcommand add_models(CLI::App& program) {
  FlagSet flags(program, "models",
                "the networks there are: parameters, multiply-adds of one picture (GMAC = 10^9), usual picture size");
  auto json = std::make_shared<bool>(false);
  flags.toggle("--json", *json, "one JSON array");
  flags.footer("Example:\n  convolt models\nA network of your own: docs/network-format.md, --model FILE.json");
  return {flags, [json] { return list_models(*json); }};
}

}  // namespace convolt::cli
