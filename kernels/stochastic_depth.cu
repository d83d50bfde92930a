#include "stochastic_depth.h"

#include "exec/keep_rows.h"
#include "exec/launch.h"

namespace convolt {
namespace {

template <class T>
struct KeepRows {
  const T* x;
  T* y;
  RowKeeper keeper;
  int row_elements;
  template <int W>
  HD void run(int64_t row, int c) const {
    Floats<W> v = load<W>(x + row * row_elements + c);
    keeper.apply(row, v);
    store(y + row * row_elements + c, v);
  }
};

}  // namespace

void stochastic_depth(Stream s, const Tensor& x, const Tensor& y, float p, uint32_t layer, const StepInput* input) {
  dispatch_float(x.dtype, "stochastic_depth", [&](auto t) {
    using T = decltype(t);
    const int row_elements = static_cast<int>(x.elements() / x.shape[0]);
    for_each_channel_packet(s, x.shape[0], row_elements,
                            KeepRows<T>{x.as<const T>(), y.as<T>(), {input, layer, p}, row_elements});
  });
}

}  // namespace convolt
