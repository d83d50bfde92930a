#include "optimizer_flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "flags.h"

namespace convolt::cli {
namespace {

// A flag that only some kinds read.
struct Belongs {
  const char* flag;
  std::vector<std::string> kinds;
};

using BelongsTable = std::vector<Belongs>;

const BelongsTable kOptimizerFlags = {{"--momentum", {"sgd", "rmsprop", "lars", "muon"}},
                                      {"--nesterov", {"sgd"}},
                                      {"--betas", {"adam", "adamw", "lion", "lamb"}},
                                      {"--eps", {"adam", "adamw", "rmsprop", "lamb"}},
                                      {"--alpha", {"rmsprop"}},
                                      {"--trust-coefficient", {"lars"}},
                                      {"--muon-momentum", {"muon"}},
                                      {"--muon-iterations", {"muon"}},
                                      {"--muon-renormalize", {"muon"}}};

const BelongsTable kScheduleFlags = {{"--lr-step-size", {"step", "exponential"}},
                                     {"--lr-milestones", {"multistep"}},
                                     {"--lr-gamma", {"step", "multistep", "exponential"}},
                                     {"--lr-power", {"polynomial"}},
                                     {"--lr-restarts", {"cosine-restarts"}},
                                     {"--lr-cycle-mult", {"cosine-restarts"}},
                                     {"--lr-rise", {"one-cycle"}},
                                     {"--lr-div", {"one-cycle"}},
                                     {"--lr-final-div", {"one-cycle"}},
                                     {"--plateau-patience", {"plateau"}},
                                     {"--plateau-factor", {"plateau"}},
                                     {"--plateau-threshold", {"plateau"}},
                                     {"--plateau-metric", {"plateau"}}};

bool reads(const Belongs& entry, const std::string& kind) {
  return std::find(entry.kinds.begin(), entry.kinds.end(), kind) != entry.kinds.end();
}

void leave_out(const BelongsTable& table, const std::string& kind, Resolved& resolved) {
  for (const Belongs& entry : table)
    if (!reads(entry, kind)) resolved[entry.flag + 2] = {};
}

// Throws UsageError for a flag that is given though `kind` does not read it.
void refuse_others(const FlagSet& flags, const std::string& selector, const std::string& kind,
                   const BelongsTable& table) {
  for (const Belongs& entry : table)
    if (flags.given(entry.flag) && !reads(entry, kind))
      throw UsageError(
          fmt::format("{} is for {} {}, not for {}", entry.flag, selector, fmt::join(entry.kinds, ", "), kind));
}

float number_of(const std::string& text, const std::string& whole) {
  const std::optional<double> value = to_number(text);
  if (!value || !(*value >= 0) || !std::isfinite(static_cast<float>(*value)))
    throw UsageError("--param-group '" + whole + "': expected a number of at least 0, found '" + text + "'");
  return static_cast<float>(*value);
}

}  // namespace

bool is_read(const std::string& flag, const std::string& selector, const std::string& kind) {
  if (kind == "one-cycle" && (flag == "--lr-warmup-epochs" || flag == "--lr-cooldown-epochs")) return false;
  const BelongsTable& table = selector == "--opt" ? kOptimizerFlags : kScheduleFlags;
  return std::ranges::all_of(table, [&](const Belongs& entry) { return entry.flag != flag || reads(entry, kind); });
}

ParamGroup parse_param_group(const std::string& text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0)
    throw UsageError("--param-group '" + text + "': expected 'PATTERN:lr=0.1,wd=0,epochs=3'");
  ParamGroup group{.pattern = text.substr(0, colon)};
  std::istringstream settings(text.substr(colon + 1));
  for (std::string setting; std::getline(settings, setting, ',');) {
    const size_t equals = std::min(setting.find('='), setting.size());
    const std::string key = setting.substr(0, equals);
    const std::string value = equals < setting.size() ? setting.substr(equals + 1) : "";
    if (key == "lr")
      group.lr_scale = number_of(value, text);
    else if (key == "wd")
      group.weight_decay = number_of(value, text);
    else if (key == "epochs")
      group.epochs = static_cast<double>(number_of(value, text));
    else
      throw UsageError("--param-group '" + text + "': unknown setting '" + setting +
                       "'; expected lr=FACTOR, wd=DECAY or epochs=N");
  }
  return group;
}

void OptimizerFlags::add(FlagSet& flags) {
  flags.group("Optimizer");
  flags.option("--opt", kind, "sgd, adam, adamw, rmsprop, lars, lion, muon or lamb")
      .check(one_of({"sgd", "adam", "adamw", "rmsprop", "lars", "lion", "muon", "lamb"}));
  flags.option("--momentum", momentum, "of sgd, rmsprop and lars, and of what muon leaves to sgd")
      .check(between(0.0, 1.0));
  flags.toggle("--nesterov", nesterov, "Nesterov momentum (sgd)");
  flags.option("--betas,--opt-betas", betas, "B1,B2 of adam, adamw and lamb [0.9,0.999] and lion [0.9,0.99]")
      .delimiter(',')
      .expected(2);
  flags.option("--eps,--opt-eps", eps, "of adam, adamw and rmsprop [1e-8] and lamb [1e-6]").check(at_least(0));
  flags.option("--alpha", alpha, "smoothing of rmsprop [0.99]").check(between(0.0, 1.0));
  flags.option("--trust-coefficient", trust, "of lars [0.001]").check(above(0));
  flags
      .option(
          "--muon-momentum", muon_momentum,
          "of the weights of convolutions, which muon makes orthogonal; linear layers and vectors learn by sgd with "
          "Nesterov momentum [0.95]")
      .check(between(0.0, 1.0));
  flags.option("--muon-iterations", muon_iterations, "of Newton and Schulz in muon [3]").check(at_least(1));
  flags.toggle("--muon-renormalize", muon_renormalise,
               "muon scales the weights of a convolution to the norm sqrt(outputs) before each update");
  flags.option("--wd,--weight-decay", weight_decay, "weight decay").check(at_least(0));
  flags.option("--norm-weight-decay", norm_weight_decay, "weight decay of norms and layer scales [--wd]")
      .check(at_least(0))
      .hide_default();
  flags
      .option("--bias-weight-decay", bias_weight_decay,
              "weight decay of the biases of convolutions and linear layers [--wd]")
      .check(at_least(0))
      .hide_default();
  flags.option("--layer-decay", layer_decay, "each layer before the last learns slower by this factor, 1 for none")
      .check(between(0.0, 1.0));
  flags.option("--freeze", freeze, "do not train parameters whose name matches this regular expression; repeatable");
  flags.option("--param-group", groups,
               "'PATTERN:lr=FACTOR,wd=DECAY,epochs=N' for parameters whose name matches the regular expression; with "
               "epochs they learn for so long only, with the rates of a training of that length; repeatable");
  flags.option("--clip-grad,--clip-grad-norm", clip, "largest norm of all gradients together, 0 for any [0; lamb 1]")
      .check(at_least(0));
  flags
      .option("--agc", adaptive_clip,
              "adaptive clipping: largest norm of a gradient as a part of its weight's, as 0.01")
      .check(at_least(0));
  flags.option("--accum,--grad-accum-steps", accumulate, "batches of -b that make one update").check(at_least(1));
  flags
      .option("--ema-decay,--model-ema-decay", ema_decay,
              "validate and save an average of the weights with this decay at each update, as 0.9999; 0 for none")
      .check(between(0.0, 1.0));
}

OptimizerOptions OptimizerFlags::options(const FlagSet& flags) const {
  refuse_others(flags, "--opt", kind, kOptimizerFlags);
  OptimizerOptions o;
  o.kind = optimizer_kind_from_name(kind);
  o.momentum = momentum;
  o.nesterov = nesterov;
  o.weight_decay = weight_decay;
  o.norm_weight_decay = norm_weight_decay;
  o.bias_weight_decay = bias_weight_decay;
  if (!betas.empty()) o.betas = std::array{betas[0], betas[1]};
  o.eps = eps;
  o.alpha = alpha.value_or(o.alpha);
  o.trust = trust.value_or(o.trust);
  o.muon_momentum = muon_momentum.value_or(o.muon_momentum);
  o.muon_iterations = muon_iterations.value_or(o.muon_iterations);
  o.muon_renormalise = muon_renormalise;
  o.clip_norm = clip;
  o.clip_adaptive = adaptive_clip;
  o.layer_decay = layer_decay;
  o.ema_decay = ema_decay;
  for (const std::string& text : groups) o.groups.push_back(parse_param_group(text));
  for (const std::string& pattern : freeze) o.groups.push_back({.pattern = pattern, .frozen = true});
  return o;
}

void OptimizerFlags::resolve(const OptimizerOptions& options, Resolved& resolved) const {
  const auto [beta1, beta2] = betas_of(options);
  resolved["betas"] = {fmt::format("{}", beta1), fmt::format("{}", beta2)};
  resolved["eps"] = {fmt::format("{}", eps_of(options))};
  resolved["clip-grad"] = {fmt::format("{}", clip_norm_of(options))};
  leave_out(kOptimizerFlags, kind, resolved);
}

void ScheduleFlags::add(FlagSet& flags) {
  flags.group("Learning rate");
  flags.option("--lr", lr, "learning rate; the highest one").check(above(0));
  flags
      .option("--lr-scheduler,--sched", kind,
              "constant, step, multistep, cosine, cosine-restarts, one-cycle, polynomial, exponential or plateau; all "
              "but the last change with each step")
      .check(one_of({"constant", "step", "multistep", "cosine", "cosine-restarts", "one-cycle", "polynomial",
                     "exponential", "plateau"}));
  flags
      .option("--lr-min,--min-lr", min_lr,
              "last rate of cosine, cosine-restarts, polynomial and the cool-down; "
              "lowest of plateau")
      .check(at_least(0));
  flags
      .option("--lr-step-size,--decay-epochs", step_size,
              "epochs between the decays of step, or in which exponential falls by --lr-gamma [30; exponential 1]")
      .check(above(0));
  flags
      .option("--lr-milestones,--decay-milestones", milestones,
              "epochs of multistep's decays after the warm-up, as 30,60,90")
      .delimiter(',')
      .check(above(0));
  flags.option("--lr-gamma,--decay-rate", gamma, "factor of each decay of step, multistep and exponential")
      .check(above(0));
  flags.option("--lr-power", power, "of polynomial").check(above(0));
  flags.option("--lr-restarts", restarts, "times that cosine-restarts goes back to --lr").check(at_least(1));
  flags.option("--lr-cycle-mult", cycle_mult, "length of each cycle of cosine-restarts over the one before")
      .check(at_least(1));
  flags.option("--lr-rise", rise, "part of one-cycle in which the rate rises").check(between(0.0, 1.0));
  flags.option("--lr-div", div, "--lr over the first rate of one-cycle").check(at_least(1));
  flags.option("--lr-final-div", final_div, "the first over the last rate of one-cycle").check(at_least(1));
  flags.option("--plateau-patience,--patience-epochs", patience, "epochs without improvement that plateau lets pass")
      .check(at_least(0));
  flags.option("--plateau-factor", plateau_factor, "factor of each decay of plateau").check(between(0.0, 1.0));
  flags.option("--plateau-threshold", threshold, "what plateau takes for improvement, relative").check(at_least(0));
  flags.option("--plateau-metric", metric, "what plateau watches: loss or top1, of validation where there is one")
      .check(one_of({"loss", "top1"}));
  flags.option("--lr-warmup-epochs,--warmup-epochs", warmup_epochs, "linear warm-up").check(at_least(0));
  flags.option("--lr-warmup-decay,--lr-warmup-factor", warmup_factor, "where the warm-up starts, as a part of --lr")
      .check(between(0.0, 1.0));
  flags.option("--lr-cooldown-epochs,--cooldown-epochs", cooldown_epochs, "linear fall to --lr-min at the end")
      .check(at_least(0));
}

void ScheduleFlags::apply_to(TrainOptions& o, const FlagSet& flags) const {
  refuse_others(flags, "--lr-scheduler", kind, kScheduleFlags);
  if (kind == "one-cycle" && (warmup_epochs > 0 || cooldown_epochs > 0))
    throw UsageError(
        "--lr-scheduler one-cycle rises and falls by itself; leave out --lr-warmup-epochs and --lr-cooldown-epochs");
  if (kind == "multistep" && milestones.empty())
    throw UsageError("--lr-scheduler multistep needs --lr-milestones, as 30,60,90");
  if (!std::is_sorted(milestones.begin(), milestones.end()))
    throw UsageError(
        fmt::format("--lr-milestones are epochs in ascending order, found {}", fmt::join(milestones, ",")));
  if (min_lr > lr) throw UsageError(fmt::format("--lr-min {} is above --lr {}", min_lr, lr));
  const std::vector<std::string> falls{"cosine", "cosine-restarts", "polynomial", "plateau"};
  const bool typed = !flags.given("--config") && !flags.given("--recipe");  // which say more than a command needs
  if (typed && min_lr > 0 && cooldown_epochs == 0 && std::ranges::count(falls, kind) == 0)
    warn(fmt::format("--lr-min does nothing beside --lr-scheduler {} without --lr-cooldown-epochs", kind));
  if (typed && warmup_factor != ScheduleFlags().warmup_factor && warmup_epochs == 0)
    warn("--lr-warmup-decay does nothing without --lr-warmup-epochs");
  ScheduleOptions& s = o.schedule;
  s.kind = schedule_kind_from_name(kind);
  s.base = lr;
  s.warmup_factor = warmup_factor;
  s.gamma = kind == "plateau" ? plateau_factor : gamma;
  s.minimum = min_lr;
  s.restarts = restarts;
  s.cycle_mult = cycle_mult;
  s.power = power;
  s.rise = rise;
  s.div = div;
  s.final_div = final_div;
  s.patience = patience;
  s.threshold = threshold;
  s.of_accuracy = metric == "top1";
  o.warmup_epochs = warmup_epochs;
  o.cooldown_epochs = cooldown_epochs;
  o.step_epochs = step_size.value_or(kind == "exponential" ? 1 : 30);
  o.milestone_epochs = milestones;
}

void ScheduleFlags::leave_out_unread(Resolved& resolved) const { leave_out(kScheduleFlags, kind, resolved); }

}  // namespace convolt::cli
