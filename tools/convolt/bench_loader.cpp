#include <fmt/format.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <fstream>
#include <optional>
#include <sstream>
#include <thread>

#include "augment/policy.h"
#include "bench.h"

namespace convolt::cli {
namespace {

struct LoaderCommand {
  BenchFlags flags{.sampling = {.samples = 7, .seconds = 10}};
  std::string path, format = "auto", model = "resnet18";
  std::vector<double> workers;
  DecodeFlags decode;
  int batch = 128, batches = 2;
  bool no_index = false, crops = false;
  DecoderFlag decoder;
  LoaderMemoryFlag memory;
};

std::vector<int> thread_counts(const LoaderCommand& c) {
  std::vector<int> counts;
  for (const double w : c.workers) counts.push_back(static_cast<int>(w));
  const int cores = threads_or_cores(0);
  for (int n = 1; c.workers.empty() && n <= cores; n *= 2) counts.push_back(n);
  return counts;
}

// Since this process began, loading its libraries included: field 22 of proc(5)'s stat, in ticks of 10 ms.
double seconds_of_life() {
  std::ifstream file("/proc/self/stat");
  std::string text{std::istreambuf_iterator<char>(file), {}};
  std::istringstream after_name(text.substr(text.rfind(')') + 1));
  double began = 0;
  std::string passed_over;
  for (int field = 3; field < 22; ++field) after_name >> passed_over;
  after_name >> began;
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec) -
         began / static_cast<double>(sysconf(_SC_CLK_TCK));
}

// What a training step begins with: the pictures of a batch become the network's input.
class Crops {
public:
  Crops(Context& context, const LoaderOptions& options, DType dtype)
      : context_(context),
        shape_{options.batch, options.augment.height, options.augment.width, options.augment.channels},
        device_input_(context, sizeof(StepInput)),
        scratch_(context, std::max<int64_t>(augment_scratch(options.augment, options.batch), 1)),
        output_(context, shape_.elements() * size_of(dtype)),
        args_(augment_args(options.augment, options.batch, scratch_.data())),
        inputs_(static_cast<size_t>(options.slots)) {
    args_.input = device_input_.as<const StepInput>();
    args_.y = {dtype, shape_, output_.data()};
  }
  // Queues it. As many inputs are kept as there are slots: the queue has passed that of the batch that had the slot.
  void make(const Batch& batch) {
    StepInput& input = inputs_[static_cast<size_t>(batch.step) % inputs_.size()];
    input = input_of(batch);
    Queue& queue = context_.compute();
    queue.copy(device_input_.data(), &input, device_input_.bytes());
    queue.run([args = args_](Stream s) { augment(s, args); });
  }

private:
  Context& context_;
  const Shape shape_;
  const Buffer device_input_, scratch_, output_;
  AugmentArgs args_;
  std::vector<StepInput> inputs_;
};

// Batches as training takes them: decoding and the copy to the device, and with --crops what a step begins with.
// `first`: how old the process was when the first batch was on the device, where it is not set.
bench::Row time_loader(const LoaderCommand& c, Context& context, const Dataset& data, LoaderOptions options,
                       double& first) {
  const auto loader = Loader::create(context, data, options);
  std::optional<Crops> crops;
  if (c.crops) crops.emplace(context, options, c.flags.device.type());
  const auto take = [&](int count) {
    for (int i = 0; i < count; ++i) {
      Batch batch;
      loader->next(batch);
      if (crops) crops->make(batch);
      loader->release(batch);
    }
    context.compute().synchronize();
  };
  take(1);
  if (first == 0) first = seconds_of_life();
  const auto window = [&] {
    const auto start = std::chrono::steady_clock::now();
    take(c.batches);
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count() / c.batches;
  };
  for (int i = 0; i * c.batches < options.slots; ++i) window();  // what was ready at the start
  const auto times = in_turn(c.flags.sampling, {window});
  if (const auto bad = loader->bad_samples(); !bad.empty())
    warn(fmt::format("could not read {} of the pictures, and measured others instead; the first: {}: {}", bad.size(),
                     printable(bad[0].name), printable(bad[0].reason)));
  return {.name = crops ? "loader crops" : "loader",
          .dtype = crops ? std::string(name_of(c.flags.device.type())) : "u8",
          .shape = fmt::format("j{} n{} {}x{}{}", options.threads, c.batch, options.augment.height,
                               options.augment.width, options.decoder == Decoder::nvjpeg ? " nvjpeg" : ""),
          .images = static_cast<double>(c.batch),
          .timings = {{"batch", bench::summary_of(times[0])}}};
}

std::string loader_table(const bench::Record& record, const Dataset& data, const std::vector<int>& threads,
                         double first) {
  TextTable table;
  table.row({"threads", "ms a batch", "spread", "pictures/s", "times the first"});
  const auto rate = [](const bench::Row& row) { return images_per_second(row, row.timings[0]); };
  for (size_t i = 0; i < record.rows.size(); ++i) {
    const bench::Row& row = record.rows[i];
    table.row({std::to_string(threads[i]), ms_text(row.timings[0].ms.median), spread_text(row.timings[0].ms),
               fmt::format("{:.0f}", rate(row)), fmt::format("{:.2f}", rate(row) / rate(record.rows[0]))});
  }
  return fmt::format("{}, {} of {} pictures; the first batch was there {:.2f} s after the program began\n\n{}",
                     record.device, data.describe(), data.size(), first, table.text());
}

int run_loader(const LoaderCommand& c) {
  const BenchReport report(c.flags, "loader");
  for (const double w : c.workers)
    if (w < 1 || w != std::floor(w))
      throw UsageError(fmt::format("--workers: expected whole numbers from 1, found {}", w));
  const ModelInfo model = find_model(c.model);
  const auto data = open_indexed({c.path, c.format, Split::train}, c.no_index, 0);
  const auto context = c.flags.device.make_context();
  bench::Record record = empty_record("loader", *context);
  LoaderOptions options;
  options.batch = c.batch;
  options.decode = c.decode.options();
  options.decoder = c.decoder.decoder();
  options.memory = c.memory.bytes();
  options.augment = make_pipeline(model, *data, {}, {}).training;
  const std::vector<int> threads = thread_counts(c);
  double first = 0;
  for (size_t i = 0; i < threads.size(); ++i) {
    show_progress(fmt::format("-j {}", threads[i]));
    options.threads = threads[i];
    record.rows.push_back(time_loader(c, *context, *data, options, first));
  }
  clear_progress();
  return report.finish(record, loader_table(record, *data, threads, first));
}

}  // namespace

Subcommand add_bench_loader(CLI::App& bench) {
  FlagSet flags(bench, "loader", "pictures a second that the loader decodes, by number of decode threads");
  auto c = std::make_shared<LoaderCommand>();
  flags.group("Data");
  flags.option("--data-path,--data-dir", c->path, "a data set, as for convolt train").required();
  flags.option("--data-format", c->format, dataset_formats());
  add_no_index(flags, c->no_index);
  flags.option("--model", c->model, "the network whose pictures are asked for");
  flags.option("-b,--batch-size", c->batch, "pictures in a batch").check(at_least(1));
  flags.option("-j,--workers", c->workers, "decode threads to try, as in 1,2,4 [doubling up to the cores]")
      .delimiter(',');
  flags.option("--batches", c->batches, "batches in a row for one timing").check(at_least(1));
  flags.toggle("--crops", c->crops, "make the network's input of each batch too, augmented and normalised");
  c->decode.add(flags);
  c->decoder.add(flags);
  c->memory.add(flags);
  c->flags.add(flags);
  flags.footer("Example:\n  convolt bench loader --data-path DATA --model resnet50 -j 1,2,4");
  return {flags, [c] { return run_loader(*c); }};
}

}  // namespace convolt::cli
