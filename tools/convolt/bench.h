// What the subcommands of `convolt bench` share: flags, and what becomes of a record.
#pragma once

#include <optional>

#include "bench/conv_rows.h"
#include "commands.h"
#include "flags.h"
#include "progress.h"
#include "text_table.h"

namespace convolt::cli {

// The network whose step, or whose convolutions, are measured.
struct BenchNetwork {
  std::string model;
  int batch = 128, size = 0;  // size: 0 for the model's

  void add(FlagSet& flags);
};

struct BenchFlags {
  DeviceFlags device;
  bench::Sampling sampling;
  std::string output, compare;
  bool json = false, csv = false, fail_if_slower = false;

  void add(FlagSet& flags);
};

// Made before anything is measured, so that a wrong name costs no time. Throws UsageError and DataError.
class BenchReport {
public:
  BenchReport(const BenchFlags& flags, const char* benchmark);
  // Prints the table, or JSON or CSV; writes --output; prints what became slower than in --compare. Returns the exit
  // code.
  int finish(const bench::Record& record, const std::string& table) const;

private:
  const BenchFlags& flags_;
  std::optional<bench::Record> before_;
};

// --tensor-size MB: of the largest tensor of each kernel; 0, and not given, is twice the last cache.
void add_tensor_size(FlagSet& flags, double& megabytes);
int64_t tensor_bytes(double megabytes, const bench::Record& record);

// An empty record with what describes the machine.
bench::Record empty_record(const char* benchmark, Context& context);
// "copy 36.4 GB/s at best, 35.1 by the median (streaming stores)", and the same of the matrix product where it was
// measured.
std::string limits_text(const bench::Record& record);

// Numbers of tables.
std::string ms_text(double ms);
std::string spread_text(const bench::Summary& ms);  // "2.31 - 2.54"
std::string percent_text(double part);              // "87 %"; "-" for 0

// What became slower, and a line of how many timings were compared.
std::string comparison_text(const bench::Comparison& comparison);

// Of a training step of the network, in the type of the device's flags.
std::vector<bench::ConvCase> conv_cases(const BenchNetwork& network, const DeviceFlags& device);

Subcommand add_bench_kernels(CLI::App& bench);
Subcommand add_bench_step(CLI::App& bench);
Subcommand add_bench_conv(CLI::App& bench);
Subcommand add_bench_augment(CLI::App& bench);
Subcommand add_bench_loader(CLI::App& bench);
Subcommand add_bench_roofline(CLI::App& bench);
Subcommand add_bench_compare(CLI::App& bench);

}  // namespace convolt::cli
