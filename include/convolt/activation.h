// The activation functions, by name.
#pragma once

#include <cstdint>
#include <string_view>

namespace convolt {

// Formulas as torch.nn.functional's; gelu is the exact one, by erf.
enum class Activation : uint8_t {
  none,
  relu,
  relu6,
  leaky_relu,   // x > 0 ? x : slope x
  silu,         // x sigmoid(x)
  gelu,         // x (1 + erf(x / sqrt 2)) / 2
  hardswish,    // x relu6(x + 3) / 6
  hardsigmoid,  // relu6(x + 3) / 6
  mish,         // x tanh(log(1 + exp x))
  sigmoid,
  tanh,
};

// The enumerator's name: "leaky_relu".
std::string_view name_of(Activation a);

}  // namespace convolt
