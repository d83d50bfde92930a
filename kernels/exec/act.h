// The activation functions as device functions, for every kernel that ends in one. none, relu and relu6 are compiled
// into kernels of their own; all others share one kernel, which asks once for each packet.
#pragma once

#include "activation.h"
#include "exec/elementary.h"

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

// Bounds below lie where the factors are 0 or 1 already, so that an infinity does not meet a 0.

template <class F>
HD F silu(F x) {
  return at_least(x, -200.F) * fast_sigmoid(x);
}
template <class F>
HD F silu_gradient(F x) {
  const F s = fast_sigmoid(x);
  return s * (1.F + within(x, -200.F, 200.F) * (1.F - s));
}

template <class F>
HD F gelu(F x) {
  return at_least(x, -15.F) * fast_normal(within(x, -15.F, 15.F)).below;
}
template <class F>
HD F gelu_gradient(F x) {
  const F bounded = within(x, -15.F, 15.F);
  const Normal<F> n = fast_normal(bounded);
  return n.below + bounded * n.density;
}

template <class F>
HD F hardsigmoid(F x) {
  return within(x + 3.F, 0.F, 6.F) * (1.F / 6.F);
}
template <class F>
HD F hardswish(F x) {
  return at_least(x, -3.F) * hardsigmoid(x);
}
template <class F>
HD F hardswish_gradient(F x) {
  const F middle = x * (1.F / 3.F) + 0.5F;
  return choose(x <= -3.F, F(0.F), choose(x >= 3.F, F(1.F), middle));
}

// With n = e (e + 2), e = exp x: tanh(log(1 + e)) = n / (n + 2), and its derivative is 4 e (1 + e) / (n + 2)^2. From
// x = 20 on, the first is 1 and the second 0 beside it.
template <class F>
HD F mish(F x) {
  const F e = fast_exp(within(x, -200.F, 20.F)), n = e * (e + 2.F);
  return at_least(x, -200.F) * quotient(n, n + 2.F);
}
template <class F>
HD F mish_gradient(F x) {
  const F bounded = within(x, -200.F, 20.F);
  const F e = fast_exp(bounded), n = e * (e + 2.F), inverse = quotient(1.F, n + 2.F);
  return (n + bounded * (4.F * e * (1.F + e) * inverse)) * inverse;
}

// One of the activations, known when the kernel is compiled.
template <Activation A>
struct Fixed {
  static constexpr bool kIdentity = A == Activation::none;
  template <int W>
  HD void forward(Floats<W>& v) const {
    for_lanes<W>([&](int j) { v[j] = act<A>(v[j]); });
  }
  // g *= act', from what gradient_from_output(act) says was kept: y or x.
  template <int W>
  HD void backward(const Floats<W>& kept, Floats<W>& g) const {
    if constexpr (!kIdentity) for_lanes<W>([&](int j) { g[j] = act_gradient<A>(kept[j], g[j]); });
  }
  // g *= act'(x), x being computed again and not kept.
  template <int W>
  HD void backward_again(const Floats<W>& x, Floats<W>& g) const {
    backward(x, g);
  }
};

// Any activation, known when the kernel runs.
struct AnyAct {
  static constexpr bool kIdentity = false;
  Act act;

  template <int W>
  HD void forward(Floats<W>& v) const {
    const float slope = act.slope;
    switch (act.kind) {
      case Activation::leaky_relu:
        return map_lanes(v, [=](auto x) INLINED { return choose(x > 0.F, x, slope * x); });
      case Activation::silu:
        return map_lanes(v, [](auto x) INLINED { return silu(x); });
      case Activation::gelu:
        return map_lanes(v, [](auto x) INLINED { return gelu(x); });
      case Activation::hardswish:
        return map_lanes(v, [](auto x) INLINED { return hardswish(x); });
      case Activation::hardsigmoid:
        return map_lanes(v, [](auto x) INLINED { return hardsigmoid(x); });
      case Activation::mish:
        return map_lanes(v, [](auto x) INLINED { return mish(x); });
      case Activation::sigmoid:
        return map_lanes(v, [](auto x) INLINED { return fast_sigmoid(x); });
      case Activation::tanh:
        return map_lanes(v, [](auto x) INLINED { return fast_tanh(x); });
      default:  // Fixed
        return;
    }
  }

  template <int W>
  HD void backward(const Floats<W>& kept, Floats<W>& g) const {
    const float slope = act.slope;
    switch (act.kind) {
      case Activation::leaky_relu:
        return map_lanes(
            g, [=](auto dy, auto y) INLINED { return dy * choose(y > 0.F, 1.F, slope); }, kept);
      case Activation::silu:
        return map_lanes(
            g, [](auto dy, auto x) INLINED { return dy * silu_gradient(x); }, kept);
      case Activation::gelu:
        return map_lanes(
            g, [](auto dy, auto x) INLINED { return dy * gelu_gradient(x); }, kept);
      case Activation::hardswish:
        return map_lanes(
            g, [](auto dy, auto x) INLINED { return dy * hardswish_gradient(x); }, kept);
      case Activation::hardsigmoid:
        return map_lanes(
            g, [](auto dy, auto y) INLINED { return dy * choose((y > 0.F) & (y < 1.F), 1.F / 6.F, 0.F); }, kept);
      case Activation::mish:
        return map_lanes(
            g, [](auto dy, auto x) INLINED { return dy * mish_gradient(x); }, kept);
      case Activation::sigmoid:
        return map_lanes(
            g, [](auto dy, auto y) INLINED { return dy * (y * (1.F - y)); }, kept);
      case Activation::tanh:
        return map_lanes(
            g, [](auto dy, auto y) INLINED { return dy * (1.F - y * y); }, kept);
      default:  // Fixed
        return;
    }
  }
  template <int W>
  HD void backward_again(const Floats<W>& x, Floats<W>& g) const {
    Floats<W> kept = x;
    if (gradient_from_output(act)) forward(kept);
    backward(kept, g);
  }
};

// Calls f(Fixed<...>{}) or f(AnyAct{a}).
template <class F>
void dispatch_activation(Act a, F f) {
  switch (a.kind) {
    case Activation::none:
      return f(Fixed<Activation::none>{});
    case Activation::relu:
      return f(Fixed<Activation::relu>{});
    case Activation::relu6:
      return f(Fixed<Activation::relu6>{});
    default:
      return f(AnyAct{a});
  }
}

}  // namespace convolt
