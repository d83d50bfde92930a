// The tables that the optimizer's kernels walk, and where they lie.
#pragma once

#include <vector>

#include "graph/program.h"
#include "muon.h"

namespace convolt {

// Of the update op and the accumulating op before it; pointers are filled in once memory is laid out.
struct OptimizerTables {
  std::vector<OptimizerTensor> tensors;  // the attributes' params, then averaged
  std::vector<OptimizerPiece> tiles, pieces;
  MatrixTables matrices;  // muon's
};

OptimizerTables optimizer_tables(const OptimizerAttrs& attrs);

}  // namespace convolt
