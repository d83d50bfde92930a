#include <fmt/format.h>

#include "bench.h"
#include "bench/kernel_rows.h"

namespace convolt::cli {
namespace {

struct AugmentBench {
  BenchFlags flags;
  std::string model = "resnet18";
  PictureFlags pictures;
  AugmentFlags augment;
  int batch = 128;
};

// What make_pipeline() asks about: colour pictures of the size that augment_work() draws.
class DrawnPictures final : public Dataset {
public:
  int64_t size() const override { return 1; }
  RawSample read(int64_t) const override { throw DataError("these pictures are only measured"); }
  int fixed_height() const override { return bench::kPictureHeight; }
  int fixed_width() const override { return bench::kPictureWidth; }
};

std::string augment_table(const bench::Record& record) {
  const bench::Row& row = record.rows[0];
  TextTable table;
  table.row({"augment " + row.dtype, "ms", "spread", "pictures/s", "GB/s", "of copy"});
  for (const bench::Timing& t : row.timings)
    table.row({t.name, ms_text(t.ms.median), spread_text(t.ms), fmt::format("{:.0f}", images_per_second(row, t)),
               fmt::format("{:.1f}", bytes_per_second(row, t) / 1e9), percent_text(t.fraction)});
  return fmt::format("{}, {}: {}\n\n{}", record.device, row.shape, limits_text(record), table.text());
}

int run_augment(const AugmentBench& c) {
  const BenchReport report(c.flags, "augment");
  const AugmentOptions options = make_pipeline(find_model(c.model), DrawnPictures(), c.pictures, c.augment).training;
  const auto context = c.flags.device.make_context();
  bench::Record record = empty_record("augment", *context);
  const DType dtype = c.flags.device.type();
  const int64_t bytes = int64_t{c.batch} * options.height * options.width * options.channels * size_of(dtype);
  bench::Stopwatch stopwatch(*context);
  const bench::Sweep sweep(*context);
  const bench::Copy copy(stopwatch, sweep, 2 * record.last_cache_bytes);
  bench::Operands operands(*context, dtype, bytes);
  const bench::Work work = augment_work(operands, options);
  std::vector<double> copies;
  bench::Row row = time_kernel(stopwatch, sweep, copy, "augment", operands, work, c.flags.sampling, copies);
  row.shape = fmt::format("n{} {}x{} to {}x{}", c.batch, bench::kPictureHeight, bench::kPictureWidth, options.height,
                          options.width);
  row.images = c.batch;
  record.rows.push_back(row);
  record.copy = copy.limit(copies);
  return report.finish(record, augment_table(record));
}

}  // namespace

Subcommand add_bench_augment(CLI::App& bench) {
  FlagSet flags(bench, "augment", "pictures a second of the augmentation, and its fraction of a copy's bandwidth");
  auto c = std::make_shared<AugmentBench>();
  flags.option("--model", c->model, "the network whose picture size and augmentation are the defaults");
  flags.option("-b,--batch-size", c->batch, "pictures in a batch").check(at_least(1));
  c->flags.add(flags);
  c->pictures.add(flags, true);
  c->augment.add(flags);
  flags.footer(
      "The pictures are 500 x 375 pixels; bytes are those of the parts that are cropped and of the result.\n\n"
      "Example:\n  convolt bench augment --rotate 15 --color-jitter 0.4,0.4,0.4");
  return {flags, [c] { return run_augment(*c); }};
}

}  // namespace convolt::cli
