#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <system_error>

#include "commands.h"
#include "core/finite.h"
#include "data/sources.h"
#include "flags.h"
#include "io/descriptor.h"
#include "json_text.h"
#include "say.h"
#include "text_table.h"

namespace convolt::cli {
namespace {

struct PredictCommand {
  DeviceFlags device;
  PictureFlags pictures;
  NetworkFlags network;
  std::vector<std::string> inputs;
  int batch = 16, workers = 2, top_k = 5, views = 1;
  DecodeFlags decode;
  bool json = false;
};

namespace fs = std::filesystem;

// What is below a folder and may be a picture. A folder that cannot be listed, what nothing is told of and a link that
// leads nowhere are taken for pictures, which cannot be read: so they are told of, and the others are predicted.
void add_files(const fs::path& folder, std::vector<std::string>& found) {
  std::error_code error, unknown;
  for (fs::directory_iterator entry(folder, error); !error && entry != fs::end(entry); entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with('.')) continue;
    const fs::file_type type = entry->status(unknown).type();
    const bool link = entry->is_symlink(unknown);
    const bool untold = type == fs::file_type::none;  // the folder may be listed, but not entered
    if (type == fs::file_type::directory) {
      if (!link) add_files(entry->path(), found);
    } else if ((type == fs::file_type::regular || link || untold) && !is_no_picture(name)) {
      found.push_back(entry->path().string());
    }
  }
  if (error) found.push_back(folder.string());
}

void add_lines(std::vector<std::string>& paths) {
  for (std::string line; std::getline(std::cin, line);) {
    if (line.ends_with('\r')) line.pop_back();  // a list made elsewhere
    if (line.find('\0') != std::string::npos)
      throw UsageError("the list on stdin has a NUL byte; expected a name a line, not what find -print0 makes");
    if (!line.empty()) paths.push_back(line);
  }
  // The stream itself does not tell it from the end.
  if (std::ferror(stdin) != 0) throw Error(fmt::format("the list on stdin cannot be read ({})", errno_reason()));
}

// Files as they are, folders as the files below them in bytewise order, "-" as the lines of stdin.
std::vector<std::string> expand(const std::vector<std::string>& inputs) {
  std::vector<std::string> paths;
  std::error_code unknown;
  for (const std::string& input : inputs) {
    if (input == "-") {
      add_lines(paths);
    } else if (fs::is_directory(input, unknown)) {
      std::vector<std::string> found;
      add_files(input, found);
      std::sort(found.begin(), found.end());
      paths.insert(paths.end(), found.begin(), found.end());
    } else {
      paths.push_back(input);
    }
  }
  return paths;
}

class Printer {
public:
  Printer(const ModelCard& card, int top_k, bool json) : card_(card), top_k_(top_k), json_(json) {}

  // False where there is none.
  bool prediction(const std::string& path, const Prediction& prediction) const {
    if (!prediction.error.empty()) return error(path, prediction.error);
    if (!all_finite(prediction.logits))
      return error(path, "the network's outputs for it are not finite; its weights are of no use");
    const std::vector<double> p = prediction.probabilities();
    const std::vector<int> order = prediction.top(top_k_);
    nlohmann::ordered_json line{{"path", path}, {"top", nlohmann::ordered_json::array()}};
    std::string text = printable(path) + ":";
    for (const int c : order) {
      const auto i = static_cast<size_t>(c);
      const std::string label = i < card_.class_names.size() ? card_.class_names[i] : std::to_string(i);
      line["top"].push_back({{"label", label}, {"index", i}, {"probability", p[i]}});
      text += fmt::format("{}{} {:.1f} %", c == order[0] ? " " : ", ", printable(label), 100 * p[i]);
    }
    print(json_ ? json_text(line) : text);
    return true;
  }

private:
  bool error(const std::string& path, const std::string& reason) const {
    if (json_)
      print(json_text<nlohmann::ordered_json>({{"path", path}, {"error", reason}}));
    else
      say("{}: {}\n", printable(path), reason);
    return false;
  }
  static void print(const std::string& line) {
    fmt::print("{}\n", line);
    flush_output();
  }
  const ModelCard& card_;
  int top_k_;
  bool json_;
};

int run_predict(const FlagSet& flags, const PredictCommand& c) {
  const auto pictures = picture_files(expand(c.inputs));
  if (pictures->size() == 0) throw DataError("there are no pictures to predict");
  const auto context = c.device.make_context();
  const Network n = load_network(c.network, c.pictures, *context, nullptr);
  PredictorOptions options;
  options.batch = static_cast<int>(std::min<int64_t>(c.batch, pictures->size()));
  options.workers = threads_or_cores(c.workers);
  options.dtype = c.device.type();
  options.tf32 = c.device.tf32();
  options.kernels = c.device.kernels.options();
  see_as_trained(flags, n.card, c.decode, c.views, options);
  Predictor predictor(*n.graph, *n.params, n.card, options);
  const Printer printer(n.card, c.top_k, c.json);
  bool failed = false;
  predictor.predict(*pictures, [&](int64_t i, const Prediction& prediction) {
    failed |= !printer.prediction(pictures->name(i), prediction);
  });
  return failed ? kData : 0;
}

}  // namespace

Subcommand add_predict(CLI::App& program) {
  FlagSet flags(program, "predict", "predict the class of pictures");
  auto c = std::make_shared<PredictCommand>();
  flags.option("pictures", c->inputs, "pictures, folders of them, or - for a list on stdin").required();
  c->network.add(flags);
  flags.find("--num-classes").describe("outputs of --model, which needs it here");
  flags.group("Options");
  flags.option("--topk", c->top_k, "classes to name").check(at_least(1));
  flags.option("-b,--batch-size", c->batch, "pictures in a batch").check(at_least(1));
  flags.option("-j,--workers", c->workers, "decode threads, 0 for as many as cores").check(at_least(0));
  c->decode.add(flags);
  c->pictures.add(flags, false);
  add_views(flags, c->views);
  c->device.add(flags);
  flags.group("Options");
  flags.toggle("--json", c->json, "one JSON object a line: path and top, or path and error");
  add_config(flags);
  flags.footer(
      "Exit code 3 when a picture could not be read, or a network gives no finite answer to it; the others are "
      "predicted all the same.\n\nExample:\n"
      "  convolt predict --checkpoint run/best.safetensors picture.jpg folder/ --json");
  return {flags, [flags, c] { return run_predict(flags, *c); }};
}

}  // namespace convolt::cli
