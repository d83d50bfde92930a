#include "train/checkpoint_keeper.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <regex>
#include <set>

#include "io/atomic_file.h"
#include "io/leftovers.h"

namespace convolt {
namespace {

namespace fs = std::filesystem;

std::string file_of(const KeptCheckpoint& k) { return fmt::format("best-{}-{:.4f}.safetensors", k.step, k.value); }

// Removes the files of a folder whose whole name is like `pattern`, but for `wanted`. What cannot be removed stays.
void remove_files(const std::string& folder, const char* pattern, const std::set<std::string>& wanted) {
  const std::regex name_pattern(pattern);
  std::vector<fs::path> files;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    if (const std::string name = entry.path().filename();
        std::regex_match(name, name_pattern) && wanted.count(name) == 0)
      files.push_back(entry.path());
  for (const fs::path& file : files) fs::remove(file, ignored);
}

}  // namespace

std::string_view name_of(BestMetric metric) {
  return metric == BestMetric::top1 ? "top1" : metric == BestMetric::top5 ? "top5" : "loss";
}

CheckpointKeeper::CheckpointKeeper(const TrainOptions& options, const ModelCard& card, TrainingState& state,
                                   bool validates)
    : options_(options), card_(card), state_(state) {
  if (!validates && (options.keep > 0 || options.early_stop > 0))
    throw UsageError(
        fmt::format("--{} needs a validation set, and there is none", options.keep > 0 ? "keep" : "early-stop"));
  const std::string metric(name_of(options.best_metric));
  if (state.best_step >= 0 && state.best_metric != metric)
    throw UsageError(fmt::format("{}: its best epoch was chosen by {}, not {}; give --best-metric {}", options.resume,
                                 state.best_metric, metric, state.best_metric));
  state.best_metric = metric;
  // A training that goes on in another folder begins its collection anew.
  std::erase_if(state.kept, [&](const KeptCheckpoint& k) { return !fs::exists(path(file_of(k))); });
}

std::string CheckpointKeeper::path(const std::string& file) const {
  return (fs::path(options_.output_dir) / file).string();
}

double CheckpointKeeper::value_of(const EvalResult& r) const {
  return options_.best_metric == BestMetric::top1 ? r.top1 : options_.best_metric == BestMetric::top5 ? r.top5 : r.loss;
}

bool CheckpointKeeper::better(double a, double b) const {
  return options_.best_metric == BestMetric::loss ? a < b : a > b;
}

void CheckpointKeeper::judge(EpochSummary& epoch) {
  const double value = epoch.validation ? value_of(*epoch.validation) : 0;
  const bool beats = std::isfinite(value) && (!state_.best_value || better(value, *state_.best_value));
  epoch.best = !epoch.validation || state_.best_step < 0 || beats;
  ++state_.epochs_since_best;
  if (epoch.best) {
    state_.best_step = epoch.step;
    state_.epochs_since_best = 0;
  }
  if (!epoch.validation) return;
  if (epoch.best) {
    state_.best_top1 = epoch.validation->top1;
    state_.best_value = std::isfinite(value) ? std::optional(value) : std::nullopt;
  }
  if (options_.keep > 0 && std::isfinite(value)) keep({epoch.step, value});
}

// The best first; of equal ones the first.
void CheckpointKeeper::keep(const KeptCheckpoint& candidate) {
  std::erase_if(state_.kept, [&](const KeptCheckpoint& k) { return k.step == candidate.step; });
  const auto place = std::find_if(state_.kept.begin(), state_.kept.end(),
                                  [&](const KeptCheckpoint& k) { return better(candidate.value, k.value); });
  state_.kept.insert(place, candidate);
  if (state_.kept.size() > static_cast<size_t>(options_.keep)) state_.kept.resize(static_cast<size_t>(options_.keep));
}

void CheckpointKeeper::save_judged(const EpochSummary& epoch, const Params& trained) const {
  if (options_.output_dir.empty()) return;
  for (const KeptCheckpoint& k : state_.kept)
    if (k.step == epoch.step) save_checkpoint(path(file_of(k)), trained, card_);
  if (epoch.best) save_checkpoint(path("best.safetensors"), trained, card_);
}

void CheckpointKeeper::save_last(const Params& params, const Optimizer& optimizer) const {
  if (options_.output_dir.empty()) return;
  save_checkpoint(path("last.safetensors"), params, card_, &optimizer, &state_);
  if (options_.keep > 0) remove_surplus();
}

void CheckpointKeeper::take_over_best() const {
  const fs::path mine = path("best.safetensors"), theirs = fs::path(options_.resume).parent_path() / "best.safetensors";
  if (state_.best_step < 0 || fs::exists(mine)) return;
  if (fs::exists(theirs)) {
    const std::vector<uint8_t> bytes = read_file(theirs.string(), std::numeric_limits<int64_t>::max() - 1);
    AtomicFile copy(mine.string());
    copy.write(std::as_bytes(std::span(bytes)));
    return copy.commit();
  }
  state_.best_step = -1;
  state_.best_top1 = -1;
  state_.best_value = std::nullopt;
}

void CheckpointKeeper::clear_leftovers() const {
  // What a killed process was writing. What a training alone writes, it is, whoever has its number by now.
  remove_files(options_.output_dir,
               R"(\.(last\.safetensors|best(-\d+-\d+\.\d+)?\.safetensors|(metrics|times)\.(jsonl|csv))\.tmp-\d+-\d+)",
               {});
  std::error_code ignored;
  for (const fs::path& file : leftovers_in(options_.output_dir, R"(\..+\.tmp-(\d+)-\d+)")) fs::remove(file, ignored);
  // What it had not yet removed, or had written for a last.safetensors that never came. A training that has nothing
  // left to do saves no more, and would leave it.
  if (!state_.kept.empty()) remove_surplus();
}

void CheckpointKeeper::forget() const {
  remove_files(options_.output_dir, R"((last|best(-\d+-\d+\.\d+)?)\.safetensors|bad\.jsonl|report\.html)", {});
  remove_files(path("tensorboard"), R"(events\.out\.tfevents\..*)", {});
}

void CheckpointKeeper::remove_surplus() const {
  std::set<std::string> wanted;
  for (const KeptCheckpoint& k : state_.kept) wanted.insert(file_of(k));
  remove_files(options_.output_dir, R"(best-\d+-\d+\.\d+\.safetensors)", wanted);
}

bool CheckpointKeeper::out_of_patience() const {
  return options_.early_stop > 0 && state_.epochs_since_best >= options_.early_stop;
}

}  // namespace convolt
