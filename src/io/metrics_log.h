// metrics.jsonl: one JSON object a line, in the order of the training.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "io/descriptor.h"

namespace convolt {

// Appends lines to a file. Move-only; not thread-safe. Throws Error with path and reason when the file cannot be
// written.
class MetricsLog {
public:
  // Starts an empty file; what was there is gone.
  static MetricsLog create(std::string path);
  // Goes on after `step`: keeps the lines whose integer "step" is at most that, and drops the others and a torn last
  // line (one without its newline), so that what is trained again is not logged twice. The file is replaced in one go.
  // No file yet: starts one.
  static MetricsLog resume(std::string path, int64_t step);

  // Writes one line, which has reached the operating system when this returns; numbers that are not finite become null.
  // A line that does not fit on the disk is taken back.
  void append(const nlohmann::ordered_json& object);

private:
  explicit MetricsLog(std::string path, int extra_flags);
  [[noreturn]] void fail() const;  // with errno's reason

  std::string path_;
  Descriptor file_;
};

}  // namespace convolt
