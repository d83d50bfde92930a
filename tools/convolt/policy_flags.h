// Flags of augmentation policies, and of what has a chance of its own: --auto-augment, --solarize ..
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "config.h"
#include "convolt/augment.h"
#include "flag_set.h"

namespace convolt::cli {

struct PolicyFlags {
  std::string policy = "none";
  std::optional<float> magnitude;
  std::optional<int> operations;
  std::optional<std::string> erase_mode;
  std::optional<float> erase_value;
  // A probability and amounts, as AugmentOptions has them.
  std::vector<float> perspective, elastic, invert, posterize, solarize, autocontrast, equalize, sharpness, blur, noise,
      jpeg;
  std::vector<float> erase_scale, erase_ratio;

  void add(FlagSet& flags);
  // Throws UsageError for a policy that is not known, or a number of values that no flag takes.
  void apply_to(AugmentOptions& options) const;
};
// The flags that give what the options have of these.
void resolve_policy(const AugmentOptions& options, Resolved& resolved);
// "policy rand-m9-n2, solarize 0.2", or nothing.
std::vector<std::string> describe_policy(const AugmentOptions& options);

}  // namespace convolt::cli
