#include "activation.h"

#include "core/philox.h"
#include "exec/launch.h"

namespace convolt {
namespace {

template <Activation A>
HD float act(float x) {
  if constexpr (A == Activation::relu) return x > 0 || x != x ? x : 0.F;
  if constexpr (A == Activation::relu6) return x != x ? x : fminf(fmaxf(x, 0.F), 6.F);
  return x;
}
template <Activation A>
HD float act_gradient(float y, float dy) {
  if constexpr (A == Activation::relu) return y > 0 ? dy : 0.F;
  if constexpr (A == Activation::relu6) return y > 0 && y < 6.F ? dy : 0.F;
  return dy;
}

template <class T, Activation A>
struct Forward {
  const T* x;
  T* y;
  template <int W>
  HD void run(int64_t i) const {
    Floats<W> v = load<W>(x + i);
    for (int j = 0; j < W; ++j) v[j] = act<A>(v[j]);
    store(y + i, v);
  }
};

template <class T, Activation A>
struct Backward {
  const T *dy, *y;
  T* dx;
  template <int W>
  HD void run(int64_t i) const {
    const Floats<W> g = load<W>(dy + i), o = load<W>(y + i);
    Floats<W> r;
    for (int j = 0; j < W; ++j) r[j] = act_gradient<A>(o[j], g[j]);
    store(dx + i, r);
  }
};

template <class T>
struct Add {
  const T *a, *b;
  T* y;
  template <int W>
  HD void run(int64_t i) const {
    Floats<W> p = load<W>(a + i);
    const Floats<W> q = load<W>(b + i);
    for (int j = 0; j < W; ++j) p[j] += q[j];
    store(y + i, p);
  }
};

template <class A, class B>
struct Cast {
  const A* x;
  B* y;
  template <int W>
  HD void run(int64_t i) const {
    store(y + i, load<W>(x + i));
  }
};

template <class T>
struct Load {
  const StepInput* input;
  T* y;
  template <int W>
  HD void run(int64_t i) const {
    store(y + i, load<W>(input->images + i));
  }
};

// One Philox call gives the bits of four neighbouring elements of a row.
template <class T>
struct Dropout {
  const T* x;
  T* y;
  const StepInput* input;
  int64_t row_elements;
  uint32_t layer;
  float p;
  HD void operator()(int64_t k) const {
    const int64_t quads = (row_elements + 3) / 4, row = k / quads, first = (k - row * quads) * 4;
    const Philox4 bits =
        philox(input->seed, (static_cast<uint64_t>(input->step) << 32) | static_cast<uint64_t>(first / 4),
               (uint64_t{static_cast<uint32_t>(RandomUse::dropout)} << 56) ^ (uint64_t{layer} << 40) ^
                   static_cast<uint64_t>(input->first_row + row));
    const float scale = 1.F / (1.F - p);
    for (int j = 0; j < 4 && first + j < row_elements; ++j) {
      const int64_t i = row * row_elements + first + j;
      y[i] = T(uniform(bits.v[j]) < p ? 0.F : static_cast<float>(x[i]) * scale);
    }
  }
};

struct Zero {
  uint8_t* p;
  template <int W>
  HD void run(int64_t i) const {
    for (int j = 0; j < W; ++j) p[i + j] = 0;
  }
};

}  // namespace

void activation(Stream s, const Tensor& x, const Tensor& y, Activation a) {
  dispatch_float(x.dtype, "activation", [&](auto t) {
    using T = decltype(t);
    if (a == Activation::relu)
      return for_each_packet(s, x.elements(), Forward<T, Activation::relu>{x.as<const T>(), y.as<T>()});
    if (a == Activation::relu6)
      return for_each_packet(s, x.elements(), Forward<T, Activation::relu6>{x.as<const T>(), y.as<T>()});
    for_each_packet(s, x.elements(), Forward<T, Activation::none>{x.as<const T>(), y.as<T>()});
  });
}

void activation_backward(Stream s, const Tensor& dy, const Tensor& y, const Tensor& dx, Activation a) {
  dispatch_float(dy.dtype, "activation_backward", [&](auto t) {
    using T = decltype(t);
    const auto n = dy.elements();
    if (a == Activation::relu)
      return for_each_packet(s, n, Backward<T, Activation::relu>{dy.as<const T>(), y.as<const T>(), dx.as<T>()});
    if (a == Activation::relu6)
      return for_each_packet(s, n, Backward<T, Activation::relu6>{dy.as<const T>(), y.as<const T>(), dx.as<T>()});
    for_each_packet(s, n, Backward<T, Activation::none>{dy.as<const T>(), y.as<const T>(), dx.as<T>()});
  });
}

void add(Stream s, const Tensor& a, const Tensor& b, const Tensor& y) {
  dispatch_float(a.dtype, "add", [&](auto t) {
    using T = decltype(t);
    for_each_packet(s, a.elements(), Add<T>{a.as<const T>(), b.as<const T>(), y.as<T>()});
  });
}

void dropout(Stream s, const Tensor& x, const Tensor& y, float p, uint32_t layer, const StepInput* input) {
  dispatch_float(x.dtype, "dropout", [&](auto t) {
    using T = decltype(t);
    const int64_t row = x.elements() / x.shape[0];
    for_each(s, x.shape[0] * ((row + 3) / 4), Dropout<T>{x.as<const T>(), y.as<T>(), input, row, layer, p});
  });
}

void cast(Stream s, const Tensor& x, const Tensor& y) {
  dispatch_float(x.dtype, "cast", [&](auto a) {
    using A = decltype(a);
    dispatch_float(y.dtype, "cast", [&](auto b) {
      using B = decltype(b);
      for_each_packet(s, x.elements(), Cast<A, B>{x.as<const A>(), y.as<B>()});
    });
  });
}

void load_images(Stream s, const StepInput* input, const Tensor& y) {
  dispatch_float(y.dtype, "load_images", [&](auto t) {
    using T = decltype(t);
    for_each_packet(s, y.elements(), Load<T>{input, y.as<T>()});
  });
}

void fill_zero(Stream s, void* memory, int64_t bytes) {
  for_each_packet(s, bytes, Zero{static_cast<uint8_t*>(memory)});
}

}  // namespace convolt
