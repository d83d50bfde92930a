#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "count_line.h"
#include "data/sources.h"
#include "flags.h"
#include "io/atomic_file.h"
#include "json_text.h"
#include "verification.h"

namespace convolt::cli {
namespace {

struct VerifyCommand {
  std::string path, validation_path, format = "auto", page;
  int workers = 0, most = 20;
  int64_t max_pixels = kMaxPixels;
  bool json = false, quiet = false;
};

struct Opened {
  std::string name;
  std::unique_ptr<Dataset> data;
};

std::vector<Opened> open_parts(const VerifyCommand& c) {
  std::vector<Opened> parts;
  auto validation = open_dataset({c.path, c.format, Split::validation, {.use = false}});
  // A set may have a validation part alone.
  try {
    parts.push_back({"training", open_dataset({c.path, c.format, Split::train, {.use = false}})});
  } catch (const NoTrainingSplit&) {
    if (!validation) throw;
  }
  if (!c.validation_path.empty()) {
    validation = open_dataset({c.validation_path, c.format, Split::validation, {.use = false}});
    if (!validation) validation = open_dataset({c.validation_path, c.format, Split::train, {.use = false}});
  }
  if (validation) parts.push_back({"validation", std::move(validation)});
  return parts;
}

int run_verify(const VerifyCommand& c) {
  std::unique_ptr<AtomicFile> page;
  if (!c.page.empty()) page = std::make_unique<AtomicFile>(c.page);  // complains before the work begins
  const std::vector<Opened> opened = open_parts(c);
  const int threads = threads_or_cores(c.workers);
  int64_t total = 0, before = 0;
  for (const Opened& o : opened) total += o.data->size();
  Verification v;
  v.path = c.path;
  v.format = opened[0].data->describe();
  v.classes = opened[0].data->class_names();
  std::vector<const Dataset*> sets;
  std::vector<std::vector<Examined>> examined;
  {
    CountLine line("verifying", total, c.quiet);
    DecodeLimits limits;
    limits.max_pixels = c.max_pixels;
    limits.max_side = 4096;  // of what is kept; every file is decoded to its end
    for (const Opened& o : opened) {
      examined.push_back(examine(*o.data, limits, threads, [&](int64_t done) { line.at(before + done); }));
      before += o.data->size();
      sets.push_back(o.data.get());
    }
    v.identical = identical_samples(sets, examined);
  }
  for (size_t p = 0; p < opened.size(); ++p) v.parts.push_back({opened[p].name, sets[p], std::move(examined[p])});
  if (page) {
    page->write(verification_page(v));
    page->commit();
  }
  fmt::print("{}", c.json ? json_text(verification_json(v)) + "\n" : verification_text(v, c.most));
  return v.broken() > 0 ? kData : 0;
}

}  // namespace

Subcommand add_verify(CLI::App& program) {
  FlagSet flags(program, "verify",
                "decode every picture of a data set: what is broken, what is there twice, sizes, formats, classes");
  auto c = std::make_shared<VerifyCommand>();
  flags.option("--data-path,--data-dir", c->path, "the data set, as for train").required();
  flags.option("--val-data-path", c->validation_path, "the validation set, when it lies elsewhere");
  flags.option("--data-format", c->format, dataset_formats());
  flags.option("-j,--workers", c->workers, "threads, 0 for as many as cores").check(at_least(0));
  add_max_pixels(flags, c->max_pixels);
  flags.group("Output");
  flags.option("--html", c->page, "also write a page with pictures, FILE.html");
  flags.option("--list", c->most, "lines of each list").check(at_least(0));
  flags.toggle("--json", c->json, "everything as one JSON object");
  flags.toggle("--quiet,-q", c->quiet, "no progress");
  flags.footer(
      "Exit code 3 when a picture is broken. Files that are there twice, also in both parts or under two classes, are\n"
      "named and no failure.\n\n"
      "Example:\n  convolt verify --data-path DATA --html data.html");
  return {flags, [c] { return run_verify(*c); }};
}

}  // namespace convolt::cli
