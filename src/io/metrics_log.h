// metrics.jsonl, one JSON object a line, and metrics.csv, the same for spreadsheets: in the order of the training.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "io/append_file.h"

namespace convolt {

// Appends lines to a file. Move-only; not thread-safe. Throws Error with path and reason when the file cannot be
// written.
class MetricsLog {
public:
  // Starts an empty file; what was there is gone.
  static MetricsLog create(std::string path);
  // Goes on after `step`: keeps the lines whose integer "step" is at most that, and drops the others and a torn last
  // line (one without its newline), so that what is trained again is not logged twice. The file is replaced in one go.
  // Of `step` itself it drops those that have the key `without`, too. No file yet: starts one.
  static MetricsLog resume(std::string path, int64_t step, const std::string& without = {});

  // Writes one line, which has reached the operating system when this returns; numbers that are not finite become null.
  // A line that does not fit on the disk is taken back.
  void append(const nlohmann::ordered_json& object);

private:
  explicit MetricsLog(AppendFile file) : file_(std::move(file)) {}

  AppendFile file_;
};

// The same as a table: a line of column names, the first of which is "step", then a row for each append(). A column
// that the object lacks, or whose number is not finite, is left empty.
class MetricsTable {
public:
  static MetricsTable create(std::string path, std::vector<std::string> columns);
  // As MetricsLog::resume; the first line becomes that of `columns`.
  static MetricsTable resume(std::string path, std::vector<std::string> columns, int64_t step);

  // Numbers and booleans (as 1 and 0).
  void append(const nlohmann::ordered_json& object);

private:
  MetricsTable(AppendFile file, std::vector<std::string> columns)
      : file_(std::move(file)), columns_(std::move(columns)) {}

  AppendFile file_;
  std::vector<std::string> columns_;
};

}  // namespace convolt
