#include <fmt/format.h>

#include "bench.h"
#include "bench/kernel_rows.h"
#include "io/names.h"

namespace convolt::cli {
namespace {

using bench::KernelRow;
using bench::Record;
using bench::Row;
using bench::Timing;

struct KernelsCommand {
  BenchFlags flags;
  std::string filter;
  double tensor_size = 0;  // MB
};

std::vector<KernelRow> selected(const std::string& filter) {
  std::vector<KernelRow> rows = bench::kernel_rows();
  std::vector<std::string> names;
  for (const KernelRow& row : rows) names.push_back(row.name);
  std::erase_if(rows, [&](const KernelRow& row) { return row.name.find(filter) == std::string::npos; });
  if (!rows.empty()) return rows;
  const std::string near = nearest_name(filter, names);
  throw UsageError(fmt::format("--filter '{}': no kernel's name has that in it{}", filter,
                               near.empty() ? "" : fmt::format(", did you mean '{}'?", near)));
}

std::string kernel_table(const Record& record) {
  TextTable table;
  table.row({"kernel", "shape", "MB", "cold ms", "spread", "GB/s", "of copy", "warm ms", "spread", "GB/s", "of copy"});
  for (const Row& row : record.rows) {
    std::vector<std::string> cells{row.name, row.shape, fmt::format("{:.1f}", static_cast<double>(row.bytes) / 1e6)};
    for (const Timing& t : row.timings) {
      cells.push_back(ms_text(t.ms.median));
      cells.push_back(spread_text(t.ms));
      cells.push_back(fmt::format("{:.1f}", bytes_per_second(row, t) / 1e9));
      cells.push_back(percent_text(t.fraction));
    }
    table.row(std::move(cells));
  }
  return fmt::format("{}, {}: {}\n\n{}", record.device, record.rows[0].dtype, limits_text(record), table.text());
}

int run_kernels(const KernelsCommand& c) {
  const BenchReport report(c.flags, "kernels");
  const std::vector<KernelRow> rows = selected(c.filter);
  const auto context = c.flags.device.make_context();
  Record record = empty_record("kernels", *context);
  bench::Stopwatch stopwatch(*context);
  const bench::Sweep sweep(*context);
  const int64_t bytes = tensor_bytes(c.tensor_size, record);
  const bench::Copy copy(stopwatch, sweep, bytes);
  std::vector<double> copies;
  for (size_t i = 0; i < rows.size(); ++i) {
    show_progress(fmt::format("{}/{} {}", i + 1, rows.size(), rows[i].name));
    bench::Operands operands(*context, c.flags.device.type(), bytes);
    const bench::Work work = rows[i].make(operands);
    record.rows.push_back(time_kernel(stopwatch, sweep, copy, rows[i].name, operands, work, c.flags.sampling, copies));
  }
  clear_progress();
  record.copy = copy.limit(copies);
  return report.finish(record, kernel_table(record));
}

}  // namespace

Subcommand add_bench_kernels(CLI::App& bench) {
  FlagSet flags(bench, "kernels", "time, GB/s and fraction of a copy's bandwidth of each kernel that memory bounds");
  auto c = std::make_shared<KernelsCommand>();
  flags.option("--filter", c->filter, "only kernels whose name has this in it");
  add_tensor_size(flags, c->tensor_size);
  c->flags.add(flags);
  flags.footer(
      "Cold: nothing that the kernel reads is in the caches. Warm: right after another call.\n\n"
      "Example:\n  convolt bench kernels --filter bn_ --threads 1");
  return {flags, [c] { return run_kernels(*c); }};
}

}  // namespace convolt::cli
