#include "conv/read_ahead.h"

#include "depthwise.h"
#include "exec/row_sums.h"
#include "grouped.h"

namespace convolt::test {
namespace {

// On 16 bytes, as shared memory is.
struct alignas(16) Words {
  unsigned char bytes[16];
};

// Whose memory is whose: on a GPU threads write it at the same time.
class Owners {
public:
  explicit Owners(std::vector<Words>& memory) : memory_(memory), owner_(memory.size() * sizeof(Words), -1) {}
  void begin() { std::fill(memory_.begin(), memory_.end(), kUntouched); }
  void end(int thread) {
    for (size_t i = 0; i < owner_.size(); ++i) {
      if (memory_[i / 16].bytes[i % 16] == kUntouched.bytes[0]) continue;
      if (owner_[i] != -1 && owner_[i] != thread) throw Error("two threads have one place in shared memory");
      owner_[i] = thread;
    }
  }

private:
  static constexpr Words kUntouched = {0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5,
                                       0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5, 0xa5};
  std::vector<Words>& memory_;
  std::vector<int> owner_;  // of each byte
};

template <template <class, int, int, int, int, Reads> class F, int K, int S, int W, int D, class T>
void walk(int64_t pictures, const Operands<T>& o, bool early) {
  const auto f = laid_out<F<T, K, S, W, D, Reads::ahead>>(o, W, true);
  std::vector<Words> memory(f.kMemory / sizeof(Words));
  Owners owners(memory);
  for (int64_t i = 0; i < f.layout.threads(pictures); ++i) {
    const int thread = static_cast<int>(i % kWalkers);
    const bool watched = i < kWalkers && (thread < 8 || thread >= kWalkers - 8);
    if (watched) owners.begin();
    f(i, Spot{memory.data()->bytes, thread, early});
    if (watched) owners.end(thread);
  }
}

template <class T, int K, int S, int W, int D>
void sum(const Tensor& x, const Tensor& w, const Tensor& y, const ConvWindow& window, bool early) {
  const Chunks chunks(y.shape, y.dtype);
  std::vector<float> partials(static_cast<size_t>(chunks.count * w.elements()), NAN);
  const SumChunk<T, K, S, W, D> f({x, y, window}, chunks, partials.data());
  phases_backwards = early;
  for_each_block_on_cpu<f.kThreads>(chunks.count * f.slabs, f);
  phases_backwards = false;
  join<T>(Stream{}, chunks, partials.data(), w);
}

template <class T, int K, int S, int W, int D>
void run(const ConvDesc& d, const Tensor& x, const Tensor& w, const Tensor& y, bool early) {
  const ConvGeometry& g = d.geometry;
  const ConvWindow window{K, g.stride_h, g.stride_w, g.pad};
  if (d.pass == ConvPass::wgrad) return sum<T, K, S, W, D>(x, w, y, window, early);
  std::vector<float> taps(static_cast<size_t>(w.elements()));
  const auto operands_of = [&](const Tensor& in, const Tensor& out) {
    return operands<T>(in, taps.data(), out, D, window, {});
  };
  constexpr int kLanes = D == 1 ? depthwise_lanes<T>(K) : W;
  if (d.pass == ConvPass::fprop) {
    D == 1 ? depthwise_taps({}, w, taps.data()) : grouped_taps({}, w, taps.data());
    return walk<Correlate, K, S, kLanes, D>(g.n, operands_of(x, y), early);
  }
  D == 1 ? depthwise_taps({}, w, taps.data()) : grouped_transposed_taps({}, w, taps.data());
  if constexpr (S == 1)
    walk<Correlate, K, S, kLanes, D>(g.n, reversed(operands_of(y, x)), early);
  else
    walk<Spread, K, S, kLanes, D>(g.n, operands_of(y, x), early);
}

template <class T, int S>
bool run(const ConvDesc& d, const Tensor& x, const Tensor& w, const Tensor& y, bool early) {
  const ConvGeometry& g = d.geometry;
  if (g.in_c == 4 * g.groups) return run<T, 3, S, kGroupedLanes<T, 4>, 4>(d, x, w, y, early), true;
  if (g.in_c == 8 * g.groups) return run<T, 3, S, kGroupedLanes<T, 8>, 8>(d, x, w, y, early), true;
  const auto of = [&](auto packet) {
    constexpr int W = decltype(packet)::value;
    if (g.kernel_h == 3) run<T, 3, S, W, 1>(d, x, w, y, early);
    if (g.kernel_h == 5) run<T, 5, S, W, 1>(d, x, w, y, early);
    if (g.kernel_h == 7) run<T, 7, S, W, 1>(d, x, w, y, early);
  };
  constexpr int kPacket = 16 / sizeof(T);
  if (d.pass != ConvPass::wgrad) {
    if (g.stride_h != g.stride_w || g.in_c % depthwise_lanes<T>(g.kernel_h) != 0) return false;
    of(std::integral_constant<int, kPacket>{});
  } else if (g.in_c % kPacket == 0) {
    of(std::integral_constant<int, kPacket>{});
  } else {
    of(std::integral_constant<int, 1>{});
  }
  return true;
}

}  // namespace

bool run_read_ahead(const ConvDesc& d, const Tensor& x, const Tensor& w, const Tensor& y, bool early) {
  bool made = false;
  dispatch_float(d.dtype, "a convolution that reads ahead", [&](auto t) {
    using T = decltype(t);
    made = d.geometry.stride_w == 1 ? run<T, 1>(d, x, w, y, early) : run<T, 2>(d, x, w, y, early);
  });
  return made;
}

}  // namespace convolt::test
