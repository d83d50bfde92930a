#include "train/run_log.h"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "io/atomic_file.h"

namespace convolt {
namespace {

namespace fs = std::filesystem;

// Made first, since the files lie in it.
std::string made(const std::string& folder) {
  make_output_folder(folder);
  return folder;
}

std::string in(const std::string& folder, const char* name) { return (fs::path(folder) / name).string(); }

// The whole lines of a file, none where there is no file.
std::set<std::string> lines_in(const std::string& path) {
  std::set<std::string> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) lines.insert(line);
  return lines;
}

// Of an epoch, beside lines of the steps.
constexpr const char* kOfEpoch = "train_loss";

MetricsLog open_lines(const std::string& path, std::optional<int64_t> after_step, bool epoch_open) {
  return after_step ? MetricsLog::resume(path, *after_step, epoch_open ? kOfEpoch : "") : MetricsLog::create(path);
}

// The last step that files know which have a line for each epoch and nothing else.
std::optional<int64_t> closed(std::optional<int64_t> after_step, bool epoch_open) {
  return after_step && epoch_open ? std::optional(*after_step - 1) : after_step;
}

MetricsTable open_table(const std::string& path, std::optional<int64_t> after_step) {
  const std::vector<std::string> columns{"step",     "epoch",    "lr",          "train_loss",  "train_top1", "val_loss",
                                         "val_top1", "val_top5", "val_samples", "val_skipped", "best"};
  return after_step ? MetricsTable::resume(path, columns, *after_step) : MetricsTable::create(path, columns);
}

}  // namespace

RunLog::RunLog(const std::string& folder, std::optional<int64_t> after_step, bool epoch_open, bool tensorboard)
    : folder_(folder),
      bad_(after_step ? lines_in(in(folder, "bad.jsonl")) : std::set<std::string>()),
      lines_(open_lines(in(made(folder), "metrics.jsonl"), after_step, epoch_open)),
      times_(open_lines(in(folder, "times.jsonl"), closed(after_step, epoch_open), false)),
      table_(open_table(in(folder, "metrics.csv"), closed(after_step, epoch_open))) {
  if (tensorboard) events_.emplace(in(folder, "tensorboard"), after_step ? *after_step + (epoch_open ? 0 : 1) : 0);
}

void RunLog::progress(const TrainProgress& p) {
  nlohmann::ordered_json line{
      {"step", p.step}, {"epoch", p.epoch}, {"loss", p.loss}, {"top1", p.top1}, {"lr", p.learning_rate}};
  if (p.gradient_norm > 0) line["gradient_norm"] = p.gradient_norm;
  if (p.bad_steps > 0) line["bad_steps"] = p.bad_steps;
  if (p.loss_scale > 0) {
    line["loss_scale"] = p.loss_scale;
    line["overflows"] = p.overflows;
  }
  lines_.append(line);
  if (!events_) return;
  std::vector<std::pair<std::string, double>> values{{"train/loss", p.loss},
                                                     {"train/top1", p.top1},
                                                     {"train/lr", p.learning_rate},
                                                     {"train/images_per_second", p.images_per_second}};
  if (p.gradient_norm > 0) values.emplace_back("train/gradient_norm", p.gradient_norm);
  if (p.loss_scale > 0) {
    values.emplace_back("train/loss_scale", p.loss_scale);
    values.emplace_back("train/overflows", static_cast<double>(p.overflows));
  }
  events_->scalars(p.step, values);
}

void RunLog::epoch(const EpochSummary& s) {
  nlohmann::ordered_json line{{"step", s.step},
                              {"epoch", s.epoch},
                              {"lr", s.learning_rate},
                              {kOfEpoch, s.train_loss},
                              {"train_top1", s.train_top1}};
  if (s.validation) {
    line["val_loss"] = s.validation->loss;
    line["val_top1"] = s.validation->top1;
    line["val_top5"] = s.validation->top5;
    line["val_samples"] = s.validation->samples;
    line["val_skipped"] = s.validation->skipped;
  }
  line["best"] = s.best;
  lines_.append(line);
  table_.append(line);
  times_.append({{"step", s.step},
                 {"epoch", s.epoch},
                 {"seconds", s.seconds},
                 {"data_wait", s.data.waited},
                 {"read", s.data.read},
                 {"decode", s.data.decode},
                 {"copy", s.data.copy}});
  if (!events_) return;
  std::vector<std::pair<std::string, double>> values{
      {"epoch/loss", s.train_loss}, {"epoch/top1", s.train_top1}, {"epoch/data_wait", s.data.waited}};
  if (s.validation) {
    values.emplace_back("validation/loss", s.validation->loss);
    values.emplace_back("validation/top1", s.validation->top1);
    values.emplace_back("validation/top5", s.validation->top5);
  }
  events_->scalars(s.step, values);
}

void RunLog::bad_samples(const std::vector<BadSample>& samples) {
  for (const BadSample& b : samples) {
    const nlohmann::ordered_json line{{"name", b.name}, {"reason", b.reason}};
    bad_.insert(line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  }
  if (bad_.empty()) return;
  std::string text;
  for (const std::string& line : bad_) text += line + "\n";
  AtomicFile file(in(folder_, "bad.jsonl"));
  file.write(text);
  file.commit();
}

void RunLog::picture(int64_t step, const EncodedPicture& picture) { events_->picture(step, "train/pictures", picture); }

void RunLog::weights(int64_t step, const Params& params) {
  for (size_t i = 0; i < params.specs().size(); ++i)
    if (params.specs()[i].trainable)
      events_->histogram(step, "weights/" + params.specs()[i].name, histogram_of(params.values(static_cast<int>(i))));
}

}  // namespace convolt
