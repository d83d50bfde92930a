#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "commands.h"
#include "io/atomic_file.h"
#include "plan_flags.h"

namespace convolt::cli {
namespace {

struct InspectCommand {
  PlanFlags plan;
  std::string export_json;
  bool json = false, list = false, no_passes = false;
};

// The network alone, without weights, in the format of docs/network-format.md.
int write_json(const InspectCommand& c, const ModelInfo& model, const ModelCard& card) {
  Graph graph;
  build_model(graph, model, {card.classes, card.height, card.width, card.channels});
  AtomicFile file(c.export_json);
  file.write(write_network(graph, model));
  file.commit();
  return 0;
}

void print(const InspectCommand& c, const ModelCard& card, const Graph& graph, const PlanOutline& plan) {
  if (c.json) {
    const nlohmann::ordered_json network{{"model", card.model},
                                         {"parameters", graph.parameter_count()},
                                         {"classes", card.classes},
                                         {"channels", card.channels}};
    std::string text = network.dump();  // an object that goes on with what the plan says
    text.back() = ',';
    fmt::print("{}{}\n", text, plan.describe_json().substr(1));
  } else {
    fmt::print("{}: {} parameters, {} classes, {}x{}x{}\n{}", card.model, graph.parameter_count(), card.classes,
               card.height, card.width, card.channels, plan.describe());
  }
}

int run_inspect(const InspectCommand& c) {
  if (c.list) return list_models(c.json);
  if (!c.export_json.empty() && !c.export_json.ends_with(".json"))
    throw UsageError("--export-json '" + c.export_json + "': expected a name that ends in .json");
  if (c.plan.model.empty() && c.plan.checkpoint.empty())
    throw UsageError("give --model NAME, --checkpoint FILE or --list");
  ModelCard card;
  const ModelInfo model = c.plan.network(card);
  if (!c.export_json.empty()) return write_json(c, model, card);
  Graph graph;
  build_model(graph, model, {card.classes, card.height, card.width, card.channels});
  const bool described = c.plan.device.is_described();
  const auto context = described ? Context::create(Device::cpu()) : c.plan.device.make_context();
  Params params = Params::zeros(*context, graph);
  Optimizer sgd(params);
  PlanOptions options = c.plan.options();
  if (options.training) {
    options.optimizer = &sgd;
    options.augment = usual_pictures(model, card.height, card.channels);
    options.augment->width = card.width;
  }
  if (c.no_passes) options.passes = Passes::none();
  if (described)
    print(c, card, graph, PlanOutline(graph, params, options, c.plan.device.device));
  else
    print(c, card, graph, PlanOutline(graph, params, options));
  return 0;
}

}  // namespace

Subcommand add_inspect(CLI::App& program) {
  FlagSet flags(program, "inspect", "show the plan of a network: ops, shapes, bytes, FLOPs, kernels, memory");
  auto c = std::make_shared<InspectCommand>();
  Flag list = flags.toggle("--list", c->list, "the networks there are; the same as convolt models");
  c->plan.add(flags);
  list.excludes(flags.find("--model")).excludes(flags.find("--checkpoint"));
  flags.option("--export-json", c->export_json, "write the network as FILE.json, for --model, and do nothing else");
  flags.toggle("--no-passes", c->no_passes, "without any pass");
  flags.toggle("--json", c->json, "one JSON object");
  c->plan.device.add(flags, true);
  flags.footer(
      "Example:\n  convolt inspect --model resnet50 -b 64 --training\n"
      "  convolt inspect --model resnet50 -b 256 --dtype f16 --training --device h200 --json");
  return {flags, [c] { return run_inspect(*c); }};
}

}  // namespace convolt::cli
