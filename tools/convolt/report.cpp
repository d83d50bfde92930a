#include <fmt/format.h>
#include <sys/utsname.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>
#include <opencv2/core.hpp>

#include "commands.h"
#include "conv/conv.h"
#include "convolt/version.h"
#include "data/opencv_codecs.h"
#include "data/render.h"
#include "drawing.h"
#include "html.h"
#include "io/atomic_file.h"
#include "io/safetensors.h"
#include "json_text.h"
#include "report_page.h"
#include "scoring.h"
#include "text_table.h"

namespace convolt::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Json = nlohmann::ordered_json;

struct ReportCommand {
  DeviceFlags device;
  DataFlags data;
  std::string run, out;
  int mistakes = 24;
  bool quiet = false;
};

// A number of a line of metrics: not there, and null for what was not finite, are none.
void take(const json& line, const char* key, double step, std::vector<Point>& to) {
  const auto found = line.find(key);
  if (found != line.end() && found->is_number()) to.push_back({step, found->get<double>()});
}

// Unknown fields are passed over, and so is a line that a dying process left half-written.
Metrics read_metrics(const std::string& path) {
  constexpr int64_t kLargest = int64_t{1} << 30;
  const auto bytes = read_file(path, kLargest);
  std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  Metrics m;
  for (size_t end; (end = text.find('\n')) != std::string_view::npos; text.remove_prefix(end + 1)) {
    const json line = json::parse(text.substr(0, end), nullptr, /*allow_exceptions=*/false);
    if (!line.is_object() || !line.contains("step") || !line["step"].is_number()) continue;
    const double step = line["step"];
    take(line, "loss", step, m.loss);
    take(line, "top1", step, m.top1);
    take(line, "lr", step, m.rate);
    take(line, "val_loss", step, m.validation_loss);
    take(line, "val_top1", step, m.validation_top1);
    if (m.steps_per_epoch == 0 && line.contains("train_loss") && line.value("epoch", 1) == 0) m.steps_per_epoch = step;
  }
  return m;
}

// Numbers as short as they were given: what was a float shows no more digits than that.
std::string text_of(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_float()) return fmt::format("{:.7g}", value.get<double>());
  if (!value.is_array()) return json_text(value);
  std::string list;
  for (const Json& element : value) list += (list.empty() ? "" : ", ") + text_of(element);
  return list.empty() ? "none" : list;
}

// Nested objects as "loss.kind".
void flatten(const Json& j, const std::string& prefix, Facts& facts) {
  for (const auto& [key, value] : j.items()) {
    if (value.is_object())
      flatten(value, prefix + key + ".", facts);
    else
      facts.emplace_back(prefix + key, text_of(value));
  }
}

// What the run was trained on, as its last checkpoint remembers; empty where there is none.
std::string trained_on(const fs::path& run) {
  try {
    const SafeTensors last = SafeTensors::read((run / "last.safetensors").string());
    const auto state = last.metadata().find("convolt.state");
    if (state == last.metadata().end()) return "";
    const json j = json::parse(state->second, nullptr, /*allow_exceptions=*/false);
    return j.is_object() ? j.value("device", "") : "";
  } catch (const DataError&) {
    return "";
  }
}

Facts environment(const ReportCommand& c, Context& context, const std::string& trained) {
  utsname system{};
  uname(&system);
  Facts facts{{"convolt", CONVOLT_VERSION}};
  if (!trained.empty()) facts.emplace_back("trained on", trained);
  facts.emplace_back("measured on", context.describe());
  facts.emplace_back("convolutions", context.conv().describe());
  facts.emplace_back("type of activations",
                     c.device.amp ? std::string(convolt::name_of(c.device.type())) : c.device.dtype);
  facts.emplace_back("OpenCV", cv::getVersionString());
  facts.emplace_back("system", fmt::format("{} {}, {}", system.sysname, system.release, system.machine));
  return facts;
}

// As a data: URL; small pictures without loss.
std::string picture_url(const cv::Mat& picture, bool small) {
  return fmt::format("data:image/{};base64,{}", small ? "png" : "jpeg",
                     base64(opencv_imencode(small ? ".png" : ".jpg", picture)));
}

std::vector<Mistake> worst_mistakes(const ReportCommand& c, Context& context, const ModelCard& card,
                                    const Dataset& data, const Scores& s, const DecodeOptions& decode) {
  std::vector<int64_t> wrong;
  for (int64_t i = 0; i < data.size(); ++i) {
    const auto at = static_cast<size_t>(i);
    if (s.labels[at] >= 0 && s.evaluation.predicted[at] != s.labels[at]) wrong.push_back(i);
  }
  std::stable_sort(wrong.begin(), wrong.end(), [&](int64_t a, int64_t b) {
    return s.evaluation.loss[static_cast<size_t>(a)] > s.evaluation.loss[static_cast<size_t>(b)];
  });
  wrong.resize(std::min(wrong.size(), static_cast<size_t>(c.mistakes)));
  const AugmentOptions& o = card.preprocessing;
  constexpr int kSmall = 64;
  const uint32_t epoch = 0;
  std::vector<Mistake> mistakes;
  for (const int64_t i : wrong) {
    const auto at = static_cast<size_t>(i);
    const std::vector<double> p =
        softmax(std::span(s.logits).subspan(at * static_cast<size_t>(card.classes), static_cast<size_t>(card.classes)));
    const int32_t label = s.labels[at], guess = s.evaluation.predicted[at];
    const auto pixels = render(context, decode_sample(data, i, o, decode), o, 0, i, {&epoch, 1});
    Mistake m{fs::path(data.name(i)).filename().string(), printable(class_name(card, label)),
              printable(class_name(card, guess))};
    m.label_probability = p[static_cast<size_t>(label)];
    m.guess_probability = p[static_cast<size_t>(guess)];
    m.small = std::max(o.height, o.width) <= kSmall;
    m.picture = picture_url(bgr_of(pixels.data(), o.height, o.width, o.channels), m.small);
    mistakes.push_back(std::move(m));
  }
  return mistakes;
}

Measured measure(const FlagSet& given, const ReportCommand& c, Context& context, const Network& n,
                 const DataFlags& flags) {
  bool validation = true;
  const std::string& path = flags.validation_path.empty() ? flags.path : flags.validation_path;
  const auto data = open_for_evaluation(flags, &validation);
  const EvalOptions options = eval_options(given, c.device, c.data, 1, n);
  const Scores s = score(n, *data, path, options, 5, c.quiet);
  report_bad_samples(s.bad_samples);
  if (s.evaluation.samples == 0) throw DataError("'" + path + "': no picture could be read");
  Measured m;
  const bool kept_aside = validation && flags.validation_path.empty() && flags.validation_split > 0;
  m.on = fmt::format("{} of {} ({})",
                     kept_aside   ? fmt::format("the {:.4g} % of the training pictures that --val-split kept aside",
                                                100 * flags.validation_split)
                     : validation ? "the validation pictures"
                                  : "the training pictures",
                     path, data->describe());
  m.evaluation = s.evaluation;
  m.skipped = s.result.skipped;
  m.confusion = {confusion_matrix(s.labels, s.evaluation.predicted, n.card.classes), printable_names(n.card)};
  m.mistakes = worst_mistakes(c, context, n.card, *data, s, options.decode);
  return m;
}

std::string weights_of(const fs::path& run) {
  for (const char* name : {"best.safetensors", "last.safetensors"})
    if (fs::exists(run / name)) return (run / name).string();
  throw DataError("'" + run.string() +
                  "' is no run: expected the --output-dir of convolt train, with best.safetensors in it");
}

// The data of the run may be gone: then the report says so and does without. What --data-path names must be there.
void measure_if_possible(const FlagSet& flags, const ReportCommand& c, Context& context, const Network& n,
                         const Json& configuration, Report& r) {
  const bool given = !c.data.path.empty();
  DataFlags data = c.data;
  if (!given) data.path = configuration.value("data_path", "");
  split_as_trained(flags, n.card, data);
  if (data.path.empty()) {
    r.notes.emplace_back(
        "The checkpoint does not say which pictures it was trained on: give --data-path for accuracy, "
        "confusions, calibration and mistakes.");
    return;
  }
  try {
    r.measured = measure(flags, c, context, n, data);
  } catch (const DataError& error) {
    if (given) throw;
    r.notes.push_back(
        fmt::format("Accuracy, confusions, calibration and mistakes are missing, since the pictures of "
                    "the run cannot be used here ({}); give --data-path.",
                    error.what()));
  }
}

int run_report(const FlagSet& set, const ReportCommand& c) {
  const fs::path run(c.run);
  const fs::path out = c.out.empty() ? run / "report.html" : fs::path(c.out);
  const std::string weights = weights_of(run);
  AtomicFile file(out.string());  // complains before the work begins
  const auto context = c.device.make_context();
  NetworkFlags flags;
  flags.checkpoint = weights;
  const Network n = load_network(flags, {}, *context, nullptr);
  const Json configuration = configuration_of(n.card);
  Report r;
  r.run = weights;
  r.card = n.card;
  r.parameters = n.graph->parameter_count();
  r.multiply_adds = forward_multiply_adds(*n.graph);
  flatten(configuration, "", r.configuration);
  r.environment = environment(c, *context, trained_on(run));
  if (fs::exists(run / "metrics.jsonl"))
    r.metrics = read_metrics((run / "metrics.jsonl").string());
  else
    r.notes.emplace_back("There is no metrics.jsonl in the folder of the run, so there are no curves.");
  measure_if_possible(set, c, *context, n, configuration, r);

  file.write(report_html(r));
  file.commit();
  fmt::print("{}\n", out.string());
  for (const std::string& note : r.notes) warn(note);
  return 0;
}

}  // namespace

Subcommand add_report(CLI::App& program) {
  FlagSet flags(program, "report",
                "one HTML file about a run: curves, confusions, calibration, worst mistakes, configuration");
  auto c = std::make_shared<ReportCommand>();
  flags.option("run", c->run, "the --output-dir of convolt train").required();
  c->data.add(flags, false);
  flags.find("--data-path").required(false).describe("the data set to measure on [that of the run]");
  c->device.add(flags);
  flags.group("Output");
  flags.option("--out,--output", c->out, "the report, FILE.html [RUN/report.html]");
  flags.option("--mistakes", c->mistakes, "pictures of the highest loss to show").check(between(0, 1000));
  flags.toggle("--quiet,-q", c->quiet, "no progress");
  add_config(flags);
  flags.footer(
      "The file needs nothing else: it can be mailed, and opened without a network.\n\n"
      "Example:\n  convolt report run --out report.html");
  return {flags, [flags, c] { return run_report(flags, *c); }};
}

}  // namespace convolt::cli
