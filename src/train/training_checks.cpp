#include "train/training_checks.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace convolt {
namespace {

// As a checkpoint keeps it: what is not UTF-8 is replaced.
std::string kept(const std::string& name) {
  using Json = nlohmann::json;
  return Json::parse(Json(name).dump(-1, ' ', false, Json::error_handler_t::replace));
}

}  // namespace

// No comparison holds for NaN.
void check_training(const TrainOptions& o, const Graph& graph, const ModelCard& card) {
  const auto require = [](bool good, const char* name, const char* flag, const std::string& expected, auto found) {
    if (!good) throw UsageError(fmt::format("{} ({}) must be {}, found {}", name, flag, expected, found));
  };
  const auto amount = [](double x) { return x >= 0 && std::isfinite(x); };
  const char* const any = "a number of at least 0";
  require(o.log_every >= 1, "log_every", "--log-every", "at least 1", o.log_every);
  require(o.steps > 0 || o.epochs >= 1, "epochs", "--epochs", "at least 1", o.epochs);
  require(o.steps >= 0, "steps", "--steps", any, o.steps);
  require(o.keep >= 0, "keep", "--keep", any, o.keep);
  require(o.early_stop >= 0, "early_stop", "--early-stop", any, o.early_stop);
  require(o.accumulate >= 1, "accumulate", "--accum", "at least 1", o.accumulate);
  require(o.checkpoint_every >= 0, "checkpoint_every", "--checkpoint-every", any, o.checkpoint_every);
  require(o.workers >= 1 && o.workers <= kMostThreads, "workers", "-j", fmt::format("1 to {}", kMostThreads),
          o.workers);
  require(o.best_metric != BestMetric::top5 || graph.classes() > 5 || !o.resume.empty(), "best_metric", "--best-metric",
          "top1 or loss where there are no more than 5 classes, since all are among the top 5 there",
          std::string(name_of(o.best_metric)));
  require(amount(o.warmup_epochs), "warmup_epochs", "--lr-warmup-epochs", any, o.warmup_epochs);
  require(amount(o.cooldown_epochs), "cooldown_epochs", "--lr-cooldown-epochs", any, o.cooldown_epochs);
  require(o.step_epochs > 0 && std::isfinite(o.step_epochs), "step_epochs", "--lr-step-size", "above 0", o.step_epochs);
  const ScheduleOptions& s = o.schedule;
  require(amount(s.base), "schedule.base", "--lr", any, s.base);
  require(amount(s.minimum), "schedule.minimum", "--lr-min", any, s.minimum);
  require(amount(s.gamma), "schedule.gamma", "--lr-gamma", any, s.gamma);
  require(amount(s.power), "schedule.power", "--lr-power", any, s.power);
  require(amount(s.warmup_factor), "schedule.warmup_factor", "--lr-warmup-decay", any, s.warmup_factor);
  require(s.kind <= ScheduleOptions::Kind::plateau, "schedule.kind", "--lr-scheduler", "a schedule",
          static_cast<int>(s.kind));
  if (o.loss.target == LossOptions::Target::dense)
    throw UsageError("train() has labels and no dense targets: run a Plan with StepInput::targets for those");
  ModelCard fits = card;
  fits.preprocessing = o.preprocessing;
  fit_card(fits, graph);
}

// A label is the place of its class among the names.
void check_classes(const std::string& checkpoint, const ModelCard& card) {
  const std::vector<std::string> was = read_card(checkpoint).class_names;
  if (was.empty() || card.class_names.empty()) return;
  if (was.size() != card.class_names.size())
    throw DataError(fmt::format("'{}' was trained on {} classes, but the data set has {}; resume with the same classes",
                                checkpoint, was.size(), card.class_names.size()));
  for (size_t i = 0; i < was.size(); ++i)
    if (const std::string is = kept(card.class_names[i]); was[i] != is)
      throw DataError(fmt::format(
          "class {} of the data set is '{}', but '{}' to '{}', where labels are the places of classes; resume with the "
          "same classes",
          i, is, was[i], checkpoint));
}

}  // namespace convolt
