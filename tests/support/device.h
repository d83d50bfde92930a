// Tensors for tests: filled from doubles, read back as doubles, on any device.
#pragma once

#include <vector>

#include "convolt/context.h"
#include "convolt/tensor.h"

namespace convolt::test {

// Device memory with a guard of 256 bytes on both sides; check_guards() fails the test when a kernel wrote there.
class DeviceTensor {
public:
  DeviceTensor(Context& context, DType dtype, Shape shape);
  // Values are rounded to the dtype.
  DeviceTensor(Context& context, DType dtype, Shape shape, const std::vector<double>& values);
  const Tensor& tensor() const { return tensor_; }
  operator const Tensor&() const { return tensor_; }
  template <class T>
  T* as() const {
    return tensor_.as<T>();
  }
  void set(const std::vector<double>& values);
  // Synchronises the compute queue first.
  std::vector<double> values() const;
  void check_guards() const;

private:
  Context* context_;
  Buffer buffer_;
  Tensor tensor_;
};

// Runs kernels on the context's compute queue and waits: run(ctx, [&](Stream s) { add(s, a, b, y); }).
void run(Context& context, const std::function<void(Stream)>& work);

// What `value` becomes when stored as `dtype`.
double rounded(double value, DType dtype);
// A fixed sequence in [-1, 1], the same for the same seed.
std::vector<double> random_values(int64_t n, uint64_t seed, double low = -1, double high = 1);
// The error that one rounding of a value near 1 makes: 2^-24, 2^-8, 2^-11.
double epsilon(DType dtype);

// One context for each device, shared by all tests of the program.
Context& context_of(Device device);

// EXPECTs |found - expected| <= absolute + relative * |expected| element by element; names the first worst element.
void expect_near(const std::vector<double>& found, const std::vector<double>& expected, double absolute,
                 double relative, const std::string& what);

}  // namespace convolt::test
