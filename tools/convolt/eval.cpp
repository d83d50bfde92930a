#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "commands.h"
#include "flags.h"
#include "io/npy.h"

namespace convolt::cli {
namespace {

struct EvalCommand {
  DeviceFlags device;
  DataFlags data;
  PictureFlags pictures;
  NetworkFlags network;
  std::string logits;
  bool json = false;
};

int run_eval(const EvalCommand& c) {
  auto data = open_dataset({c.data.path, c.data.format, Split::validation});
  if (!data) data = open_dataset({c.data.path, c.data.format, Split::train});
  const auto context = c.device.make_context();
  const Network n = load_network(c.network, c.pictures, *context, data.get());
  if (const auto found = static_cast<int64_t>(data->class_names().size()); found > n.card.classes)
    throw DataError(
        fmt::format("'{}' has {} classes, but the network has {} outputs", c.data.path, found, n.card.classes));

  EvalOptions options;
  options.batch = c.data.batch;
  options.workers = c.data.worker_count();
  options.dtype = c.device.type();
  options.tf32 = c.device.tf32();
  options.max_side = c.data.max_side;
  options.preprocessing = n.card.preprocessing;
  Evaluator evaluator(*n.graph, *n.params, *data, options);
  std::vector<float> logits;
  const auto keep = [&](int64_t, const float* row, bool) { logits.insert(logits.end(), row, row + n.card.classes); };
  const EvalResult r = c.logits.empty() ? evaluator.run() : evaluator.run(keep);
  if (!c.logits.empty()) write_npy(c.logits, logits, data->size(), n.card.classes);

  report_bad_samples(evaluator.bad_samples());
  if (c.json) {
    const nlohmann::ordered_json j{{"samples", r.samples}, {"correct", static_cast<int64_t>(r.correct)},
                                   {"top1", r.top1},       {"top5", r.top5},
                                   {"loss", r.loss},       {"seconds", r.seconds},
                                   {"skipped", r.skipped}};
    fmt::print("{}\n", j.dump());
  } else {
    fmt::print("top-1 {:.2f} % ({} of {}), top-5 {:.2f} %, loss {:.4f}, {:.1f} s", 100 * r.top1,
               static_cast<int64_t>(r.correct), r.samples, 100 * r.top5, r.loss, r.seconds);
    fmt::print("{}\n", r.skipped > 0 ? fmt::format(", {} skipped", r.skipped) : "");
  }
  if (r.samples == 0) throw DataError("'" + c.data.path + "': no picture could be read");
  return 0;
}

}  // namespace

Subcommand add_eval(CLI::App& program) {
  CLI::App* app = program.add_subcommand("eval", "evaluate a network on the validation pictures of a data set");
  auto c = std::make_shared<EvalCommand>();
  c->data.add(*app, false);
  c->network.add(*app);
  c->pictures.add(*app, false);
  c->device.add(*app);
  app->add_option("--logits", c->logits,
                  "write the logits, float32 [samples, classes], as FILE.npy; rows of skipped pictures are meaningless")
      ->group("Output");
  app->add_flag("--json", c->json, "one JSON object: samples, correct, top1, top5, loss, seconds, skipped")
      ->group("Output");
  add_config(*app);
  app->footer("Example:\n  convolt eval --checkpoint run/best.safetensors --data-path DATA --json");
  return {app, [c] { return run_eval(*c); }};
}

}  // namespace convolt::cli
