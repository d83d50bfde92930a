#include "convolt/schedule.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <string>
#include <utility>

#include "convolt/error.h"

namespace convolt {
namespace {

using Kind = ScheduleOptions::Kind;
constexpr std::array<std::pair<Kind, std::string_view>, 9> kNames{{{Kind::constant, "constant"},
                                                                   {Kind::step, "step"},
                                                                   {Kind::multistep, "multistep"},
                                                                   {Kind::cosine, "cosine"},
                                                                   {Kind::cosine_restarts, "cosine-restarts"},
                                                                   {Kind::one_cycle, "one-cycle"},
                                                                   {Kind::polynomial, "polynomial"},
                                                                   {Kind::exponential, "exponential"},
                                                                   {Kind::plateau, "plateau"}}};

// From `from` at t = 0 to `to` at t = 1, and no further.
double cosine(double from, double to, double t) {
  return to + (from - to) * (1 + std::cos(std::numbers::pi * std::min(t, 1.0))) / 2;
}

double cosine_restarts(const ScheduleOptions& o, double t) {
  double cycles = 0;
  for (int i = 0; i <= o.restarts; ++i) cycles += std::pow(o.cycle_mult, i);
  double length = 1 / cycles, start = 0;
  for (int i = 0; i < o.restarts && t >= start + length * (1 - 1e-12); ++i) {
    start += length;
    length *= o.cycle_mult;
  }
  return cosine(o.base, o.minimum, std::max(0.0, t - start) / length);
}

double one_cycle(const ScheduleOptions& o, double step, double steps) {
  const double top = std::max(0.0, o.rise * steps - 1), first = o.base / o.div;
  if (step <= top) return top > 0 ? cosine(first, o.base, step / top) : o.base;
  return cosine(o.base, first / o.final_div, (step - top) / (steps - 1 - top));
}

// `since` steps after the warm-up, of a schedule of `steps`.
double main_rate(const ScheduleOptions& o, int64_t since, int64_t steps, const PlateauState& plateau) {
  const auto s = static_cast<double>(since), all = static_cast<double>(std::max<int64_t>(1, steps));
  const auto size = static_cast<double>(std::max<int64_t>(1, o.step_size));
  switch (o.kind) {
    case Kind::constant:
      return o.base;
    case Kind::step:
      return o.base * std::pow(o.gamma, std::floor(s / size));
    case Kind::multistep: {
      const auto passed = std::upper_bound(o.milestones.begin(), o.milestones.end(), since) - o.milestones.begin();
      return o.base * std::pow(o.gamma, static_cast<double>(passed));
    }
    case Kind::cosine:
      return cosine(o.base, o.minimum, s / all);
    case Kind::cosine_restarts:
      return cosine_restarts(o, s / all);
    case Kind::one_cycle:
      return one_cycle(o, s, all);
    case Kind::polynomial:
      return o.minimum + (o.base - o.minimum) * std::pow(std::max(0.0, 1 - s / all), o.power);
    case Kind::exponential:
      return o.base * std::pow(o.gamma, s / size);
    case Kind::plateau:
      return std::max(o.base * plateau.scale, o.minimum);
  }
  return o.base;
}

}  // namespace

std::string_view name_of(Kind kind) { return kNames[static_cast<size_t>(kind)].second; }

Kind schedule_kind_from_name(std::string_view name) {
  for (const auto& [kind, known] : kNames)
    if (name == known) return kind;
  throw UsageError("unknown schedule '" + std::string(name) +
                   "': expected constant, step, multistep, cosine, cosine-restarts, one-cycle, polynomial, exponential "
                   "or plateau");
}

double learning_rate(const ScheduleOptions& o, int64_t step, const PlateauState& plateau) {
  if (step < o.warmup_steps) {
    const double t = static_cast<double>(step) / static_cast<double>(o.warmup_steps);
    return o.base * (o.warmup_factor + (1 - o.warmup_factor) * t);
  }
  const int64_t end = o.total_steps - o.cooldown_steps, steps = end - o.warmup_steps;
  if (o.cooldown_steps == 0 || step < end) return main_rate(o, step - o.warmup_steps, steps, plateau);
  const double from = main_rate(o, steps, steps, plateau);
  const double t = std::min(1.0, static_cast<double>(step - end) / static_cast<double>(o.cooldown_steps));
  return from + (o.minimum - from) * t;
}

void observe(const ScheduleOptions& o, PlateauState& state, double metric) {
  const bool better =
      !std::isnan(metric) && (!state.best || (o.of_accuracy ? metric > *state.best * (1 + o.threshold)
                                                            : metric < *state.best * (1 - o.threshold)));
  if (better) {
    state.best = metric;
    state.bad_epochs = 0;
    return;
  }
  if (++state.bad_epochs <= o.patience) return;
  state.bad_epochs = 0;
  state.scale *= o.gamma;
}

}  // namespace convolt
