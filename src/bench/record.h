// What a benchmark found: rows of timings with the limits of the machine, as a file and as a table of numbers.
#pragma once

#include <string>
#include <vector>

#include "bench/samples.h"

namespace convolt::bench {

// One way in which a thing was timed.
struct Timing {
  std::string name;     // "cold", "warm", "step"
  Summary ms;           // milliseconds
  double fraction = 0;  // of the limit that the benchmark names, by the best times of both; 0: none
  bool chosen = false;  // of several ways to do the same, the one that plans take
  bool part = false;    // of what the row does: it has no rates
};

struct Row {
  // Together they say what was timed; a row of another record with all three equal is the same thing.
  std::string name, dtype, shape;
  int64_t bytes = 0, flops = 0;  // at least read and written, multiply-adds times two; 0: not told
  double images = 0;             // that one timed run works through; 0: none
  int64_t memory = 0;            // bytes asked of the device; 0: not told
  int count = 1;                 // how often a step does it
  std::vector<Timing> timings;
};

// The most that the machine does, in bytes or FLOP per second; none where `best` is 0.
struct Limit {
  std::string how;
  double best = 0, median = 0;
};

struct Record {
  std::string version, benchmark;  // of Convolt; "kernels", "conv" ...
  std::string device, provider;    // as Context and ConvProvider describe themselves
  int threads = 0;                 // CPU compute threads
  int64_t last_cache_bytes = 0;
  Limit copy, matmul;
  std::vector<Row> rows;
};

// Rates of a row in one timing, per second; 0 where the row does not tell, or the timing is of a part. Bytes and FLOP
// by the best time, as STREAM has it: what else the machine does makes a kernel slower, never quicker. Images by the
// median.
double bytes_per_second(const Row& row, const Timing& timing);
double flops_per_second(const Row& row, const Timing& timing);
double images_per_second(const Row& row, const Timing& timing);

// The timing that plans take, of a row with at least one; the first where none is marked.
const Timing& chosen_of(const Row& row);

std::string to_json(const Record& record);
// A line for each timing of each row under a line of names (RFC 4180).
std::string to_csv(const Record& record);
// Throws DataError that names the file and what is wrong with it.
Record read_record(const std::string& path);

// A timing that two records share.
struct Change {
  std::string name, dtype, shape, timing;
  Summary before, now;
  double ratio() const { return now.median / before.median; }
};

struct Comparison {
  std::vector<Change> slower, quicker;  // the largest change first
  // Timings in both, those that the earlier record lacks, and those that it alone has.
  int compared = 0, only_now = 0, only_before = 0;
};

// Throws UsageError where the record is of another benchmark.
void check_comparable(const Record& before, const std::string& benchmark);

// A timing is slower, or quicker, where the spreads (p10 to p90) lie apart and the medians by more than 5 %: what noise
// explains is no change. Throws UsageError where the records are of two benchmarks or share no timing.
Comparison compare(const Record& before, const Record& now);

}  // namespace convolt::bench
