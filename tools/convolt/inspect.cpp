#include <fmt/format.h>

#include "commands.h"
#include "flags.h"

namespace convolt::cli {
namespace {

struct InspectCommand {
  DeviceFlags device;
  std::string model, checkpoint;
  int64_t classes = 1000;
  int batch = 1, size = 0, channels = 3;
  bool training = false, json = false, list = false, no_passes = false;
};

int list_models() {
  fmt::print("{:<14} {:>12}  {:>5}  {}\n", "model", "parameters", "size", "");
  for (const ModelInfo& m : models()) {
    Graph g;
    const bool imagenet = m.recipe == ModelInfo::Recipe::imagenet;
    build_model(g, m.name,
                {.classes = imagenet ? 1000 : 10, .channels = m.recipe == ModelInfo::Recipe::digits ? 1 : 3});
    fmt::print("{:<14} {:>12}  {:>5}  {}\n", m.name, g.parameter_count(), m.size, m.summary);
  }
  return 0;
}

int run_inspect(const InspectCommand& c) {
  if (c.list) return list_models();
  if (c.model.empty() == c.checkpoint.empty()) throw UsageError("give --model NAME, --checkpoint FILE or --list");
  ModelCard card;
  card.model = c.model;
  card.classes = c.classes;
  card.channels = c.channels;
  card.height = card.width = c.size > 0 || c.model.empty() ? c.size : find_model(c.model).size;
  if (!c.checkpoint.empty()) card = read_card(c.checkpoint);
  Graph graph;
  build_model(graph, card.model, {card.classes, card.height, card.width, card.channels});
  const auto context = c.device.make_context();
  Params params(*context, graph, 0);
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
  CLI::App* app =
      program.add_subcommand("inspect", "show the plan of a network: ops, shapes, bytes, FLOPs, kernels, memory");
  auto c = std::make_shared<InspectCommand>();
  app->add_flag("--list", c->list, "the networks there are");
  app->add_option("--model", c->model, "name of a network");
  app->add_option("--checkpoint", c->checkpoint, "the network of a checkpoint");
  app->add_option("--num-classes", c->classes, "outputs")->check(at_least(1))->capture_default_str();
  app->add_option("-b,--batch-size", c->batch, "pictures in a batch")->check(at_least(1))->capture_default_str();
  app->add_option("--size", c->size, "side of the pictures [the model's]")->check(at_least(1));
  app->add_option("--channels", c->channels, "channels of the pictures")
      ->check(CLI::IsMember({1, 3}))
      ->capture_default_str();
  app->add_flag("--training", c->training, "the plan of a training step instead of evaluation");
  app->add_flag("--no-passes", c->no_passes, "without fold, fuse, in-place and dead code");
  app->add_flag("--json", c->json, "one JSON object");
  c->device.add(*app);
  app->footer("Example:\n  convolt inspect --model resnet50 -b 64 --training");
  return {app, [c] { return run_inspect(*c); }};
}

}  // namespace convolt::cli
