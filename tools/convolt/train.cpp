#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "augment/policy.h"
#include "commands.h"
#include "convolt/error.h"
#include "convolt/version.h"
#include "flags.h"
#include "interrupt.h"
#include "json_text.h"
#include "optimizer_flags.h"
#include "progress.h"
#include "run_flags.h"
#include "say.h"
#include "text_table.h"

namespace convolt::cli {
namespace {

struct TrainCommand {
  DeviceFlags device;
  DataFlags data;
  PictureFlags pictures;
  RampFlags ramp;
  AugmentFlags augment;
  MixFlags mixing;
  OptimizerFlags optimizer;
  ScheduleFlags schedule;
  RunFlags run;
  std::string model = "resnet18", weights, finetune;
  int64_t classes = 0, steps = 0, whiten = 0;
  std::optional<double> drop_path;
  MemoryFlags memory;
  int views = 1;
  int epochs = 10;
  bool strict = true, quiet = false, json = false, dry_run = false;
  uint64_t seed = 0;
  LossFlags loss;
};

void add_flags(FlagSet& flags, TrainCommand& c) {
  c.data.add(flags, true);
  flags.group("Network");
  flags.option("--model", c.model, "network: see convolt models; or a network file, FILE.json");
  const Flag weights =
      flags.option("--weights", c.weights, "start from these weights (safetensors, torchvision's names)");
  flags
      .option("--finetune", c.finetune,
              "the same, but a last layer of another number of outputs keeps its initial values")
      .excludes(weights);
  flags
      .option("--whiten", c.whiten,
              "start with a first convolution that whitens the patches of so many training pictures (airbench94)")
      .check(at_least(1))
      .hide_default()
      .excludes(weights);
  flags.toggle("--strict,!--no-strict", c.strict,
               "every name must agree [yes]; else what is missing keeps its initial values");
  flags
      .option("--drop-path", c.drop_path,
              "stochastic depth: chance to drop the last residual block for a picture, rising linearly from 0 at the "
              "first [the network's own]")
      .check(between(0.0, 1.0));
  flags.option("--num-classes", c.classes, "outputs [classes of the data set]").check(at_least(1)).hide_default();

  flags.group("Training");
  flags.option("--epochs", c.epochs, "passes over the data set").check(at_least(1));
  flags.option("--steps", c.steps, "stop after so many updates in all, whatever --epochs says")
      .check(at_least(1))
      .hide_default();
  flags.option("--seed", c.seed, "of weights, order, augmentation and dropout");
  c.loss.add(flags);
  c.optimizer.add(flags);
  c.schedule.add(flags);
  c.pictures.add(flags, true);
  c.ramp.add(flags);
  add_views(flags, c.views);
  c.augment.add(flags);
  c.mixing.add(flags);
  c.device.add(flags);
  c.memory.add(flags, "what is free");
  add_config(flags);
  add_recipe(flags);
  flags.toggle("--dry-run", c.dry_run, "print every flag as it turns out, and train nothing");

  c.run.add(flags);
  flags.group("Output");
  flags.toggle("--quiet,-q", c.quiet, "no progress");
  flags.toggle("--json", c.json, "the result as one JSON object on stdout");
  flags.footer(
      "Example:\n  convolt train --data-path DATA --model resnet20 --epochs 10 -b 128 --rotate 15 --hflip 0.5 "
      "--output-dir run");
}

// The flags of this training as they turned out, so that they repeat it elsewhere and with other defaults.
std::vector<ConfigEntry> resolve(const FlagSet& flags, const TrainCommand& c, const Pipeline& pipeline,
                                 const Context& context, int64_t classes) {
  Resolved resolved;
  const auto absolute = [&](const char* flag, const std::string& path) {
    if (!path.empty()) resolved[flag] = {std::filesystem::absolute(path).lexically_normal().string()};
  };
  absolute("data-path", c.data.path);
  absolute("val-data-path", c.data.validation_path);
  absolute("weights", c.weights);
  absolute("finetune", c.finetune);
  absolute("teacher", c.loss.teacher);
  if (c.model.ends_with(".json")) absolute("model", c.model);
  if (c.loss.class_weights != "balanced") absolute("class-weights", c.loss.class_weights);
  resolved["num-classes"] = {std::to_string(classes)};
  resolved["decoder"] = {c.data.decoder.resolved()};
  resolved["device"] = {context.device().to_string()};
  resolved["threads"] = {std::to_string(context.threads())};
  c.optimizer.resolve(c.optimizer.options(flags), resolved);
  c.schedule.leave_out_unread(resolved);
  cli::resolve(pipeline, resolved);
  return resolved_config(flags, resolved);
}

TrainOptions train_options(const FlagSet& flags, const TrainCommand& c, const Pipeline& pipeline) {
  TrainOptions o;
  o.epochs = c.epochs;
  o.steps = c.steps;
  o.batch = c.data.batch;
  o.workers = c.data.worker_count();
  o.dtype = c.device.type();
  o.tf32 = c.device.tf32();
  o.kernels = c.device.kernels.options();
  o.memory_budget = c.memory.bytes();
  o.optimizer = c.optimizer.options(flags);
  o.accumulate = c.optimizer.accumulate;
  c.schedule.apply_to(o, flags);
  o.augment = pipeline.training;
  o.sizes = c.ramp.options();
  o.mixing = c.mixing.options();
  o.preprocessing = pipeline.evaluation;
  o.views = c.views;
  o.decode = c.data.decode.options();
  o.decoder = c.data.decoder.decoder();
  o.loader_memory = c.data.memory.bytes();
  o.resident = c.data.resident;
  o.sampler = c.data.order.sampling();
  o.repeats = c.data.order.repeats;
  o.seed = c.seed;
  c.run.apply_to(o);
  return o;
}

void check_validation(const TrainCommand& c, const Dataset& training, const Dataset* validation) {
  if (validation == nullptr)
    warn("there is no validation set: best is the last epoch");
  else if (validation->class_names() != training.class_names())
    throw DataError(fmt::format("the validation set '{}' has other classes than the training set: expected the same",
                                c.data.validation_path.empty() ? c.data.path : c.data.validation_path));
}

int print_result(const TrainCommand& c, const TrainResult& r, const ModelCard& card, bool trained) {
  report_bad_samples(r.bad_samples);
  if (!c.quiet && trained) say("{}\n", data_line(r.data));
  if (c.json) {
    nlohmann::ordered_json j{{"model", card.model},
                             {"steps", r.steps},
                             {"seconds", r.seconds},
                             {"interrupted", r.interrupted},
                             {"stopped_early", r.stopped_early},
                             {"bad_samples", r.bad_samples.size()},
                             {"data_wait", r.data.waited}};
    j["best_top1"] = r.best_top1 >= 0 ? nlohmann::ordered_json(r.best_top1) : nlohmann::ordered_json(nullptr);
    fmt::print("{}\n", json_text(j));
  } else if (!r.interrupted) {
    if (r.stopped_early && !c.quiet)
      say("stopped early at step {}: {} epochs without a better {}\n", r.steps, c.run.early_stop, c.run.best_metric);
    if (r.best_top1 >= 0) fmt::print("best top-1 {:.2f} %\n", 100 * r.best_top1);
    if (const auto best = std::filesystem::path(c.run.output_dir) / "best.safetensors";
        !c.run.output_dir.empty() && std::filesystem::exists(best))
      fmt::print("{}\n", best.string());
  }
  if (!r.interrupted) return 0;
  say("stopped at step {}{}\n", r.steps, c.run.output_dir.empty() ? "" : "; saved: go on with --resume auto");
  return code_of_saved(interrupt_signal);
}

void load_initial_weights(const TrainCommand& c, Params& params) {
  const std::string& path = c.finetune.empty() ? c.weights : c.finetune;
  if (path.empty()) return;
  const LoadReport r = load_weights(path, params, {.strict = c.strict, .finetune = !c.finetune.empty()});
  const auto tell = [&](const std::vector<std::string>& names, const char* what) {
    if (!names.empty()) warn(fmt::format("{}: {}: {}", path, what, fmt::join(names, ", ")));
  };
  tell(r.kept, "left at their initial values, for another number of classes");
  tell(r.missing, "not in the file, left at their initial values");
  tell(r.unexpected, "in the file but not in the network, passed over");
}

// Outputs that nothing teaches, as of labels that begin with 1.
void tell_empty_classes(const Dataset& data) {
  const auto& names = data.class_names();
  std::vector<char> has(names.size());
  for (int64_t i = 0; i < data.size(); ++i)
    if (const int32_t label = data.label(i); label >= 0) has[static_cast<size_t>(label)] = 1;
  const auto empty = std::find(has.begin(), has.end(), 0);
  if (empty == has.end()) return;
  warn(fmt::format("{} of {} classes have no picture for training, '{}' the first of them",
                   std::count(has.begin(), has.end(), 0), names.size(),
                   printable(names[static_cast<size_t>(empty - has.begin())])));
}

// Flags of what is not asked for.
void tell_idle(const FlagSet& flags, const TrainCommand& c) {
  if (flags.given("--config") || flags.given("--recipe")) return;  // they say more than a command needs
  if (!c.strict && c.weights.empty() && c.finetune.empty())
    warn("--no-strict does nothing without --weights or --finetune");
  if (c.data.split_seed != 0 && c.data.validation_split == 0) warn("--val-split-seed does nothing without --val-split");
}

// What else a training would refuse, or not do as it sounds.
void look_over(const TrainOptions& options, Params& params, const Dataset& data) {
  check(options.augment);
  check(options.preprocessing);
  const Optimizer optimizer(params, options.optimizer);  // groups that match nothing
  if (options.sampler != Sampler::weighted) return;
  for (int64_t i = 1; i < data.size(); ++i)
    if (data.weight(i) != data.weight(0)) return;
  warn("--sampler weighted: every picture has the same weight, so each is as likely as any other");
}

// Of a training that goes on.
void tell_changes(const nlohmann::ordered_json& before, const nlohmann::ordered_json& now) {
  if (const auto changes = changed_flags(before, now); !changes.empty())
    warn(fmt::format("the training goes on otherwise than it began: {}", fmt::join(changes, ", ")));
  constexpr const char* kPictures = "training_pictures";
  if (before.contains(kPictures) && before[kPictures] != now[kPictures])
    warn(
        fmt::format("the data set has {} pictures for training, {} when the training began: its epochs show other "
                    "pictures now, and may have another length",
                    json_text(now[kPictures]), json_text(before[kPictures])));
}

int run_train(const FlagSet& flags, const TrainCommand& c) {
  leave_at_signals();  // reading a large set may take minutes
  const ModelInfo model = find_model(c.model);
  TrainOptions ignored;
  c.run.apply_to(ignored);  // complains before the work begins
  const auto context = c.device.make_context();
  DataParts parts = c.data.open_parts();
  const auto data = c.data.limited(std::move(parts.training));
  const auto validation = std::move(parts.validation);
  check_validation(c, *data, validation.get());
  const auto found = static_cast<int64_t>(data->class_names().size());
  if (c.classes > 0 && c.classes < found)
    throw UsageError(fmt::format("--num-classes {} is fewer than the {} classes of the data set", c.classes, found));

  if (found == 1)
    warn(fmt::format("the data set has one class, '{}': there is nothing to learn", printable(data->class_names()[0])));

  const Pipeline pipeline = make_pipeline(model, *data, c.pictures, c.augment);
  ModelCard card;
  // Of a network file the name alone: wherever it lies, the same flags make the same checkpoint.
  card.model = std::filesystem::path(c.model).filename().string();
  card.network = model.network;
  card.classes = c.classes > 0 ? c.classes : found;
  card.channels = pipeline.training.channels;
  card.height = pipeline.training.height;
  card.width = pipeline.training.width;
  card.class_names = data->class_names();
  card.preprocessing = pipeline.evaluation;
  TrainOptions options = train_options(flags, c, pipeline);
  options.loss = c.loss.options(*data, card.classes);
  const std::optional<Network> teacher = c.loss.load_teacher(*context, options.augment);
  if (teacher) {
    options.teacher = teacher->graph.get();
    options.teacher_params = teacher->params.get();
  }
  const std::vector<ConfigEntry> config = resolve(flags, c, pipeline, *context, card.classes);
  Graph graph;
  build_model(graph, model, {card.classes, card.height, card.width, card.channels, c.drop_path});
  Params params(*context, graph, c.seed);
  look_over(options, params, *data);
  tell_idle(flags, c);
  tell_empty_classes(*data);
  if (c.dry_run) {
    for (const ConfigEntry& entry : config) fmt::print("{}\n", format_config(entry));
    return 0;
  }
  nlohmann::ordered_json configuration = to_json(config);
  configuration["convolt"] = CONVOLT_VERSION;
  configuration["training_pictures"] = data->size();
  card.configuration = json_text(configuration);
  if (options.resume.empty()) {
    load_initial_weights(c, params);
    if (c.whiten > 0) whiten(graph, params, *data, pipeline.evaluation, c.whiten);
  }
  if (!c.quiet)
    say("{}: {} parameters, {}x{}x{}, {}\n{}: {} pictures for training, {} for validation, {} classes\n", c.model,
        graph.parameter_count(), card.height, card.width, card.channels, context->describe(), data->describe(),
        data->size(), validation ? validation->size() : 0, found);

  ProgressPrinter printer(c.quiet);
  TrainObserver observer;
  bool trained = false;
  observer.locked = [&] {  // a training may have come and gone since the options were made
    if (c.run.resume_path() != options.resume)
      throw Error("--output-dir '" + c.run.output_dir + "': another training has begun there meanwhile; start again");
  };
  observer.begin = [&] {
    take_signals();
    trained = true;
    if (!options.resume.empty()) tell_changes(configuration_of(read_card(options.resume)), configuration);
    if (!c.run.output_dir.empty()) save_config(c.run.output_dir, config);
  };
  observer.validating = [&](int64_t done, int64_t all) { printer.validating(done, all); };
  observer.progress = [&](const TrainProgress& p) { printer.progress(p); };
  observer.epoch = [&](const EpochSummary& s) { printer.epoch(s); };
  observer.warning = [&](const std::string& text) {
    printer.clear();
    warn(text);
  };
  const TrainResult result = train(graph, params, *data, validation.get(), card, options, observer, &interrupt_signal);
  printer.clear();
  return print_result(c, result, card, trained);
}

}  // namespace

Subcommand add_train(CLI::App& program) {
  FlagSet flags(program, "train", "train a network on a data set");
  auto command = std::make_shared<TrainCommand>();
  add_flags(flags, *command);
  return {flags, [flags, command] { return run_train(flags, *command); }};
}

}  // namespace convolt::cli
