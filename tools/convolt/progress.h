// Progress on stderr: a bar on a terminal, plain lines elsewhere.
#pragma once

#include <chrono>

#include "convolt/trainer.h"

namespace convolt::cli {

class ProgressPrinter {
public:
  explicit ProgressPrinter(bool quiet);
  void progress(const TrainProgress& p);
  void epoch(const EpochSummary& s);

private:
  void bar(const TrainProgress& p);
  void clear_line() const;
  bool quiet_, terminal_, colour_;
  std::chrono::steady_clock::time_point last_line_;
};

}  // namespace convolt::cli
