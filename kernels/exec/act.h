// The activation functions as device functions, for every kernel that ends in one.
#pragma once

#include "activation.h"
#include "exec/types.h"

namespace convolt {

// Written so that NaN stays NaN and that the loops around it vectorise.
template <Activation A>
HD float act(float x) {
  if constexpr (A == Activation::none) return x;
  const float positive = x <= 0 ? 0.F : x;
  if constexpr (A == Activation::relu6) return positive >= 6.F ? 6.F : positive;
  return positive;
}

// dy * act'(x), from y = act(x) or from x itself: both kinks have gradient 0, as in PyTorch.
template <Activation A>
HD float act_gradient(float y, float dy) {
  if constexpr (A == Activation::none) return dy;
  if constexpr (A == Activation::relu6) return (y > 0) & (y < 6.F) ? dy : 0.F;
  return y > 0 ? dy : 0.F;
}

// Calls f(std::integral_constant<Activation, a>{}).
template <class F>
void dispatch_activation(Activation a, F f) {
  if (a == Activation::relu) return f(std::integral_constant<Activation, Activation::relu>{});
  if (a == Activation::relu6) return f(std::integral_constant<Activation, Activation::relu6>{});
  return f(std::integral_constant<Activation, Activation::none>{});
}

}  // namespace convolt
