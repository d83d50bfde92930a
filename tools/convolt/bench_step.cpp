#include <fmt/format.h>

#include "bench.h"
#include "bench/step_row.h"
#include "conv/conv.h"
#include "optimizer_flags.h"

namespace convolt::cli {
namespace {

struct StepCommand {
  BenchFlags flags{.sampling = {.samples = 7, .seconds = 60}};
  BenchNetwork network{.model = "resnet20"};
  int steps = 5;
  OptimizerFlags optimizer;
  MemoryFlags memory;
};

// What the flags cost: the second row beside the first.
std::string cost_of_flags(const bench::Record& record) {
  const bench::Summary &without = record.rows[0].timings[0].ms, &with = record.rows[1].timings[0].ms;
  return fmt::format("{:.2f} of the time and {:.2f} of the memory without: {} ms ({}), {:.1f} MB",
                     with.median / without.median,
                     static_cast<double>(record.rows[1].memory) / static_cast<double>(record.rows[0].memory),
                     ms_text(without.median), spread_text(without), static_cast<double>(record.rows[0].memory) / 1e6);
}

std::string step_table(const bench::Record& record, bool compares) {
  const bench::Row& row = record.rows.back();
  const bench::Timing &step = row.timings[0], &host = row.timings[1];
  TextTable table;
  table.row({"network", row.name + ", " + row.dtype + ", " + row.shape});
  table.row({"a step", fmt::format("{} ms ({})", ms_text(step.ms.median), spread_text(step.ms))});
  table.row({"pictures a second", fmt::format("{:.1f}", images_per_second(row, step))});
  table.row({"on the host", fmt::format("{} ms ({})", ms_text(host.ms.median), spread_text(host.ms))});
  table.row({"moved by kernels", fmt::format("{:.1f} MB", static_cast<double>(row.bytes) / 1e6)});
  table.row({"rate", fmt::format("{:.1f} GFLOP/s", flops_per_second(row, step) / 1e9)});
  table.row({"memory", fmt::format("{:.1f} MB", static_cast<double>(row.memory) / 1e6)});
  if (record.rows.size() > 1)
    table.row({"takes", cost_of_flags(record)});
  else if (compares)
    table.row({"takes", "unknown: the step without finds no memory beside it"});
  return fmt::format("{}, {}\n\n{}", record.device, record.provider, table.text());
}

int run_step(const StepCommand& c, const FlagSet& flags) {
  if (c.optimizer.accumulate != 1) throw UsageError("a step of convolt bench is one batch; leave out --accum");
  const BenchReport report(c.flags, "step");
  const ModelInfo model = find_model(c.network.model);
  const auto context = c.flags.device.make_context();
  bench::Record record = empty_record("step", *context);
  record.provider = context->conv().describe();
  bench::StepOptions options{.batch = c.network.batch,
                             .size = c.network.size,
                             .dtype = c.flags.device.type(),
                             .tf32 = c.flags.device.tf32(),
                             .steps = c.steps,
                             .kernels = c.flags.device.kernels.options(),
                             .optimizer = c.optimizer.options(flags)};
  options.memory_budget = c.memory.bytes();
  std::vector<bench::StepOptions> all{options};
  if (options.kernels.deterministic || options.memory_budget) {
    all[0].kernels.deterministic = false;
    all[0].memory_budget.reset();
    all.push_back(options);
  }
  record.rows = time_steps(*context, model, all, c.flags.sampling);
  return report.finish(record, step_table(record, all.size() > 1));
}

}  // namespace

Subcommand add_bench_step(CLI::App& bench) {
  FlagSet flags(bench, "step", "time of a training step: forward, backward and update of a batch at hand");
  auto c = std::make_shared<StepCommand>();
  c->network.add(flags);
  flags.group("Options");
  flags.option("--steps", c->steps, "steps in a row for one timing").check(at_least(1));
  c->optimizer.add(flags);
  c->memory.add(flags, "what is free");
  c->flags.add(flags);
  flags.group("Kernels");
  c->flags.device.kernels.add(flags);
  flags.footer(
      "With --deterministic or --memory-budget the step without them is timed in turn, and the table says what they "
      "cost.\n\nOn the host: what handing a step to the device takes; the rest of the time the host is free.\n\n"
      "Example:\n  convolt bench step --model resnet50 -b 64 --amp");
  return {flags, [c, flags] { return run_step(*c, flags); }};
}

}  // namespace convolt::cli
