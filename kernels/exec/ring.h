// Reads of device memory that are on their way while a thread works on what it read before.
#pragma once

#include "exec/copies.h"
#include "exec/lanes.h"

namespace convolt {

// Where a thread has its place in the memory that the threads of a block share, if it needs one: of `memory`, as thread
// `thread`. On the CPU (tests) `early` is that of Copies.
struct Spot {
  unsigned char* memory;
  int thread;
  bool early = false;
};

// Steps of reads in shared memory, which a thread takes in the order in which it asked for them: kSteps - 1 are on
// their way, or wait, while it works on one. Each has kParts parts of at most kBytes (a power of two, 4 and more).
// Nobody else reads them, so that there is no barrier; the kThreads threads lie side by side, so that no two want the
// same bank at once.
//
// A thread that reads ahead in registers has no more on its way than its registers hold beside all else: of a
// convolution, whose taps and sums fill them, little.
template <int kThreads, int kSteps, int kParts, int kBytes>
class Ring {
  static constexpr int kPiece = kBytes < 16 ? kBytes : 16, kPieces = kBytes / kPiece, kLine = kThreads * kPiece;
  static constexpr int kStep = kParts * kPieces * kLine;
  static_assert(kSteps >= 2 && kBytes >= 4);

public:
  static constexpr int kAhead = kSteps - 1;       // steps that are asked for before the first is taken
  static constexpr int kMemory = kSteps * kStep;  // bytes, of all threads

  HD explicit Ring(const Spot& spot) : memory_(spot.memory + spot.thread * kPiece) { copies_.begin(spot.early); }
  // What was asked for and never taken arrives before its memory has another use.
  HD ~Ring() { copies_.template wait<0>(); }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // Asks for the first steps: each_step() asks for the parts of one.
  template <class F>
  HD void begin(F each_step) {
    unrolled<kAhead>([&](int step) {
      asked_ = step * kStep;
      each_step();
      copies_.commit();
    });
  }
  // Takes the oldest step and asks for one more, to where the one taken before was.
  template <class F>
  HD void advance(F each_step) {
    copies_.template wait<kAhead - 1>();
    asked_ = taken_;
    taken_ = taken_ == kMemory - kStep ? 0 : taken_ + kStep;
    each_step();
    copies_.commit();
  }
  // Asks for W elements as a part of a step, zeros where they do not exist.
  template <int W, class T>
  HD void ask(int part, const T* from, bool exists) {
    static_assert(W * sizeof(T) <= kBytes);
    constexpr int kSize = W * sizeof(T) < kPiece ? W * sizeof(T) : kPiece;
    unrolled<W * sizeof(T) / kSize>([&](int i) {
      copies_.template copy<true, kSize>(memory_ + asked_ + (part * kPieces + i) * kLine,
                                         reinterpret_cast<const unsigned char*>(from) + i * kSize, exists);
    });
  }
  // A part of the step taken last.
  template <class T, int W>
  HD Lanes<W> lanes(int part) const {
    const unsigned char* const at = memory_ + taken_ + part * kPieces * kLine;
#if defined(__CUDA_ARCH__)
    constexpr int kSize = W * sizeof(T) < kPiece ? W : kPiece / sizeof(T);  // elements of a piece
    Lanes<W> r;
    unrolled<W / kSize>([&](int i) {
      const Floats<kSize> piece = load<kSize>(reinterpret_cast<const T*>(at + i * kLine));
      for_lanes<kSize>([&](int j) { r.v[i * kSize + j] = piece[j]; });
    });
    return r;
#else
    T all[W];
    constexpr size_t kSize = sizeof all < kPiece ? sizeof all : kPiece;
    for (size_t i = 0; i < sizeof all / kSize; ++i)
      std::memcpy(reinterpret_cast<unsigned char*>(all) + i * kSize, at + i * kLine, kSize);
    return load_lanes<W>(all);
#endif
  }

private:
  unsigned char* const memory_;
  int taken_ = kMemory - kStep, asked_ = 0;
  [[no_unique_address]] Copies<kAhead, kParts * kPieces> copies_;
};

// As many steps as fit into the shared memory that a block has without asking for more, of kThreads threads, but not
// more than `most`, which suffice.
constexpr int ring_steps(int threads, int bytes_of_step, int most) {
  const int fit = (48 << 10) / (threads * bytes_of_step);
  return fit < most ? fit : most;
}

}  // namespace convolt
