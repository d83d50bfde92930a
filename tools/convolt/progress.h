// Progress on stderr: a bar on a terminal, plain lines elsewhere.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "convolt/trainer.h"
#include "count_line.h"

namespace convolt::cli {

// What held up the steps of a training, in one line: data (which part of it), or computing.
std::string data_line(const DataTimes& t);

// A line on a terminal at stderr, else nothing; clear_progress() takes it away.
void show_progress(const std::string& text);
void clear_progress();

class ProgressPrinter {
public:
  explicit ProgressPrinter(bool quiet);
  void progress(const TrainProgress& p);
  void validating(int64_t done, int64_t all);
  void epoch(const EpochSummary& s);
  // Takes away what stands on the line, for others to write there.
  void clear();

private:
  void bar(const TrainProgress& p);
  void clear_line() const;
  bool quiet_, terminal_, colour_;
  std::chrono::steady_clock::time_point last_line_;
  std::optional<CountLine> validation_;
};

}  // namespace convolt::cli
