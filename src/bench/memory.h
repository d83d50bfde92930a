// Device memory with something in it.
#pragma once

#include <vector>

#include "convolt/context.h"
#include "convolt/dtype.h"

namespace convolt::bench {

// Elements of a floating dtype, uniform in [low, high): the speed of matrix products depends on how values vary.
Buffer filled(Context& context, DType dtype, int64_t elements, float low = -1, float high = 1);
// Random bytes.
Buffer filled_bytes(Context& context, int64_t bytes);

template <class T>
Buffer uploaded(Context& context, const std::vector<T>& values) {
  Buffer buffer(context, static_cast<int64_t>(values.size() * sizeof(T)));
  context.compute().copy(buffer.data(), values.data(), buffer.bytes());
  context.compute().synchronize();
  return buffer;
}

}  // namespace convolt::bench
