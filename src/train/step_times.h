// Where the time of a training goes: shares for its log, and spans for a profile.
#pragma once

#include <optional>
#include <string>

#include "convolt/trainer.h"
#include "io/trace.h"

namespace convolt {

class StepTimes {
public:
  // `profile`: the file for the trace, empty for none. `workers`: decode threads of the loader.
  StepTimes(std::string profile, int workers);

  // For LoaderOptions; null without a profile.
  Trace* trace() { return trace_ ? &*trace_ : nullptr; }

  // Does it, as a span of the profile where there is one; its seconds.
  template <class F>
  double timed(const char* name, const F& work) {
    const auto begin = Trace::Clock::now();
    work();
    const auto end = Trace::Clock::now();
    if (steps_ != nullptr) steps_->span(name, begin, end);
    return seconds_between(begin, end);
  }
  // timed(), of a step.
  template <class F>
  void step(const F& work) {
    now_.steps += timed("step", work);
  }

  // Of the steps since the last call, and of all; `loader`: its times so far.
  DataTimes since_last(const LoaderTimes& loader);
  DataTimes of_all(const LoaderTimes& loader) const;

  // Writes the profile, if there is one. Throws Error with path and reason.
  void write_profile();

private:
  struct Spent {
    LoaderTimes loader;
    double steps = 0;
  };
  DataTimes between(const Spent& before, const Spent& after) const;

  std::string profile_;
  int workers_;
  std::optional<Trace> trace_;
  Trace::Track* steps_ = nullptr;  // of the trace
  Spent now_, last_;
};

}  // namespace convolt
