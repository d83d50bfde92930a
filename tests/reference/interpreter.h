// A graph evaluated layer by layer in double, forwards and backwards, written from the meaning of the layers
// (convolt/layers.h) and not from the op list: the truth that whole plans are held against. Needs no device.
#pragma once

#include <optional>
#include <vector>

#include "convolt/dtype.h"
#include "convolt/graph.h"

namespace convolt::reference {

using Values = std::vector<double>;

struct NetworkInput {
  int batch = 1, height = 0, width = 0;  // 0: the graph's
  Values images;                         // [N, H, W, C]
  std::vector<int32_t> labels;
  Values weights;  // of the rows
  uint64_t seed = 0;
  int64_t step = 0, first_row = 0;
};

struct InterpreterOptions {
  bool training = false;
  double smoothing = 0;
  // Every activation, weight of a convolution or linear layer, gradient of either: rounded to it, as a plan of that
  // dtype stores them.
  std::optional<DType> stored;
  // A batch norm, the addition of a residual and an activation in one sweep: what lies between them is not stored.
  bool fused = false;
  double loss_scale = 1;  // gradients are rounded this many times larger; results are given without it
};

struct NetworkResult {
  Values logits;                  // [N, K]
  double loss = 0;                // the weighted mean
  double top1 = 0, top5 = 0;      // weighted counts
  std::vector<Values> gradients;  // of trainable parameters, file layout; training only
  std::vector<Values> params;     // as given, with the running statistics after a training step
};

// params: one for each of graph.params(), file layout.
NetworkResult interpret(const Graph& graph, const std::vector<Values>& params, const NetworkInput& input,
                        const InterpreterOptions& options);

}  // namespace convolt::reference
