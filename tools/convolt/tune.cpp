#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "conv/tuning_file.h"
#include "json_text.h"
#include "plan_flags.h"
#include "say.h"
#include "text_table.h"

namespace convolt::cli {
namespace {

using Json = nlohmann::ordered_json;

struct TuneCommand {
  PlanFlags plan;
  std::string export_to, import_from;
  bool list = false, clear = false, json = false;
};

// The quickest first, then those that are wrong.
std::vector<std::pair<std::string, Timing>> ordered(const Timings& timings) {
  std::vector<std::pair<std::string, Timing>> all(timings.begin(), timings.end());
  const auto rank = [](const auto& t) {
    return std::pair(t.second.nanoseconds == Timing::kWrong, t.second.nanoseconds);
  };
  std::stable_sort(all.begin(), all.end(), [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
  return all;
}

void print_table(const TuningTable& table) {
  std::string environment;
  for (const auto& [key, timings] : table) {
    if (key.environment != environment) fmt::print("{}\n", printable(key.environment));
    environment = key.environment;
    fmt::print("  {}\n", printable(key.description));
    for (const auto& [kernel, t] : ordered(timings)) {
      const std::string time = t.nanoseconds == Timing::kWrong
                                   ? "wrong"
                                   : fmt::format("{:.4f} ms", static_cast<double>(t.nanoseconds) / 1e6);
      fmt::print("    {:>12}  {}{}\n", time, printable(kernel), t.full ? " (full)" : "");
    }
  }
}

void print_json(const TuningTable& table) {
  Json list = Json::array();
  for (const auto& [key, timings] : table) {
    Json kernels = Json::array();
    for (const auto& [kernel, t] : ordered(timings))
      kernels.push_back({{"kernel", printable(kernel)},
                         {"nanoseconds", t.nanoseconds == Timing::kWrong ? Json(nullptr) : Json(t.nanoseconds)},
                         {"full", t.full}});
    list.push_back({{"environment", printable(key.environment)},
                    {"description", printable(key.description)},
                    {"kernels", kernels}});
  }
  fmt::print("{}\n", json_text(list));
}

int list(const TuningCache& cache, bool json) {
  const TuningTable table = cache.read();
  if (table.empty() && !json) say("{}: nothing is recorded\n", cache.path());
  json ? print_json(table) : print_table(table);
  return 0;
}

int import_table(const TuningCache& cache, const std::string& path) {
  const TuningTable table = read_tuning(path);
  cache.add(table);
  fmt::print("{} shapes of {} are now in {}\n", table.size(), path, cache.path());
  return 0;
}

int export_table(const TuningCache& cache, const std::string& path) {
  const TuningTable table = cache.read();
  write_tuning(path, table);
  fmt::print("{} shapes written to {}\n", table.size(), path);
  return 0;
}

int tune(const TuneCommand& c) {
  ModelCard card;
  const ModelInfo model = c.plan.network(card);
  PlanOptions options = c.plan.options();
  if (options.kernels.autotune == Autotune::off) throw UsageError("--autotune off times nothing; give quick or full");
  if (!options.kernels.autotune) options.kernels.autotune = Autotune::quick;
  Graph graph;
  build_model(graph, model, {card.classes, card.height, card.width, card.channels});
  const auto context = c.plan.device.make_context();
  Params params = Params::zeros(*context, graph);
  const auto start = std::chrono::steady_clock::now();
  const Plan plan(graph, params, options);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const Counters& counters = context->counters();
  const int64_t timed = counters.tunings, bytes = counters.tuning_bytes_peak;
  if (c.json) {
    const Json result{{"shapes", plan.kernels().size()},
                      {"timed", timed},
                      {"seconds", seconds},
                      {"tuning_bytes", bytes},
                      {"kernels", plan.kernels()}};
    fmt::print("{}\n", json_text(result));
    return 0;
  }
  TextTable table;
  for (const auto& [shape, kernel] : plan.kernels()) table.row({shape, kernel});
  fmt::print("{}{} shapes, {} timed now, in {:.1f} s and {:.1f} MB of memory\n", table.text(), plan.kernels().size(),
             timed, seconds, static_cast<double>(bytes) / 1e6);
  return 0;
}

int run_tune(const TuneCommand& c) {
  const bool network = !c.plan.model.empty() || !c.plan.checkpoint.empty();
  if (network + c.list + c.clear + !c.export_to.empty() + !c.import_from.empty() != 1)
    throw UsageError("give one of --model NAME, --checkpoint FILE, --list, --clear, --export FILE and --import FILE");
  if (network) return tune(c);
  const TuningCache cache;
  if (c.list) return list(cache, c.json);
  if (!c.export_to.empty()) return export_table(cache, c.export_to);
  if (!c.import_from.empty()) return import_table(cache, c.import_from);
  cache.clear();
  say("{}: forgotten\n", cache.path());
  return 0;
}

}  // namespace

Subcommand add_tune(CLI::App& program) {
  FlagSet flags(program, "tune", "time the kernels of a network's convolutions ahead, or look after what was timed");
  auto c = std::make_shared<TuneCommand>();
  c->plan.add(flags);
  c->plan.device.add(flags);
  flags.group("What was timed");
  flags.toggle("--list", c->list, "every shape with its kernels, the quickest first");
  flags.toggle("--clear", c->clear, "forget all of it");
  flags.option("--export", c->export_to, "write it as FILE, for another machine with the same device and libraries");
  flags.option("--import", c->import_from, "take in such a FILE");
  flags.toggle("--json", c->json, "what --list or the tuning of a network has found, as one JSON value");
  flags.footer(
      "It is kept in $XDG_CACHE_HOME/convolt/, or ~/.cache/convolt/. Training and evaluation of a shape are timed "
      "apart, "
      "since training packs the weights in each step.\n\n"
      "Example:\n  convolt tune --model resnet50 -b 256 --dtype f16 --training\n  convolt tune --list");
  return {flags, [c] { return run_tune(*c); }};
}

}  // namespace convolt::cli
