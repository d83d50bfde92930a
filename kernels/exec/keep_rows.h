// Which rows of a batch stochastic depth keeps.
#pragma once

#include "core/philox.h"
#include "exec/types.h"
#include "step_state.h"

namespace convolt {

// Keeps row n whole and scaled by 1 / (1 - p), or makes it 0; with p = 0 it does nothing and reads no input. The bit is
// that which dropout draws for the first element of the row.
struct RowKeeper {
  const StepInput* input;
  uint32_t layer;
  float p, scale;  // a division on the GPU is a call, around which registers spill
  RowKeeper(const StepInput* in, uint32_t of, float dropped)
      : input(in), layer(of), p(dropped), scale(1.F / (1.F - dropped)) {}
  HD bool keeps(int64_t row) const {
    if (p == 0) return true;
    const Philox4 bits = philox(input->seed, static_cast<uint64_t>(input->step) << 32,
                                (uint64_t{static_cast<uint32_t>(RandomUse::dropout)} << 56) ^ (uint64_t{layer} << 40) ^
                                    static_cast<uint64_t>(input->first_row + row));
    return uniform(bits.v[0]) >= p;
  }
  template <int W>
  HD void apply(int64_t row, Floats<W>& v) const {
    if (p == 0) return;
    const bool keep = keeps(row);
    for_lanes<W>([&](int j) { v[j] = keep ? v[j] * scale : 0.F; });  // what is dropped is 0 even where it is not finite
  }
};

}  // namespace convolt
