#include "run_flags.h"

#include <fmt/format.h>

#include <filesystem>
#include <map>

#include "flags.h"

namespace convolt::cli {
namespace {

namespace fs = std::filesystem;

const std::map<std::string, BestMetric> kMetrics{
    {"top1", BestMetric::top1}, {"top5", BestMetric::top5}, {"loss", BestMetric::loss}};
const std::map<std::string, BadStepPolicy> kNanPolicies{
    {"stop", BadStepPolicy::stop}, {"skip", BadStepPolicy::skip}, {"halve-lr", BadStepPolicy::halve_rate}};
const std::map<std::string, BadSamplePolicy> kBadImages{
    {"replace", BadSamplePolicy::replace}, {"skip", BadSamplePolicy::skip}, {"fail", BadSamplePolicy::fail}};

// "1%" or "0.01", if it is a part of all.
std::optional<double> part_of(std::string text) {
  const bool percent = text.ends_with('%');
  if (percent) text.pop_back();
  std::optional<double> part = to_number(text);
  if (part && percent) *part /= 100;
  return part && *part >= 0 && *part <= 1 ? part : std::nullopt;
}

template <class Map>
Rule names_of(const Map& values) {
  std::vector<std::string> names;
  for (const auto& [name, value] : values) names.push_back(name);
  return one_of(names);
}

void add_checkpoints(FlagSet& flags, RunFlags& f) {
  flags.group("Output");
  flags.option(
      "--output-dir,--output", f.output_dir,
      "folder for last.safetensors, best.safetensors, metrics.jsonl, metrics.csv, times.jsonl and config.toml");
  const Flag resume = flags.option(
      "--resume", f.resume, "go on from this checkpoint, or 'auto': from --output-dir's last one if there is one");
  flags.toggle("--overwrite", f.overwrite, "start anew in a folder that is not empty, without what a run left there")
      .excludes(resume);
  flags.option("--checkpoint-every", f.checkpoint_every, "steps between checkpoints, besides those after each epoch")
      .check(at_least(1))
      .hide_default();
  flags.option("--keep", f.keep, "so many of the best epochs keep a checkpoint: best-STEP-VALUE.safetensors")
      .check(at_least(0));
  flags.option("--best-metric", f.best_metric, "of the validation, chooses the best epoch: top1, top5 or loss")
      .check(names_of(kMetrics));
  flags.option("--log-every", f.log_every, "steps between lines of metrics.jsonl").check(at_least(1));
  flags.toggle("--tensorboard", f.tensorboard, "event files in OUTPUT/tensorboard: curves, pictures, weights");
  flags.option(
      "--profile", f.profile,
      "a file for what decode threads, copies and steps did when, as Chrome (chrome://tracing) and Perfetto show it");
}

// Another training's files would be overwritten and mixed with those of this one.
void check_own_folder(const std::string& output_dir, const fs::path& from) {
  std::error_code none;
  if (output_dir.empty() || !fs::exists(fs::path(output_dir) / "last.safetensors")) return;
  const fs::path folder = from.has_parent_path() ? from.parent_path() : fs::path(".");
  if (!fs::equivalent(folder, output_dir, none))
    throw UsageError("--output-dir '" + output_dir + "' holds another training than '" + from.string() +
                     "'; name the folder of that to go on there, or another one, or give --resume auto");
}

}  // namespace

void RunFlags::add(FlagSet& flags) {
  add_checkpoints(flags, *this);
  flags.group("Training");
  flags.option("--early-stop", early_stop, "end after so many epochs without a better one, 0 for never")
      .check(at_least(0));
  flags
      .option("--nan-policy", nan_policy,
              "after a step whose loss is not finite: stop; skip it; or halve-lr, which skips it too")
      .check(names_of(kNanPolicies));
  flags
      .option("--bad-images", bad_images,
              "a picture that cannot be read: replace it by another, skip it (weight 0), or fail")
      .check(names_of(kBadImages));
  flags
      .option("--max-bad", max_bad,
              "the part of the training pictures that may be unreadable before the training ends, as 1% or 0.01")
      .check({"", [](const std::string& text) {
                return part_of(text) ? "" : fmt::format("expected a part of all, as 1% or 0.01, found '{}'", text);
              }});
}

std::string RunFlags::resume_path() const {
  if (resume.empty()) {
    if (!output_dir.empty() && fs::exists(output_dir) && !fs::is_directory(output_dir))
      throw UsageError("--output-dir '" + output_dir + "' is a file; name a folder");
    if (!output_dir.empty() && fs::is_directory(output_dir) && !fs::is_empty(output_dir) && !overwrite)
      throw UsageError("--output-dir '" + output_dir +
                       "' is not empty; give --resume auto to go on, --overwrite to start anew, or another folder");
    return {};
  }
  if (resume != "auto") {
    const fs::path from = fs::is_directory(resume) ? fs::path(resume) / "last.safetensors" : fs::path(resume);
    check_own_folder(output_dir, from);
    return from.string();
  }
  if (output_dir.empty()) throw UsageError("--resume auto needs --output-dir");
  const fs::path last = fs::path(output_dir) / "last.safetensors";
  return fs::exists(last) ? last.string() : std::string{};
}

void RunFlags::apply_to(TrainOptions& o) const {
  if (output_dir.empty())
    for (const auto& [given, flag] :
         {std::pair(keep > 0, "--keep"), {tensorboard, "--tensorboard"}, {checkpoint_every > 0, "--checkpoint-every"}})
      if (given) throw UsageError(std::string(flag) + " needs --output-dir");
  o.output_dir = output_dir;
  o.resume = resume_path();
  o.checkpoint_every = checkpoint_every;
  o.log_every = log_every;
  o.keep = keep;
  o.early_stop = early_stop;
  o.tensorboard = tensorboard;
  o.profile = profile;
  o.best_metric = kMetrics.at(best_metric);
  o.optimizer.bad_steps = kNanPolicies.at(nan_policy);
  o.bad_samples = kBadImages.at(bad_images);
  o.max_bad = *part_of(max_bad);
}

}  // namespace convolt::cli
