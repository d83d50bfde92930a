#include "stochastic_depth.h"

#include "exec/keep_rows.h"
#include "exec/launch.h"

namespace convolt {
namespace {

template <class T>
struct KeepRows {
  const T* x;
  Result<T> y;
  RowKeeper keeper;
  int row_elements;

  struct Place {
    int64_t first;
    bool keep;
  };
  HD Place at(int64_t row) const { return {row * row_elements, keeper.keeps(row)}; }
  template <int W>
  HD void run(const Place& place, int c) const {
    auto v = zeros<W>();  // what is dropped is 0 even where it is not finite
    if (place.keep) {
      v = load_ahead<W>(x + place.first + c);
      for_lanes<W>([&](int j) { v[j] *= keeper.scale; });
    }
    store(y + place.first + c, v);
  }
};

}  // namespace

void stochastic_depth(Stream s, const Tensor& x, const Tensor& y, float p, uint32_t layer, const StepInput* input) {
  dispatch_float(x.dtype, "stochastic_depth", [&](auto t) {
    using T = decltype(t);
    const int row_elements = static_cast<int>(x.elements() / x.shape[0]);
    for_each_channel_packet<T>(
        s, x.shape[0], row_elements,
        KeepRows<T>{x.as<const T>(), result_of<T>(s, y, {x.data}), {input, layer, p}, row_elements});
  });
}

}  // namespace convolt
