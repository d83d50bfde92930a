// Learning-rate schedules, a pure function of the step, but for plateau's small state.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace convolt {

// Which schedule, and its numbers.
struct ScheduleOptions {
  // The formulas are at learning_rate().
  enum class Kind : uint8_t {
    constant,
    step,
    multistep,
    cosine,
    cosine_restarts,
    one_cycle,
    polynomial,
    exponential,
    plateau
  };
  Kind kind = Kind::cosine;         // the formula
  double base = 0.1;                // after warm-up; one_cycle: the highest
  int64_t total_steps = 1;          // of the training
  int64_t warmup_steps = 0;         // linear from base * warmup_factor
  double warmup_factor = 0.01;      // of base, at the first step of the warm-up
  int64_t cooldown_steps = 0;       // at the end, linear from what the schedule has come to, to `minimum`
  int64_t step_size = 1;            // step: steps between decays; exponential: steps in which the rate falls by gamma
  std::vector<int64_t> milestones;  // multistep: the steps of the decays, ascending
  double gamma = 0.1;               // step, multistep, exponential: factor of each decay; plateau likewise
  double minimum = 0;               // cosine, cosine_restarts, polynomial: the last value; plateau: the lowest
  int restarts = 1;                 // cosine_restarts: times that the rate goes back to base
  double cycle_mult = 1;            // cosine_restarts: length of each cycle over the one before
  double power = 1;                 // polynomial
  // one_cycle: the part of the steps that rise; base over the first value; the first value over the last.
  double rise = 0.3, div = 25, final_div = 1e4;
  int patience = 10;         // plateau: epochs without improvement that are let pass
  double threshold = 1e-4;   // plateau: what counts as improvement, relative
  bool of_accuracy = false;  // plateau: watches the top-1, not the loss
};

// What plateau remembers between epochs.
struct PlateauState {
  std::optional<double> best;  // the best value so far
  int64_t bad_epochs = 0;      // since then
  double scale = 1;            // of the rate
};

// "constant", "step", "multistep", "cosine", "cosine-restarts", "one-cycle", "polynomial", "exponential", "plateau".
std::string_view name_of(ScheduleOptions::Kind kind);
// Throws UsageError that lists them.
ScheduleOptions::Kind schedule_kind_from_name(std::string_view name);

// The rate of step `step` (from 0). With s the steps since the end of the warm-up, T those up to the cool-down and
// t = s / T:
//   step            base gamma^floor(s / step_size)
//   multistep       base gamma^(milestones <= s)
//   cosine          minimum + (base - minimum) (1 + cos(pi t)) / 2    (I. Loshchilov, F. Hutter, arXiv 1608.03983)
//   cosine_restarts the same in each of restarts + 1 cycles, of lengths 1 : cycle_mult : cycle_mult^2 ...
//   one_cycle       torch.optim.lr_scheduler.OneCycleLR, cosine annealing, without its momentum; it takes no warm-up.
//                   Where less than one step would rise, the first has the highest rate
//   polynomial      minimum + (base - minimum) (1 - t)^power
//   exponential     base gamma^(s / step_size)
//   plateau         max(base scale, minimum)
double learning_rate(const ScheduleOptions& options, int64_t step, const PlateauState& plateau = {});

// plateau: takes in the loss or accuracy of an epoch. After more than `patience` epochs without a value better than the
// best one by `threshold` of it, the rate falls by gamma (torch.optim.lr_scheduler.ReduceLROnPlateau). NaN is never
// better.
void observe(const ScheduleOptions& options, PlateauState& state, double metric);

}  // namespace convolt
