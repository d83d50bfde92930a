#include "traffic/recorder.h"

#include <algorithm>
#include <utility>

namespace convolt::test {
namespace {

// Memory, and of each byte the last launch that read it and the last that wrote it.
struct Range {
  uintptr_t first = 0, end = 0;
  std::vector<uint32_t> read, written;
};

struct Recorder {
  std::vector<Range> ranges;  // in order of their addresses, none of which touch
  size_t recent = 0;          // where the last access was
  uint32_t launch = 1;
  bool touched = false;  // by this launch
  Traffic traffic;

  bool holds(size_t i, uintptr_t at) const { return i < ranges.size() && ranges[i].first <= at && at < ranges[i].end; }
  void access(const void* memory, int64_t bytes, std::vector<uint32_t> Range::*seen) {
    const auto at = reinterpret_cast<uintptr_t>(memory);
    if (!holds(recent, at)) {
      const auto behind =
          std::upper_bound(ranges.begin(), ranges.end(), at, [](uintptr_t a, const Range& r) { return a < r.end; });
      const auto found = static_cast<size_t>(behind - ranges.begin());
      if (!holds(found, at)) return;
      recent = found;
    }
    touched = true;
    uint32_t* byte = (ranges[recent].*seen).data() + (at - ranges[recent].first);
    for (int64_t i = 0; i < bytes; ++i)
      if (std::exchange(byte[i], launch) != launch) ++traffic.bytes;
  }
  void end_launch() {
    traffic.launches += touched ? 1 : 0;
    touched = false;
    ++launch;
  }
};
Recorder recorder;

}  // namespace

void watch(const std::vector<Tensor>& tensors) {
  std::vector<Range> all;
  for (const Tensor& t : tensors)
    if (const auto first = reinterpret_cast<uintptr_t>(t.data); first != 0)
      all.push_back({first, first + static_cast<uintptr_t>(t.bytes()), {}, {}});
  std::sort(all.begin(), all.end(), [](const Range& a, const Range& b) { return a.first < b.first; });
  recorder.ranges.clear();
  for (const Range& r : all)
    if (recorder.ranges.empty() || r.first > recorder.ranges.back().end)
      recorder.ranges.push_back(r);
    else
      recorder.ranges.back().end = std::max(recorder.ranges.back().end, r.end);
  for (Range& r : recorder.ranges) {
    r.read.resize(r.end - r.first);
    r.written.resize(r.end - r.first);
  }
}

Traffic take_traffic() {
  recorder.end_launch();
  return std::exchange(recorder.traffic, {});
}

}  // namespace convolt::test

// The compiler declares these nowhere.
extern "C" {

// Every call of an executor is one parallel loop, as it is one launch on a GPU. The linker leads the calls here.
void __real_GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned flags);
void __wrap_GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned flags) {
  convolt::test::recorder.end_launch();
  __real_GOMP_parallel(body, data, threads, flags);
  convolt::test::recorder.end_launch();
}

#define RECORD(kind, seen, bytes) \
  void __tsan_##kind##bytes(void* p) { convolt::test::recorder.access(p, bytes, &convolt::test::Range::seen); }
RECORD(read, read, 1)
RECORD(read, read, 2)
RECORD(read, read, 4)
RECORD(read, read, 8)
RECORD(read, read, 16)
RECORD(write, written, 1)
RECORD(write, written, 2)
RECORD(write, written, 4)
RECORD(write, written, 8)
RECORD(write, written, 16)
#undef RECORD
void __tsan_read_range(void* p, int64_t bytes) {
  convolt::test::recorder.access(p, bytes, &convolt::test::Range::read);
}
void __tsan_write_range(void* p, int64_t bytes) {
  convolt::test::recorder.access(p, bytes, &convolt::test::Range::written);
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void*, void*) {}
}
