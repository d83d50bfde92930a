// A typed window on device memory that it does not own.
#pragma once

#include <string>

#include "convolt/dtype.h"
#include "convolt/shape.h"

namespace convolt {

struct Tensor {
  DType dtype = DType::f32;
  Shape shape;
  void* data = nullptr;

  int64_t elements() const { return shape.elements(); }
  int64_t bytes() const { return elements() * size_of(dtype); }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

}  // namespace convolt
