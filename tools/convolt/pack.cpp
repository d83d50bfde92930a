#include "convolt/pack.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "commands.h"
#include "flags.h"
#include "interrupt.h"
#include "progress.h"
#include "say.h"

namespace convolt::cli {
namespace {

int all_cores() { return threads_or_cores(0); }

// A line on a terminal that changes; elsewhere a line now and then.
class PackProgress {
public:
  void operator()(int64_t done, int64_t all) {
    const bool terminal = isatty(STDERR_FILENO) != 0;
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < (terminal ? std::chrono::milliseconds(100) : std::chrono::seconds(10))) return;
    last_ = now;
    const std::string text = fmt::format("packed {} of {} pictures", done, all);
    if (terminal)
      show_progress(text);
    else
      say("{}\n", text);
  }

private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

struct PackCommand {
  PackOptions options;
  bool raw = false, jpeg = false, quiet = false;
  std::string bad_images = "skip";
};

int run_pack(PackCommand& c) {
  PackOptions& o = c.options;
  o.as = c.raw ? PackAs::pixels : c.jpeg ? PackAs::jpeg : PackAs::files;
  o.fail_on_bad = c.bad_images == "fail";
  if (o.threads == 0) o.threads = all_cores();
  if (!c.quiet) o.on_progress = [progress = PackProgress()](int64_t done, int64_t all) mutable { progress(done, all); };
  const PackResult result = pack_dataset(o);
  clear_progress();
  report_bad_samples(result.left_out);
  fmt::print("{}: {} pictures for training, {} for validation, {} left out, {:.1f} MB{}\n", o.output, result.train,
             result.validation, result.left_out.size(), static_cast<double>(result.bytes) / 1e6,
             o.shards > 1 ? fmt::format(" in {} shards", o.shards) : "");
  return 0;
}

}  // namespace

Subcommand add_pack(CLI::App& program) {
  FlagSet flags(program, "pack", "pack a data set into one file that is mapped and read in any order");
  auto c = std::make_shared<PackCommand>();
  PackOptions& o = c->options;
  o.threads = 0;
  flags.group("Data");
  flags.option("--data-path,--data-dir", o.data_path, "a data set, as for convolt train").required();
  flags.option("--data-format", o.format, dataset_formats());
  flags
      .option("--bad-images", c->bad_images,
              "a picture that cannot be read, or decoded where it must be: skip leaves it out, fail ends with code 3")
      .check(one_of({"skip", "fail"}));
  flags.group("Pictures");
  flags.option("--max-side", o.max_side, "shrink pictures with a longer side to it, 0 for none").check(at_least(0));
  const Flag raw = flags.toggle("--raw", c->raw, "store decoded pixels: large, but nothing is left to decode");
  flags.toggle("--jpeg", c->jpeg, "store what is no JPEG as one, of quality 95").excludes(raw);
  flags.group("Output");
  flags.option("--out,--output", o.output, "the set, FILE.cvt").required();
  flags.option("--shards", o.shards, "files, called FILE-00000-of-00004.cvt and so on").check(between(1, 99'999));
  flags.toggle("--overwrite", o.overwrite, "begin anew, whatever is there, whole or half done");
  flags.option("-j,--workers", o.threads, "threads, 0 for as many as cores; the bytes do not depend on it")
      .check(at_least(0));
  flags.toggle("-q,--quiet", c->quiet, "no progress");
  flags.footer(
      "Without --max-side, --raw and --jpeg the files are packed as they are, and training sees the same batches. Cut "
      "off, the same command goes on where it was.\n\n"
      "Example:\n  convolt pack --data-path DATA --out set.cvt\n  convolt train --data-path set.cvt --model resnet20");
  return {flags, [c] { return run_pack(*c); }};
}

Subcommand add_unpack(CLI::App& program) {
  FlagSet flags(program, "unpack", "write the pictures of a packed set as files again");
  auto o = std::make_shared<UnpackOptions>();
  auto bad_images = std::make_shared<std::string>("fail");
  o->threads = 0;
  flags.option("set", o->input, "a packed set, FILE.cvt").required();
  flags.option("--output-dir", o->output, "folder to make: train/<class>/<name>, val/<class>/<name>").required();
  flags.option("-j,--workers", o->threads, "threads, 0 for as many as cores").check(at_least(0));
  flags
      .option("--bad-images", *bad_images,
              "a sample that is damaged: fail ends with code 3 and leaves no folder, skip leaves it out and names it")
      .check(one_of({"fail", "skip"}));
  flags.footer(
      "Files come out as they were packed, pixels as PNG.\n\n"
      "Example:\n  convolt unpack set.cvt --output-dir DATA");
  return {flags, [o, bad_images] {
            if (o->threads == 0) o->threads = all_cores();
            o->skip_bad = *bad_images == "skip";
            o->interrupt = &interrupt_signal;
            return run_interruptibly([&] {
              const UnpackResult result = unpack_dataset(*o);
              report_bad_samples(result.left_out);
              fmt::print("{}: {} pictures{}\n", o->output, result.pictures,
                         result.left_out.empty() ? "" : fmt::format(", {} left out", result.left_out.size()));
              return 0;
            });
          }};
}

}  // namespace convolt::cli
