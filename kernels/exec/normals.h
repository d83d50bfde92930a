// Normally distributed numbers, and the circle.
#pragma once

#include "core/philox.h"
#include "exec/types.h"

namespace convolt {

// Of an angle in whole turns. On a GPU cosf would carry its reduction of large angles along, on the stack.
HD float cosine_of_turns(float turns) {
#if defined(__CUDA_ARCH__)
  return cospif(2.F * turns);
#else
  return cosf(6.28318530718F * turns);
#endif
}

// Of the words of one counter: G. E. P. Box and M. E. Muller, "A note on the generation of random normal deviates",
// 1958; the third by words 2 and 3.
HD Floats<3> normals(const Philox4& bits) {
  const float first = sqrtf(-2.F * logf(1.F - uniform(bits.v[0]))), turns = uniform(bits.v[1]);
  const float third = sqrtf(-2.F * logf(1.F - uniform(bits.v[2])));
  return {{first * cosine_of_turns(turns), first * cosine_of_turns(turns - 0.25F),
           third * cosine_of_turns(uniform(bits.v[3]))}};
}

}  // namespace convolt
