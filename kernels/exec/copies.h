// Copies to shared memory that run beside what a thread computes.
#pragma once

#include "exec/hd.h"

namespace convolt {

// A thread's copies from device memory to shared memory that it does not wait for (PTX: cp.async), at most kCopies of
// them in each group and kGroups groups at once. On the CPU they are made where they are waited for, or at once where
// `early`: tests that do both see a wait that is missing, and a place that is written too soon.
template <int kGroups, int kCopies>
class Copies {
public:
  Copies() = default;
#if defined(__CUDA_ARCH__)
  HD void begin(bool) {}
  // Of 16, 8 or 4 bytes, zeros where nothing exists. kFirstCache: by way of the first cache too, for what threads of a
  // block share; fewer than 16 go there always.
  template <bool kFirstCache, int kBytes = 16>
  HD void copy(void* to, const void* from, bool exists) {
    const auto place = static_cast<uint32_t>(__cvta_generic_to_shared(to));
    const int bytes = exists ? kBytes : 0;
    if constexpr (kFirstCache || kBytes < 16)
      asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(place), "l"(from), "n"(kBytes), "r"(bytes)
                   : "memory");
    else
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(place), "l"(from), "r"(bytes) : "memory");
  }
  // Ends a group.
  HD void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
  // For all groups but the last N; whoever else is to see them needs a barrier behind it.
  template <int N>
  HD void wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
  }
#else
  void begin(bool early) {
    early_ = early;
    first_ = groups_ = 0;
    count_[0] = 0;
  }
  template <bool, int kBytes = 16>
  void copy(void* to, const void* from, bool exists) {
    const Copy made{to, exists ? from : nullptr, kBytes};
    if (early_) return make(made);
    int& count = count_[groups_ % kSlots];
    if (count == kCopies) throw Error("more asynchronous copies in a group than a thread has room for");
    waiting_[groups_ % kSlots][count++] = made;
  }
  void commit() {
    if (++groups_ - first_ > kGroups) throw Error("more groups of asynchronous copies than a thread has room for");
    count_[groups_ % kSlots] = 0;
  }
  template <int N>
  void wait() {
    for (; groups_ - first_ > N; ++first_)
      for (int i = 0; i < count_[first_ % kSlots]; ++i) make(waiting_[first_ % kSlots][i]);
  }

private:
  static constexpr int kSlots = kGroups + 1;  // and the one that is being filled
  struct Copy {
    void* to;
    const void* from;  // null: zeros
    size_t bytes;
  };
  static void make(const Copy& c) {
    if (c.from != nullptr)
      std::memcpy(c.to, c.from, c.bytes);
    else
      std::memset(c.to, 0, c.bytes);
  }
  Copy waiting_[kSlots][kCopies];
  int count_[kSlots];
  int first_, groups_;
  bool early_;
#endif
};

}  // namespace convolt
