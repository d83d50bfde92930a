// What the machine can do at most, measured: the bandwidth of a copy and the rate of a matrix product.
#pragma once

#include "bench/record.h"
#include "convolt/context.h"
#include "device/device.h"

namespace convolt::bench {

using Work = std::function<void(Stream)>;

// Times work on a context's compute queue, in milliseconds of the device.
class Stopwatch {
public:
  explicit Stopwatch(Context& context);
  // `before` runs first and is not timed; it may be empty.
  double time(const Work& work, const Work& before = {});
  Context& context() const { return context_; }

private:
  Context& context_;
  std::unique_ptr<DeviceTimer> timer_;
};

// Leaves nothing of what was used before in the last cache, and nothing there to be written back: reads memory of twice
// its size.
class Sweep {
public:
  explicit Sweep(Context& context);
  void operator()(Stream s) const;

private:
  Buffer memory_;
  int64_t rows_;
};

// Host memory that starts on 32 bytes, by so many threads; past_caches: with stores that pass the caches by.
void copy_memory(char* to, const char* from, int64_t bytes, int threads, bool past_caches);

// A copy between two buffers, as STREAM's (J. D. McCalpin, "Memory bandwidth and machine balance", 1995), counted as
// bytes read and bytes written. CPU: all compute threads, by memcpy or by stores that pass the caches by, whichever was
// quicker when it was made.
class Copy {
public:
  // Buffers of so many bytes.
  Copy(Stopwatch& stopwatch, const Sweep& sweep, int64_t bytes);
  void operator()(Stream s) const;
  double moved() const { return 2.0 * static_cast<double>(from_.bytes()); }
  const char* how() const;
  // From milliseconds of single copies.
  Limit limit(const std::vector<double>& times) const;

private:
  Context& context_;
  Buffer from_, to_;
  bool streams_ = false;
};

// Copies of twice the last cache.
Limit measure_copy(Stopwatch& stopwatch, const Sampling& sampling);

// The product of two large square matrices by the context's provider, the quickest of its candidates.
Limit measure_matmul(Stopwatch& stopwatch, DType dtype, bool tf32, const Sampling& sampling);

}  // namespace convolt::bench
