// Between a parameter's layout in memory and in files.
#pragma once

#include <vector>

#include "convolt/context.h"
#include "convolt/graph.h"
#include "convolt/tensor.h"

namespace convolt {

// Host values of a device tensor that is shaped as the parameter, in file layout; both synchronise the compute queue.
std::vector<float> read_file_layout(Context& context, const Tensor& tensor, const ParamSpec& spec);
// Throws ShapeError naming the parameter and both sizes.
void write_file_layout(Context& context, const Tensor& tensor, const ParamSpec& spec, const std::vector<float>& values);

}  // namespace convolt
