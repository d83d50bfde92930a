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
  const auto context = c.device.make_context();
  Params params = Params::zeros(*context, graph);
  Optimizer sgd(params);
  PlanOptions options;
  options.batch = c.batch;
  options.dtype = c.device.type();
  options.tf32 = c.device.tf32();
  options.training = c.training;
  options.height = options.width = c.size;
  if (c.training) options.optimizer = &sgd;
  if (c.no_passes) options.passes = {false, false, false, false};
  const Plan plan(graph, params, options);
  if (c.json) {
    fmt::print("{}\n", plan.describe_json());
  } else {
    fmt::print("{}: {} parameters, {} classes, {}x{}x{}\n{}", card.model, graph.parameter_count(), card.classes,
               card.height, card.width, card.channels, plan.describe());
    fmt::print("memory: parameters {:.1f} MB, optimizer {:.1f} MB, slab {:.1f} MB\n",
               static_cast<double>(params.bytes()) / 1e6, c.training ? static_cast<double>(sgd.bytes()) / 1e6 : 0.0,
               static_cast<double>(plan.slab_bytes()) / 1e6);
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
  flags.toggle("--no-passes", c->no_passes, "without fold, fuse, in-place and dead code");
  flags.toggle("--json", c->json, "one JSON object");
  c->device.add(flags);
  flags.footer("Example:\n  convolt inspect --model resnet50 -b 64 --training");
  return {flags, [c] { return run_inspect(*c); }};
}

}  // namespace convolt::cli
