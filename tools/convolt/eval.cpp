#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "confusion.h"
#include "data/sources.h"
#include "io/npy.h"
#include "json_text.h"
#include "scoring.h"
#include "text_table.h"

namespace convolt::cli {
namespace {

struct EvalCommand {
  DeviceFlags device;
  DataFlags data;
  PictureFlags pictures;
  NetworkFlags network;
  std::string logits;
  std::vector<std::string> confusion;
  int top_k = 5, views = 1;
  bool per_class = false, json = false, quiet = false;
};

using Json = nlohmann::ordered_json;

std::string percent(double part) { return fmt::format("{:.2f} %", 100 * part); }
std::string percent(std::optional<double> part) { return part ? percent(*part) : "-"; }

void print_summary(const Scores& s, int64_t skipped) {
  const Evaluation& e = s.evaluation;
  TextTable table;
  const auto proportion = [&](const std::string& name, const Proportion& p) {
    const Interval i = p.interval();
    table.row({name, percent(p.value()), fmt::format("95 %: {:.2f} to {:.2f} %", 100 * i.low, 100 * i.high),
               fmt::format("{} of {}", p.hits, p.of)});
  };
  proportion("top-1", e.top1);
  if (e.top_k > 1 && e.top_k < e.classes) proportion(fmt::format("top-{}", e.top_k), e.topk);
  table.row({"macro F1", percent(e.macro.f1)});
  table.row({"loss", fmt::format("{:.4f}", e.plain.loss)});
  table.row({"ECE", percent(e.plain.ece)});
  table.row({"temperature", fmt::format("{:.3f}", e.temperature),
             fmt::format("there loss {:.4f}, ECE {}", e.scaled.loss, percent(e.scaled.ece))});
  table.row({"time", fmt::format("{:.1f} s", s.result.seconds)});
  if (skipped > 0) table.row({"skipped", std::to_string(skipped)});
  fmt::print("{}", table.text());
}

void print_classes(const Evaluation& e, const std::vector<std::string>& names) {
  constexpr size_t kLongestName = 40;
  TextTable table;
  table.row({"class", "precision", "recall", "F1", "pictures"});
  for (size_t i = 0; i < e.per_class.size(); ++i) {
    const ClassScores& c = e.per_class[i];
    table.row({cut(names[i], kLongestName), percent(c.precision()), percent(c.recall()), percent(c.f1()),
               std::to_string(c.support)});
  }
  table.row(
      {"mean", percent(e.macro.precision), percent(e.macro.recall), percent(e.macro.f1), std::to_string(e.samples)});
  fmt::print("\n{}", table.text());
}

Json json_of(const Proportion& p) {
  return {{"value", p.value()}, {"correct", p.hits}, {"interval", {p.interval().low, p.interval().high}}};
}

Json json_of(const Calibration& c) {
  Json bins = Json::array();
  for (const CalibrationBin& b : c.bins)
    bins.push_back({{"count", b.count}, {"confidence", b.confidence}, {"accuracy", b.accuracy}});
  return {{"loss", c.loss}, {"ece", c.ece}, {"bins", bins}};
}

Json json_of(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

// `matrix` only where it is asked for: it is K x K numbers.
Json json_of(const Scores& s, const ModelCard& card, const char* part, bool per_class, const Confusion* matrix) {
  const Evaluation& e = s.evaluation;
  const Interval i = e.top1.interval();
  Json j{{"part", part},
         {"samples", e.samples},
         {"correct", e.top1.hits},
         {"top1", e.top1.value()},
         {"top1_interval", {i.low, i.high}},
         {"top5", s.result.top5},
         {"topk", json_of(e.topk)},
         {"loss", e.plain.loss},
         {"macro", {{"precision", e.macro.precision}, {"recall", e.macro.recall}, {"f1", e.macro.f1}}},
         {"ece", e.plain.ece},
         {"temperature", e.temperature},
         {"calibration", {{"plain", json_of(e.plain)}, {"scaled", json_of(e.scaled)}}},
         {"seconds", s.result.seconds},
         {"skipped", s.result.skipped}};
  j["topk"]["k"] = e.top_k;
  if (per_class) {
    j["classes"] = Json::array();
    for (size_t k = 0; k < e.per_class.size(); ++k) {
      const ClassScores& c = e.per_class[k];
      j["classes"].push_back({{"name", class_name(card, static_cast<int64_t>(k))},
                              {"support", c.support},
                              {"predicted", c.predicted},
                              {"correct", c.correct},
                              {"precision", json_of(c.precision())},
                              {"recall", json_of(c.recall())},
                              {"f1", json_of(c.f1())}});
    }
  }
  if (matrix != nullptr) {
    j["confusion"] = Json::array();
    for (int64_t row = 0; row < matrix->classes(); ++row) {
      const auto first = matrix->counts.begin() + row * matrix->classes();
      j["confusion"].push_back(std::vector<int64_t>(first, first + matrix->classes()));
    }
  }
  return j;
}

// Of a data set without a validation part, all of which is measured then.
void tell_of_training_pictures(const std::string& path, bool trained_on, const Json& run) {
  const auto tell = [&](const std::string& what) { warn(fmt::format("'{}' has no validation part: {}", path, what)); };
  if (trained_on) return tell("these are its training pictures, which the network has learnt from");
  if (const double split = run.value("val_split", 0.0); split > 0)
    return tell(
        fmt::format("if the network was trained on it, --val-split {} --val-split-seed {} leaves out what it has "
                    "learnt from",
                    split, run.value("val_split_seed", uint64_t{0})));
  if (std::filesystem::is_directory(path) && split_folder_in(path, Split::train))
    tell("these are its training pictures");
}

int run_eval(const FlagSet& flags, const EvalCommand& c) {
  for (const std::string& path : c.confusion) check_confusion_path(path, 0);
  c.network.check();
  DataFlags from = c.data;
  const ModelCard card = c.network.checkpoint.empty() ? ModelCard() : read_card(c.network.checkpoint);
  const bool trained_on = split_as_trained(flags, card, from);
  bool validation = true;
  const auto data = open_for_evaluation(from, &validation);
  if (!validation) tell_of_training_pictures(from.path, trained_on, configuration_of(card));
  const auto context = c.device.make_context();
  const Network n = load_network(c.network, c.pictures, *context, data.get());
  for (const std::string& path : c.confusion) check_confusion_path(path, n.card.classes);
  const EvalOptions options = eval_options(flags, c.device, c.data, c.views, n);
  const std::string& measured = from.validation_path.empty() ? from.path : from.validation_path;
  const Scores s = score(n, *data, measured, options, c.top_k, c.quiet);
  report_bad_samples(s.bad_samples);
  if (s.evaluation.samples == 0) throw DataError("'" + measured + "': no picture could be read");

  const std::vector<std::string> names = printable_names(n.card);
  Confusion matrix;
  if (!c.confusion.empty()) matrix = {confusion_matrix(s.labels, s.evaluation.predicted, n.card.classes), names};
  if (c.json) {
    const char* const part = validation ? "validation" : "all";
    fmt::print("{}\n", json_text(json_of(s, n.card, part, c.per_class, c.confusion.empty() ? nullptr : &matrix)));
  } else {
    print_summary(s, s.result.skipped);
    if (c.per_class) print_classes(s.evaluation, names);
  }
  // Last: what was measured is not lost where a file cannot be written.
  const std::string title = fmt::format("{}: top-1 {}", n.card.model, percent(s.evaluation.top1.value()));
  for (const std::string& path : c.confusion) write_confusion(path, matrix, title);
  if (!c.logits.empty()) write_npy(c.logits, s.logits, data->size(), n.card.classes);
  return 0;
}

}  // namespace

Subcommand add_eval(CLI::App& program) {
  FlagSet flags(
      program, "eval",
      "evaluate a network on the validation pictures of a data set: accuracy, classes, confusions, calibration");
  auto c = std::make_shared<EvalCommand>();
  c->data.add(flags, false);
  c->network.add(flags);
  c->pictures.add(flags, false);
  add_views(flags, c->views);
  c->device.add(flags);
  flags.group("Output");
  flags.option("--topk", c->top_k, "how many classes may hold the true one for the second accuracy").check(at_least(1));
  flags.toggle("--per-class", c->per_class, "precision, recall and F1 of each class");
  flags.option(
      "--confusion", c->confusion,
      "write the confusion matrix as FILE.txt, FILE.csv or FILE.png; repeatable; with --json it is printed too");
  flags.option("--logits", c->logits,
               "write the logits, float32 [samples, classes], as FILE.npy; rows of skipped pictures are meaningless");
  flags.toggle("--quiet,-q", c->quiet, "no progress");
  flags.toggle("--json", c->json,
               "one JSON object: part (validation, or all where the data set has none), samples, correct, top1 and its "
               "95 % interval, top5, topk, loss, macro, ece, temperature, "
               "calibration, seconds, skipped; classes with --per-class, confusion with --confusion");
  add_config(flags);
  flags.footer(
      "Intervals are Wilson's at 95 %. ECE: expected calibration error of 15 bins. The temperature is the one whose "
      "softmax fits these pictures best. Of the data set that the checkpoint was trained on it is the validation part "
      "of "
      "that training (--val-split and its seed, --val-data-path) where no flag says otherwise.\n\n"
      "Example:\n  convolt eval --checkpoint run/best.safetensors --data-path DATA --per-class --confusion matrix.png");
  return {flags, [flags, c] { return run_eval(flags, *c); }};
}

}  // namespace convolt::cli
