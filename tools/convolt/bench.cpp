#include "bench.h"

#include <fmt/format.h>

#include <filesystem>

#include "convolt/version.h"
#include "device/device.h"
#include "io/atomic_file.h"
#include "say.h"

namespace convolt::cli {

using bench::Change;
using bench::Comparison;
using bench::Record;
using bench::Summary;

void BenchNetwork::add(FlagSet& flags) {
  flags.group("Network");
  flags.option("--model", model, "name of a network, or FILE.json");
  flags.option("-b,--batch-size", batch, "pictures in a batch").check(at_least(1));
  flags.option("--size", size, "side of the pictures [the model's]").check(at_least(1)).hide_default();
}

void BenchFlags::add(FlagSet& flags) {
  device.add(flags, /*described=*/false, /*chooses=*/false);
  flags.group("Measuring");
  flags.option("--samples", sampling.samples, "timings of each thing, at most").check(between(3, 1e6));
  flags.option("--seconds", sampling.seconds, "after which there are no more of one thing").check(above(0));
  flags.group("Output");
  flags.toggle("--json", json, "print the record as one JSON object");
  flags.toggle("--csv", csv, "print the record as CSV, a timing a line");
  flags.option("--output", output, "write the record as well: FILE.json or FILE.csv");
  flags.option("--compare", compare, "print what became slower than in FILE.json, a record of --output");
  flags.toggle("--fail-if-slower", fail_if_slower, "with --compare: exit code 1 when something did")
      .needs(flags.find("--compare"));
  flags.find("--csv").excludes(flags.find("--json"));
}

BenchReport::BenchReport(const BenchFlags& flags, const char* benchmark) : flags_(flags) {
  const std::string end = std::filesystem::path(flags.output).extension().string();
  if (!flags.output.empty() && end != ".json" && end != ".csv")
    throw UsageError("--output '" + flags.output + "': expected a name that ends in .json or .csv");
  if (!flags.output.empty()) check_writable(flags.output);
  if (flags.compare.empty()) return;
  before_ = bench::read_record(flags.compare);
  bench::check_comparable(*before_, benchmark);
}

namespace {

// Before what says how they differ.
void warn_of_machines(const Record& before, const Record& now, const std::string& name) {
  if (before.device != now.device)
    warn(fmt::format("'{}' was recorded on {}, this is {}", name, before.device, now.device));
  else if (before.threads != now.threads)
    warn(fmt::format("'{}' was recorded with {} compute threads, this is with {}", name, before.threads, now.threads));
}

}  // namespace

int BenchReport::finish(const Record& record, const std::string& table) const {
  fmt::print("{}", flags_.json ? to_json(record) : flags_.csv ? to_csv(record) : table);
  if (!flags_.output.empty()) {
    AtomicFile file(flags_.output);
    file.write(flags_.output.ends_with(".csv") ? to_csv(record) : to_json(record));
    file.commit();
  }
  if (!before_) return 0;
  warn_of_machines(*before_, record, flags_.compare);
  const Comparison comparison = bench::compare(*before_, record);
  if (flags_.json || flags_.csv)
    say("{}", comparison_text(comparison));
  else
    fmt::print("{}", comparison_text(comparison));
  return flags_.fail_if_slower && !comparison.slower.empty() ? kFailure : 0;
}

void add_tensor_size(FlagSet& flags, double& megabytes) {
  flags.option("--tensor-size", megabytes, "MB of the largest tensor of each kernel [twice the last cache]")
      .check(between(0.001, 1e6))
      .hide_default();
}

int64_t tensor_bytes(double megabytes, const Record& record) {
  return megabytes > 0 ? static_cast<int64_t>(megabytes * 1e6) : 2 * record.last_cache_bytes;
}

Record empty_record(const char* benchmark, Context& context) {
  return {.version = CONVOLT_VERSION,
          .benchmark = benchmark,
          .device = context.describe(),
          .threads = context.threads(),
          .last_cache_bytes = last_cache_bytes(context.device())};
}

std::string limits_text(const Record& r) {
  std::string text;
  if (r.copy.best > 0)
    text = fmt::format("copy {:.1f} GB/s at best, {:.1f} by the median ({})", r.copy.best / 1e9, r.copy.median / 1e9,
                       r.copy.how);
  if (r.matmul.best > 0)
    text += fmt::format("{}matrix product {:.0f} GFLOP/s at best, {:.0f} by the median ({})", text.empty() ? "" : "; ",
                        r.matmul.best / 1e9, r.matmul.median / 1e9, r.matmul.how);
  return text;
}

std::string ms_text(double ms) { return fmt::format("{:#.3g}", ms); }
std::string spread_text(const Summary& ms) { return ms_text(ms.p10) + " - " + ms_text(ms.p90); }
std::string percent_text(double part) { return part > 0 ? fmt::format("{:.0f} %", 100 * part) : "-"; }

std::string comparison_text(const Comparison& c) {
  std::string text;
  if (!c.slower.empty()) {
    TextTable table;
    table.row({"slower", "shape", "timing", "before ms", "spread", "now ms", "spread", "times"});
    for (const Change& change : c.slower)
      table.row({change.name + " " + change.dtype, change.shape, change.timing, ms_text(change.before.median),
                 spread_text(change.before), ms_text(change.now.median), spread_text(change.now),
                 fmt::format("{:.2f}", change.ratio())});
    text = "\n" + table.text() + "\n";
  }
  text += fmt::format("{} timings compared: {} slower, {} quicker", c.compared, c.slower.size(), c.quicker.size());
  if (c.only_now > 0) text += fmt::format("; {} not in the earlier record", c.only_now);
  if (c.only_before > 0) text += fmt::format("; {} of the earlier record not measured now", c.only_before);
  return text + "\n";
}

namespace {

struct CompareCommand {
  std::string before, now;
  bool fail_if_slower = false;
};

int run_compare(const CompareCommand& c) {
  const Record before = bench::read_record(c.before), now = bench::read_record(c.now);
  warn_of_machines(before, now, c.before);
  const Comparison comparison = bench::compare(before, now);
  fmt::print("{}", comparison_text(comparison));
  return c.fail_if_slower && !comparison.slower.empty() ? kFailure : 0;
}

}  // namespace

Subcommand add_bench_compare(CLI::App& bench) {
  FlagSet flags(bench, "compare", "what is slower in one record than in another, without measuring");
  auto c = std::make_shared<CompareCommand>();
  flags.option("before", c->before, "a record: FILE.json").required();
  flags.option("now", c->now, "another of the same benchmark").required();
  flags.toggle("--fail-if-slower", c->fail_if_slower, "exit code 1 when something is");
  flags.footer(
      "Slower is a timing whose spread (10th to 90th percentile) lies wholly above the earlier one, and whose median "
      "is "
      "more than 5 % above.\n\n"
      "Example:\n  convolt bench compare before.json now.json");
  return {flags, [c] { return run_compare(*c); }};
}

Subcommand add_bench(CLI::App& program) {
  FlagSet flags(program, "bench", "measure kernels beside what the machine can do at most");
  flags.require_subcommand();
  CLI::App& bench = flags.app();
  const auto parts = std::make_shared<std::vector<Subcommand>>(
      std::vector{add_bench_kernels(bench), add_bench_step(bench), add_bench_conv(bench), add_bench_augment(bench),
                  add_bench_loader(bench), add_bench_roofline(bench), add_bench_compare(bench)});
  flags.footer(
      "Example:\n  convolt bench kernels --filter bn_ --output before.json\n  docs/benchmarks.md says how to read the "
      "results.");
  return {flags, [parts] {
            for (const Subcommand& part : *parts)
              if (part.flags.parsed()) return part.run();
            return kUsage;
          }};
}

}  // namespace convolt::cli
