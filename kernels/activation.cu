#include "activation.h"

#include "core/philox.h"
#include "exec/act.h"
#include "exec/reduce.h"

namespace convolt {
namespace {

template <class T, class A>
struct Forward {
  const T* x;
  T* y;
  A act;
  template <int W>
  HD void run(int64_t i) const {
    Floats<W> v = load<W>(x + i);
    act.forward(v);
    store(y + i, v);
  }
};

template <class T, class A>
struct Backward {
  const T *dy, *kept;
  T* dx;
  A act;
  template <int W>
  HD Floats<W> run(int64_t i) const {
    Floats<W> g = load<W>(dy + i);
    act.backward(load<W>(kept + i), g);
    store(dx + i, g);
    return g;
  }
};

template <class T, class A>
struct BackwardSum {
  Backward<T, A> backward;
  int channels;
  template <int W>
  HD void run(int64_t row, int c, Floats<W> (&sums)[1]) const {
    const Floats<W> g = rounded<T>(backward.template run<W>(row * channels + c));
    for_lanes<W>([&](int j) { sums[0][j] += g[j]; });
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
    for_lanes<W>([&](int j) { p[j] += q[j]; });
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
  int64_t row_elements, quads;  // quads: of a row
  Divisor by_quads;
  uint32_t layer;
  float p;
  HD void operator()(int64_t k) const {
    const int64_t row = by_quads.quotient(k), first = (k - row * quads) * 4;
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
  int64_t n;
  HD void operator()(int64_t k) const {
    const int64_t i = k * 16;
    if (i + 16 <= n) {
      *reinterpret_cast<Packet<float, 4>*>(p + i) = Packet<float, 4>{};
    } else {
      for (int64_t j = i; j < n; ++j) p[j] = 0;
    }
  }
};

}  // namespace

void activation(Stream s, const Tensor& x, const Tensor& y, Act act) {
  dispatch_float(x.dtype, "activation", [&](auto t) {
    using T = decltype(t);
    dispatch_activation(act, [&](auto a) {
      for_each_packet(s, x.elements(), Forward<T, decltype(a)>{x.as<const T>(), y.as<T>(), a});
    });
  });
}

void activation_backward(Stream s, const Tensor& dy, const Tensor& kept, const Tensor& dx, Act act) {
  dispatch_float(dy.dtype, "activation_backward", [&](auto t) {
    using T = decltype(t);
    dispatch_activation(act, [&](auto a) {
      for_each_packet(s, dy.elements(), Backward<T, decltype(a)>{dy.as<const T>(), kept.as<const T>(), dx.as<T>(), a});
    });
  });
}

void activation_backward_sum(Stream s, const Tensor& dy, const Tensor& kept, const Tensor& dx, Act act, float* scratch,
                             float* sum) {
  const int channels = static_cast<int>(dy.shape[-1]);
  const int64_t rows = dy.elements() / channels;
  dispatch_float(dy.dtype, "activation_backward_sum", [&](auto t) {
    using T = decltype(t);
    dispatch_activation(act, [&](auto a) {
      using A = decltype(a);
      reduce_channels_then<1>(s, rows, channels, scratch,
                              BackwardSum<T, A>{{dy.as<const T>(), kept.as<const T>(), dx.as<T>(), a}, channels},
                              StoreSums<1>{{sum}});
    });
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
    const int64_t row = x.elements() / x.shape[0], quads = (row + 3) / 4;
    for_each(s, x.shape[0] * quads, Dropout<T>{x.as<const T>(), y.as<T>(), input, row, quads, Divisor(quads), layer, p},
             32);
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
  for_each(s, (bytes + 15) / 16, Zero{static_cast<uint8_t*>(memory), bytes});
}

}  // namespace convolt
