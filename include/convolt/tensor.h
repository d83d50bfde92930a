// A typed window on device memory that it does not own.
#pragma once

#include <string>

#include "convolt/dtype.h"
#include "convolt/shape.h"

namespace convolt {

// Type, extents and address.
struct Tensor {
  DType dtype = DType::f32;  // of the elements
  Shape shape;               // outermost extent first, packed
  void* data = nullptr;      // in device memory, not owned

  // Their number, their bytes, and the address as that of elements (the type is not checked).
  int64_t elements() const { return shape.elements(); }
  int64_t bytes() const { return elements() * size_of(dtype); }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

}  // namespace convolt
