#include <fmt/format.h>

#include <filesystem>

#include "bench.h"
#include "bench/kernel_rows.h"
#include "drawing.h"
#include "io/atomic_file.h"
#include "roofline.h"

namespace convolt::cli {
namespace {

using bench::Row;

struct RooflineCommand {
  BenchFlags flags;
  BenchNetwork network{.model = "resnet18", .batch = 16};
  std::string out;
  double tensor_size = 0;  // MB
};

void add_kernels(const RooflineCommand& c, bench::Stopwatch& stopwatch, bench::Record& record) {
  const int64_t bytes = tensor_bytes(c.tensor_size, record);
  const bench::Sweep sweep(stopwatch.context());
  const bench::Copy copy(stopwatch, sweep, bytes);
  std::vector<double> copies;
  for (const bench::KernelRow& kernel : bench::kernel_rows()) {
    bench::Operands small(stopwatch.context(), c.flags.device.type(), 1);
    kernel.make(small);
    if (small.operations() == 0) continue;
    bench::Operands operands(stopwatch.context(), c.flags.device.type(), bytes);
    const bench::Work work = kernel.make(operands);
    show_progress(kernel.name);
    record.rows.push_back(time_kernel(stopwatch, sweep, copy, kernel.name, operands, work, c.flags.sampling, copies));
  }
  record.copy = copy.limit(copies);
}

void add_convolutions(const RooflineCommand& c, const std::vector<bench::ConvCase>& cases, bench::Stopwatch& stopwatch,
                      bench::Record& record) {
  record.matmul = bench::measure_matmul(stopwatch, c.flags.device.type(), c.flags.device.tf32(), c.flags.sampling);
  for (const bench::ConvCase& k : cases) {
    show_progress(k.layer);
    record.rows.push_back(time_candidates(stopwatch, k, record.copy, record.matmul, c.flags.sampling));
  }
}

cv::Mat drawn(const RooflineCommand& c, const bench::Record& record) {
  Roofline r{
      .title = fmt::format("Roofline: kernels, and the convolutions of {} (batch {}), {}", c.network.model,
                           c.network.batch, record.rows[0].dtype),
      .subtitle = fmt::format("{}, {}; minimal bytes and plain sums, best times", record.device, record.provider),
      .bytes_per_second = record.copy.best,
      .flops_per_second = record.matmul.best};
  r.series = {{"kernels", {60, 130, 60}, {}},
              {"convolutions, fprop", {181, 113, 33}, {}},
              {"dgrad", {40, 110, 230}, {}},
              {"wgrad", {150, 60, 150}, {}}};
  for (const Row& row : record.rows) {
    const std::string pass = row.name.substr(row.name.rfind(' ') + 1);
    const size_t series = pass == "fprop" ? 1 : pass == "dgrad" ? 2 : pass == "wgrad" ? 3 : 0;
    const bench::Timing& t = bench::chosen_of(row);
    r.series[series].points.push_back({static_cast<double>(row.flops) / static_cast<double>(row.bytes),
                                       flops_per_second(row, t), series == 0 ? row.name : ""});
  }
  return draw_roofline(r);
}

int run_roofline(const RooflineCommand& c) {
  if (std::filesystem::path(c.out).extension() != ".png")
    throw UsageError("--out '" + c.out + "': expected a name that ends in .png");
  check_writable(c.out);
  const BenchReport report(c.flags, "roofline");
  const std::vector<bench::ConvCase> cases = conv_cases(c.network, c.flags.device);
  const auto context = c.flags.device.make_context();
  bench::Record record = empty_record("roofline", *context);
  record.provider = context->conv().describe();
  bench::Stopwatch stopwatch(*context);
  add_kernels(c, stopwatch, record);
  add_convolutions(c, cases, stopwatch, record);
  clear_progress();
  write_png(c.out, drawn(c, record));
  return report.finish(record, fmt::format("{}: {}\n", c.out, limits_text(record)));
}

}  // namespace

Subcommand add_bench_roofline(CLI::App& bench) {
  FlagSet flags(bench, "roofline", "draw kernels and a network's convolutions under what the machine can do at most");
  auto c = std::make_shared<RooflineCommand>();
  c->network.add(flags);
  flags.group("Options");
  add_tensor_size(flags, c->tensor_size);
  flags.option("--out", c->out, "the picture, FILE.png").required();
  c->flags.add(flags);
  flags.footer("Example:\n  convolt bench roofline --model resnet18 -b 16 --out roofline.png");
  return {flags, [c] { return run_roofline(*c); }};
}

}  // namespace convolt::cli
