// What kernels took, kept from one start to the next. The file is text, one timing a line, its fields divided by tabs:
//   convolt-tuning 1 CRC32                           of all that follows, in eight hexadecimal digits
//   ENVIRONMENT DESCRIPTION KERNEL quick|full NS     nanoseconds of one run, or "wrong"
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace convolt {

struct Timing {
  static constexpr int64_t kWrong = -1;
  int64_t nanoseconds = kWrong;  // of one run; kWrong: the kernel failed, or its result was wrong
  bool full = false;             // measured by Autotune::full
  friend bool operator==(const Timing&, const Timing&) = default;
};

struct TuningKey {
  std::string environment;  // device, driver, libraries, threads
  std::string description;  // the shape and what else decides, as in KernelChoices
  friend auto operator<=>(const TuningKey&, const TuningKey&) = default;
};

// The timings of a shape, by kernel.
using Timings = std::map<std::string, Timing>;
using TuningTable = std::map<TuningKey, Timings>;

// What is in both comes from `more`, unless that was measured less thoroughly.
void merge(TuningTable& into, const TuningTable& more);

std::string format_tuning(const TuningTable& table);
// The lines of a file behind a first line that fits them.
std::string with_first_line(const std::string& lines);
// Throws FormatError, naming `path`, for anything that format_tuning() does not write.
TuningTable parse_tuning(std::string_view text, const std::string& path);
// Of a file. Throws DataError or FormatError.
TuningTable read_tuning(const std::string& path);
void write_tuning(const std::string& path, const TuningTable& table);  // throws Error

// The file that all processes of a user share. Several may read and add at once: none sees half a file, and none loses
// what another has added.
class TuningCache {
public:
  TuningCache() : TuningCache(default_path()) {}
  explicit TuningCache(std::string path) : path_(std::move(path)) {}
  // $XDG_CACHE_HOME/convolt/tuning-1.txt, or that of ~/.cache; empty where there is neither.
  static std::string default_path();
  const std::string& path() const { return path_; }

  // Nothing where there is no file. Throws DataError, or FormatError for a damaged one.
  TuningTable read() const;
  // Merges `measured` into the file, or makes a new one in place of one that cannot be read. Throws Error.
  void add(const TuningTable& measured) const;
  // Removes the file. Throws Error.
  void clear() const;

private:
  std::string path_;
};

}  // namespace convolt
