// Runs a kernel of a provider on tensors with guards, and compares its sums with those of the double references.
#pragma once

#include <algorithm>
#include <cmath>
#include <optional>

#include "conv/conv.h"
#include "support/device.h"

namespace convolt::test {

using Values = std::vector<double>;

inline Values absolute(Values v) {
  for (double& x : v) x = std::fabs(x);
  return v;
}

inline Values random_of(const Shape& shape, uint64_t seed, DType dtype) {
  Values v = random_values(shape.elements(), seed);
  for (double& x : v) x = rounded(x, dtype);
  return v;
}

inline std::string name_of_pass(ConvPass pass) {
  return pass == ConvPass::fprop ? "fprop" : pass == ConvPass::dgrad ? "dgrad" : "wgrad";
}

// Memory of the kernel's own, with guards.
struct Bytes {
  std::optional<DeviceTensor> memory;
  Bytes(Context& context, int64_t bytes) {
    if (bytes > 0) memory.emplace(context, DType::u8, Shape{bytes});
  }
  void* data() const { return memory ? memory->tensor().data : nullptr; }
  void check_guards() const {
    if (memory) memory->check_guards();
  }
};

// Packs what the kernel wants packed, runs it, and unpacks what it leaves packed. x, w, y in the dtype.
inline void run_kernel(Context& context, const ConvKernel& kernel, ConvPass pass, const DeviceTensor& x,
                       const DeviceTensor& w, const DeviceTensor& y, const float* bias,
                       const void* linear_bias = nullptr) {
  const Bytes packed(context, kernel.packed_bytes()), workspace(context, kernel.workspace_bytes());
  ConvArgs args{x.tensor().data, w.tensor().data, y.tensor().data, bias, workspace.data()};
  args.linear_bias = linear_bias;
  if (packed.memory) args.w = packed.data();
  run(context, [&](Stream s) {
    if (packed.memory && pass != ConvPass::wgrad) kernel.pack(s, w.tensor().data, packed.data());
    kernel.run(s, args);
    if (packed.memory && pass == ConvPass::wgrad) kernel.unpack(s, packed.data(), w.tensor().data);
  });
  packed.check_guards();
  workspace.check_guards();
  for (const DeviceTensor* t : {&x, &w, &y}) t->check_guards();
}

// The result is rounded once; accumulation in float costs a few units of the sum of the products' sizes.
inline void expect_sums(const DeviceTensor& found, DType dtype, const Values& expected, const Values& sizes,
                        const std::string& what) {
  const double size = *std::max_element(sizes.begin(), sizes.end());
  expect_near(found.values(), expected, 16 * epsilon(DType::f32) * size, 1.01 * epsilon(dtype), what);
}

}  // namespace convolt::test
