// Our own convolutions as a GPU runs them, on the CPU: with its packets of channels, reading ahead in shared memory.
#pragma once

#include "conv/conv.h"
#include "convolt/tensor.h"

namespace convolt::test {

// Runs the pass, of which x, w and y are operands and result, in CPU memory. With `early` copies to shared memory are
// made as soon as they are asked for, else as late as may be. False where a GPU would make each pixel by itself.
bool run_read_ahead(const ConvDesc& d, const Tensor& x, const Tensor& w, const Tensor& y, bool early);

}  // namespace convolt::test
