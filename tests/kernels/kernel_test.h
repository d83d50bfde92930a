// What the kernel tests share: plain structs in device memory, and block kernels with their phases backwards.
#pragma once

#include <cstring>
#include <vector>

#include "activation.h"
#include "support/device.h"

namespace convolt {
// Of kernels/exec/block.h, which only .cu files may include.
extern bool phases_backwards;
}  // namespace convolt

namespace convolt::test {

// An array of trivially copyable structs in device memory.
template <class T>
class DeviceArray {
public:
  DeviceArray(Context& context, const std::vector<T>& values)
      : context_(&context), buffer_(context, static_cast<int64_t>(values.size() * sizeof(T))) {
    context.compute().copy(buffer_.data(), values.data(), buffer_.bytes());
    context.compute().synchronize();
  }
  T* get() const { return buffer_.as<T>(); }
  std::vector<T> values() const {
    std::vector<T> host(static_cast<size_t>(buffer_.bytes()) / sizeof(T));
    context_->compute().copy(host.data(), buffer_.data(), buffer_.bytes());
    context_->compute().synchronize();
    return host;
  }
  T value() const { return values().at(0); }

private:
  Context* context_;
  Buffer buffer_;
};

// While one lives, the CPU runs each phase of a block from its last thread to its first.
class PhasesBackwards {
public:
  PhasesBackwards() { phases_backwards = true; }
  ~PhasesBackwards() { phases_backwards = false; }
};

// Values of every second pixel of every second line of [N, H, W, C], with zeros for the others.
inline std::vector<double> with_zeros_between(const std::vector<double>& pixels, const Shape& shape) {
  std::vector<double> all(static_cast<size_t>(shape.elements()), 0);
  for (size_t i = 0, from = 0; i < all.size(); ++i) {
    const auto pixel = static_cast<int64_t>(i) / shape[3];
    if (pixel % shape[2] % 2 == 0 && pixel / shape[2] % shape[1] % 2 == 0) all[i] = pixels[from++];
  }
  return all;
}

// Every activation; leaky_relu with the usual slope, with one above 1, and with one that folds.
inline std::vector<Act> all_activations() {
  std::vector<Act> all{{Activation::leaky_relu, 1.5F}, {Activation::leaky_relu, -0.25F}};
  for (int i = 0; i <= static_cast<int>(Activation::tanh); ++i) all.emplace_back(static_cast<Activation>(i));
  return all;
}

// What act' may be wrong by: in f32 as much as the terms that cancel where it crosses 0; from a stored output, which
// knows it to the rounding of the dtype, more.
inline double gradient_error(DType dtype, Act act) {
  return dtype != DType::f32 && gradient_from_output(act) ? 3 * epsilon(dtype) : 5e-7;
}

inline std::vector<double> rounded(std::vector<double> values, DType dtype) {
  for (double& v : values) v = rounded(v, dtype);
  return values;
}

}  // namespace convolt::test
