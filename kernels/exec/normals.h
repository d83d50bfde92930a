// Normally distributed numbers.
#pragma once

#include "core/philox.h"
#include "exec/types.h"

namespace convolt {

// Of the words of one counter: G. E. P. Box and M. E. Muller, "A note on the generation of random normal deviates",
// 1958; the third by words 2 and 3.
HD Floats<3> normals(const Philox4& bits) {
  constexpr float kTurn = 6.28318530718F;
  const float first = sqrtf(-2.F * logf(1.F - uniform(bits.v[0]))), angle = kTurn * uniform(bits.v[1]);
  const float third = sqrtf(-2.F * logf(1.F - uniform(bits.v[2])));
  return {{first * cosf(angle), first * sinf(angle), third * cosf(kTurn * uniform(bits.v[3]))}};
}

}  // namespace convolt
