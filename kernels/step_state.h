// What a step reads and writes besides tensors.
#pragma once

#include "convolt/step.h"

namespace convolt {

// Sums over all rows since the start, weighted by the rows' weights.
struct Meters {
  double loss = 0;
  double weight = 0;
  double top1 = 0;
  double top5 = 0;
};

}  // namespace convolt
