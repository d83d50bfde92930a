// Flags of the optimizer and of the learning rate.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "config.h"
#include "convolt/convolt.h"
#include "flag_set.h"

namespace convolt::cli {

struct OptimizerFlags {
  std::string kind = "sgd";
  float momentum = 0.9F, weight_decay = 1e-4F, norm_weight_decay = -1, bias_weight_decay = -1;
  bool nesterov = false;
  std::vector<double> betas;
  std::optional<double> eps, alpha;
  std::optional<float> trust, muon_momentum;
  std::optional<int> muon_iterations;
  bool muon_renormalise = false;
  std::optional<float> clip;
  float adaptive_clip = 0, layer_decay = 1;
  double ema_decay = 0;
  int accumulate = 1;
  std::vector<std::string> freeze, groups;

  void add(FlagSet& flags);
  // Throws UsageError for flags that do not go together.
  OptimizerOptions options(const FlagSet& flags) const;
  // Fills in what depends on the kind where nothing is given, and leaves out what this kind does not read.
  void resolve(const OptimizerOptions& options, Resolved& resolved) const;
};

struct ScheduleFlags {
  std::string kind = "cosine";
  double lr = 0.1, min_lr = 0, gamma = 0.1, plateau_factor = 0.1, power = 1, cycle_mult = 1;
  double rise = 0.3, div = 25, final_div = 1e4, threshold = 1e-4;
  double warmup_epochs = 0, warmup_factor = 0.01, cooldown_epochs = 0;
  std::optional<double> step_size;
  std::vector<double> milestones;
  int restarts = 1, patience = 10;
  std::string metric = "loss";

  void add(FlagSet& flags);
  // Fills in the schedule and what is counted in epochs. Throws UsageError for flags that do not go together.
  void apply_to(TrainOptions& options, const FlagSet& flags) const;
  // Leaves what this kind does not read out of the resolved flags.
  void leave_out_unread(Resolved& resolved) const;
};

// Whether a flag means something beside this value of --opt or --lr-scheduler; true for flags that belong to none.
bool is_read(const std::string& flag, const std::string& selector, const std::string& kind);

// "PATTERN:lr=0.1,wd=0,epochs=3" of --param-group; throws UsageError.
ParamGroup parse_param_group(const std::string& text);

}  // namespace convolt::cli
