#include "scoring.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "count_line.h"
#include "json_text.h"
#include "text_table.h"

namespace convolt::cli {
namespace {

// As a checkpoint keeps names: what is not UTF-8 is replaced.
std::string as_kept(const std::string& name) { return json_text(nlohmann::json(name)); }

// A label is the place of its class among the names of the data set; that of the network may be another.
void check_classes(const ModelCard& card, const Dataset& data, const std::string& path) {
  const auto& found = data.class_names();
  if (const auto count = static_cast<int64_t>(found.size()); count > card.classes)
    throw DataError(fmt::format("'{}' has {} classes, but the network has {} outputs", path, count, card.classes));
  for (size_t i = 0; i < std::min(found.size(), card.class_names.size()); ++i)
    if (as_kept(found[i]) != as_kept(card.class_names[i]))
      return warn(
          fmt::format("class {} of '{}' is '{}', but '{}' to the network: the figures mean nothing unless both are "
                      "the same class",
                      i, path, printable(found[i]), printable(card.class_names[i])));
}

}  // namespace

std::unique_ptr<Dataset> open_for_evaluation(const DataFlags& flags, bool* validation) {
  auto data = flags.open(Split::validation);
  if (validation != nullptr) *validation = data != nullptr;
  return flags.limited(data ? std::move(data) : flags.open(Split::train));
}

bool split_as_trained(const FlagSet& flags, const ModelCard& card, DataFlags& data) {
  namespace fs = std::filesystem;
  const nlohmann::ordered_json run = configuration_of(card);
  const auto trained_on = run.find("data_path");
  if (trained_on == run.end() || !trained_on->is_string()) return false;
  std::error_code gone;
  const std::string was = *trained_on;
  if (fs::absolute(data.path).lexically_normal() != was && !fs::equivalent(data.path, was, gone)) return false;
  take_from_run(flags, card, "data-format", data.format);
  if (!flags.given("--val-data-path") && !flags.given("--val-split")) {
    take_from_run(flags, card, "val-data-path", data.validation_path);
    if (!data.validation_path.empty() && !fs::exists(data.validation_path, gone)) {
      warn(fmt::format("'{}', the validation set of the training, is gone", data.validation_path));
      data.validation_path.clear();
    }
    take_from_run(flags, card, "val-split", data.validation_split);
    take_from_run(flags, card, "val-split-seed", data.split_seed);
  }
  return true;
}

EvalOptions eval_options(const FlagSet& flags, const DeviceFlags& device, const DataFlags& data, int views,
                         const Network& network) {
  EvalOptions options;
  options.batch = data.batch;
  options.workers = data.worker_count();
  options.dtype = device.type();
  options.tf32 = device.tf32();
  options.kernels = device.kernels.options();
  see_as_trained(flags, network.card, data.decode, views, options);
  options.decoder = data.decoder.decoder();
  options.loader_memory = data.memory.bytes();
  options.preprocessing = network.card.preprocessing;
  return options;
}

Scores score(const Network& network, const Dataset& data, const std::string& path, const EvalOptions& options,
             int top_k, bool quiet) {
  const int64_t classes = network.card.classes;
  check_classes(network.card, data, path);
  Evaluator evaluator(*network.graph, *network.params, data, options);
  Scores s;
  s.logits.reserve(static_cast<size_t>(data.size() * classes));
  CountLine count("evaluating", data.size(), quiet);
  s.result = evaluator.run([&](int64_t sample, const float* row, bool skipped) {
    s.logits.insert(s.logits.end(), row, row + classes);
    s.labels.push_back(skipped ? -1 : data.label(sample));
    count.at(sample + 1);
  });
  s.bad_samples = evaluator.bad_samples();
  s.evaluation = evaluate(s.logits, s.labels, classes, {.top_k = top_k, .threads = options.workers});
  return s;
}

std::string class_name(const ModelCard& card, int64_t index) {
  const auto i = static_cast<size_t>(index);
  return i < card.class_names.size() ? card.class_names[i] : std::to_string(index);
}

std::vector<std::string> printable_names(const ModelCard& card) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < card.classes; ++i) names.push_back(printable(class_name(card, i)));
  return names;
}

}  // namespace convolt::cli
