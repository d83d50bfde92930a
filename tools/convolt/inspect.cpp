#include <fmt/format.h>

#include "commands.h"
#include "flags.h"
#include "io/atomic_file.h"

namespace convolt::cli {
namespace {

struct InspectCommand {
  DeviceFlags device;
  std::string model, checkpoint, export_json;
  int64_t classes = 0;
  int batch = 1, size = 0, channels = 0;
  bool training = false, json = false, list = false, no_passes = false;
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

template <class AnyPlan>
void print(const InspectCommand& c, const ModelCard& card, const Graph& graph, const AnyPlan& plan) {
  if (c.json)
    fmt::print("{}\n", plan.describe_json());
  else
    fmt::print("{}: {} parameters, {} classes, {}x{}x{}\n{}", card.model, graph.parameter_count(), card.classes,
               card.height, card.width, card.channels, plan.describe());
}

int run_inspect(const InspectCommand& c) {
  if (c.list) return list_models(c.json);
  if (c.model.empty() == c.checkpoint.empty()) throw UsageError("give --model NAME, --checkpoint FILE or --list");
  ModelCard card;
  if (!c.checkpoint.empty()) card = read_card(c.checkpoint);
  const ModelInfo model = c.checkpoint.empty() ? find_model(c.model) : model_of(card);
  if (c.checkpoint.empty()) {
    card.model = c.model;
    card.classes = c.classes > 0 ? c.classes : model.classes;
    card.channels = c.channels > 0 ? c.channels : model.channels;
    card.height = card.width = c.size > 0 ? c.size : model.size;
  }
  if (!c.export_json.empty()) return write_json(c, model, card);
  Graph graph;
  build_model(graph, model, {card.classes, card.height, card.width, card.channels});
  const bool described = c.device.is_described();
  const auto context = described ? Context::create(Device::cpu()) : c.device.make_context();
  Params params = Params::zeros(*context, graph);
  Optimizer sgd(params);
  PlanOptions options;
  options.batch = c.batch;
  options.dtype = c.device.type();
  options.tf32 = c.device.tf32();
  options.training = c.training;
  options.height = options.width = c.size;
  if (c.training) {
    options.optimizer = &sgd;
    options.augment = usual_pictures(model, c.size > 0 ? c.size : card.height, card.channels);
  }
  if (c.no_passes) options.passes = Passes::none();
  if (described) {
    const PlanOutline outline(graph, params, options, c.device.device);
    print(c, card, graph, outline);
  } else {
    print(c, card, graph, Plan(graph, params, options));
  }
  return 0;
}

}  // namespace

Subcommand add_inspect(CLI::App& program) {
  FlagSet flags(program, "inspect", "show the plan of a network: ops, shapes, bytes, FLOPs, kernels, memory");
  auto c = std::make_shared<InspectCommand>();
  flags.toggle("--list", c->list, "the networks there are; the same as convolt models");
  flags.option("--model", c->model, "name of a network, or a network file: FILE.json");
  flags.option("--checkpoint", c->checkpoint, "the network of a checkpoint");
  flags.option("--num-classes", c->classes, "outputs [the model's]").check(at_least(1)).hide_default();
  flags.option("-b,--batch-size", c->batch, "pictures in a batch").check(at_least(1));
  flags.option("--size", c->size, "side of the pictures [the model's]").check(at_least(1)).hide_default();
  flags.option("--channels", c->channels, "channels of the pictures, 1 or 3 [the model's]")
      .check(one_of({"1", "3"}))
      .hide_default();
  flags.option("--export-json", c->export_json, "write the network as FILE.json, for --model, and do nothing else");
  flags.toggle("--training", c->training, "the plan of a training step instead of evaluation");
  flags.toggle("--no-passes", c->no_passes, "without any pass");
  flags.toggle("--json", c->json, "one JSON object");
  c->device.add(flags, true);
  flags.footer(
      "Example:\n  convolt inspect --model resnet50 -b 64 --training\n"
      "  convolt inspect --model resnet50 -b 256 --dtype f16 --training --device h200 --json");
  return {flags, [c] { return run_inspect(*c); }};
}

}  // namespace convolt::cli
