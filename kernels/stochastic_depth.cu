#include "stochastic_depth.h"

#include "core/philox.h"
#include "exec/launch.h"

namespace convolt {
namespace {

template <class T>
struct KeepRows {
  const T* x;
  T* y;
  const StepInput* input;
  int row_elements;
  uint32_t layer;
  float p;
  template <int W>
  HD void run(int64_t row, int c) const {
    const Philox4 bits = philox(input->seed, static_cast<uint64_t>(input->step) << 32,
                                (uint64_t{static_cast<uint32_t>(RandomUse::dropout)} << 56) ^ (uint64_t{layer} << 40) ^
                                    static_cast<uint64_t>(input->first_row + row));
    const bool keep = uniform(bits.v[0]) >= p;
    const float scale = 1.F / (1.F - p);
    Floats<W> v = load<W>(x + row * row_elements + c);
    for_lanes<W>([&](int j) { v[j] = keep ? v[j] * scale : 0.F; });  // what is dropped is 0 even where it is not finite
    store(y + row * row_elements + c, v);
  }
};

}  // namespace

void stochastic_depth(Stream s, const Tensor& x, const Tensor& y, float p, uint32_t layer, const StepInput* input) {
  dispatch_float(x.dtype, "stochastic_depth", [&](auto t) {
    using T = decltype(t);
    const int row_elements = static_cast<int>(x.elements() / x.shape[0]);
    for_each_channel_packet(s, x.shape[0], row_elements,
                            KeepRows<T>{x.as<const T>(), y.as<T>(), input, row_elements, layer, p});
  });
}

}  // namespace convolt
