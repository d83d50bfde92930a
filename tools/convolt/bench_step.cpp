#include <fmt/format.h>

#include "bench.h"
#include "bench/step_row.h"
#include "conv/conv.h"

namespace convolt::cli {
namespace {

struct StepCommand {
  BenchFlags flags{.sampling = {.samples = 7, .seconds = 60}};
  BenchNetwork network{.model = "resnet20"};
  int steps = 5;
};

std::string table_of(const bench::Record& record) {
  const bench::Row& row = record.rows[0];
  const bench::Timing &step = row.timings[0], &host = row.timings[1];
  TextTable table;
  table.row({"network", row.name + ", " + row.dtype + ", " + row.shape});
  table.row({"a step", fmt::format("{} ms ({})", ms_text(step.ms.median), spread_text(step.ms))});
  table.row({"pictures a second", fmt::format("{:.1f}", images_per_second(row, step))});
  table.row({"on the host", fmt::format("{} ms ({})", ms_text(host.ms.median), spread_text(host.ms))});
  table.row({"moved by kernels", fmt::format("{:.1f} MB", static_cast<double>(row.bytes) / 1e6)});
  table.row({"rate", fmt::format("{:.1f} GFLOP/s", flops_per_second(row, step) / 1e9)});
  table.row({"memory", fmt::format("{:.1f} MB", static_cast<double>(row.memory) / 1e6)});
  return fmt::format("{}, {}\n\n{}", record.device, record.provider, table.text());
}

int run_step(const StepCommand& c) {
  const BenchReport report(c.flags);
  const ModelInfo model = find_model(c.network.model);
  const auto context = c.flags.device.make_context();
  bench::Record record = empty_record("step", *context);
  record.provider = context->conv().describe();
  const bench::StepOptions options{.batch = c.network.batch,
                                   .size = c.network.size,
                                   .dtype = c.flags.device.type(),
                                   .tf32 = c.flags.device.tf32(),
                                   .steps = c.steps,
                                   .sampling = c.flags.sampling};
  record.rows.push_back(time_step(*context, model, options));
  return report.finish(record, table_of(record));
}

}  // namespace

Subcommand add_bench_step(CLI::App& bench) {
  FlagSet flags(bench, "step", "time of a training step: forward, backward and update of a batch at hand");
  auto c = std::make_shared<StepCommand>();
  c->network.add(flags);
  flags.group("Options");
  flags.option("--steps", c->steps, "steps in a row for one timing").check(at_least(1));
  c->flags.add(flags);
  flags.footer(
      "On the host: what handing a step to the device takes; the rest of the time the host is free.\n\n"
      "Example:\n  convolt bench step --model resnet50 -b 64 --amp");
  return {flags, [c] { return run_step(*c); }};
}

}  // namespace convolt::cli
