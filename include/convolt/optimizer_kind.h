// The update formulas that Convolt knows; optimizer.h says what each computes. And what it does with a bad step.
#pragma once

#include <cstdint>
#include <string_view>

namespace convolt {

// By the names of torch.optim and of the papers.
enum class OptimizerKind : uint8_t { sgd, adam, adamw, rmsprop, lars, lion, muon, lamb };

// "sgd", "adam", "adamw", "rmsprop", "lars", "lion", "muon", "lamb".
std::string_view name_of(OptimizerKind kind);
// Throws UsageError that lists them.
OptimizerKind optimizer_kind_from_name(std::string_view name);

// What happens after a step whose loss is not finite. stop: that step and all later ones write nothing. skip: that step
// writes nothing, and counts for no meter; gradients that are not finite make a step bad too. halve_rate: the same, and
// the learning rate is half of what it was from then on.
enum class BadStepPolicy : uint8_t { stop, skip, halve_rate };

}  // namespace convolt
