#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "bench.h"

namespace convolt::cli {
namespace {

using bench::Row;
using bench::Timing;

struct ConvCommand {
  BenchFlags flags;
  BenchNetwork network{.model = "resnet20"};
  std::string filter;
};

const Timing& quickest(const Row& row) {
  return *std::min_element(row.timings.begin(), row.timings.end(),
                           [](const Timing& a, const Timing& b) { return a.ms.median < b.ms.median; });
}

// What a step spends in each pass, by the chosen candidates and by the quickest.
std::string sums_of(const bench::Record& record, bool whole) {
  struct Sum {
    double chosen = 0, quickest = 0;
    int others = 0;  // shapes for which another than the chosen one was quicker than noise explains
  };
  std::map<std::string, Sum> sums;
  for (const Row& row : record.rows) {
    if (row.timings.empty()) continue;
    Sum& sum = sums[row.name.substr(row.name.rfind(' ') + 1)];
    const Timing &chosen = bench::chosen_of(row), &best = quickest(row);
    sum.chosen += row.count * chosen.ms.median;
    sum.quickest += row.count * best.ms.median;
    sum.others += best.ms.p90 < chosen.ms.p10 ? 1 : 0;
  }
  TextTable table;
  table.row({whole ? "all of a step" : "of these, in a step", "chosen ms", "quickest ms", "shapes with a quicker one"});
  for (const char* pass : {"fprop", "dgrad", "wgrad"})
    if (const Sum& sum = sums[pass]; sum.chosen > 0)
      table.row({pass, ms_text(sum.chosen), ms_text(sum.quickest), std::to_string(sum.others)});
  return table.text();
}

std::string conv_table(const bench::Record& record, bool whole) {
  TextTable table;
  table.row({"layer", "shape", "times", "candidate", "", "ms", "spread", "GFLOP/s", "GB/s", "of roofline"});
  for (const Row& row : record.rows) {
    std::vector<std::string> first{row.name, row.shape, std::to_string(row.count)};
    for (const Timing& t : row.timings) {
      std::vector<std::string> cells = first;
      cells.insert(cells.end(), {t.name, t.chosen ? "chosen" : "", ms_text(t.ms.median), spread_text(t.ms),
                                 fmt::format("{:.1f}", flops_per_second(row, t) / 1e9),
                                 fmt::format("{:.1f}", bytes_per_second(row, t) / 1e9), percent_text(t.fraction)});
      table.row(std::move(cells));
      first.assign(3, "");
    }
  }
  return fmt::format("{}, {}\n{}\n\n{}\n{}", record.device, record.provider, limits_text(record), table.text(),
                     sums_of(record, whole));
}

int run_conv(const ConvCommand& c) {
  const BenchReport report(c.flags, "conv");
  std::vector<bench::ConvCase> cases = conv_cases(c.network, c.flags.device);
  const auto name = [](const bench::ConvCase& k) { return k.layer + " " + bench::name_of(k.pass()); };
  std::erase_if(cases, [&](const bench::ConvCase& k) { return name(k).find(c.filter) == std::string::npos; });
  if (cases.empty()) throw UsageError("--filter '" + c.filter + "': no layer and pass of the network has that in it");

  const auto context = c.flags.device.make_context();
  bench::Record record = empty_record("conv", *context);
  record.provider = context->conv().describe();
  bench::Stopwatch stopwatch(*context);
  record.copy = bench::measure_copy(stopwatch, c.flags.sampling);
  record.matmul = bench::measure_matmul(stopwatch, c.flags.device.type(), c.flags.device.tf32(), c.flags.sampling);
  for (size_t i = 0; i < cases.size(); ++i) {
    show_progress(fmt::format("{}/{} {}", i + 1, cases.size(), name(cases[i])));
    record.rows.push_back(time_candidates(stopwatch, cases[i], record.copy, record.matmul, c.flags.sampling));
  }
  clear_progress();
  return report.finish(record, conv_table(record, c.filter.empty()));
}

}  // namespace

std::vector<bench::ConvCase> conv_cases(const BenchNetwork& network, const DeviceFlags& device) {
  const ModelInfo model = find_model(network.model);
  const int size = network.size > 0 ? network.size : model.size;
  Graph graph;
  build_model(graph, model, {.classes = 0, .height = size, .width = size, .channels = model.channels});
  PlanOptions options;
  options.batch = network.batch;
  options.dtype = device.type();
  options.tf32 = device.tf32();
  options.training = true;
  return bench::conv_cases(graph, options);
}

Subcommand add_bench_conv(CLI::App& bench) {
  FlagSet flags(bench, "conv", "every candidate for the convolutions and linear layers of a network, in each pass");
  auto c = std::make_shared<ConvCommand>();
  c->network.add(flags);
  flags.option("--filter", c->filter, "only layers and passes with this in their name: 'layer1', 'wgrad'");
  c->flags.add(flags);
  flags.footer(
      "Roofline: the bytes of input, weights and output at the copy's bandwidth or the FLOP at the matrix product's "
      "rate, whichever takes longer. Winograd's algorithm multiplies less than is counted.\n\n"
      "Example:\n  convolt bench conv --model resnet18 -b 16 --filter layer1");
  return {flags, [c] { return run_conv(*c); }};
}

}  // namespace convolt::cli
