#include "activation.h"

#include "core/philox.h"
#include "exec/act.h"
#include "exec/philox_quads.h"
#include "exec/reduce.h"

namespace convolt {
namespace {

template <class T, class A>
struct Forward {
  const T* x;
  Result<T> y;
  A act;
  template <int W>
  HD void run(int64_t i) const {
    Floats<W> v = load_ahead<W>(x + i);
    act.forward(v);
    store(y + i, v);
  }
};

template <class T, class A>
struct Backward {
  const T *dy, *kept;
  Result<T> dx;
  A act;
  template <int W>
  HD void run(int64_t i) const {
    Floats<W> g = load_ahead<W>(dy + i);
    act.backward(load_ahead<W>(kept + i), g);
    store(dx + i, g);
  }
};

// Of dy and what the activation kept.
template <class T, class A>
struct BackwardSum : RowsOfTwo<T> {
  using Stores = void;
  Result<T> dx;
  A act;
  template <int W>
  HD void add(int64_t row, int c, const typename RowsOfTwo<T>::template Operands<W>& o, Nothing,
              Floats<W> (&sums)[1]) const {
    Floats<W> g = o.a.of_existing();
    act.backward(o.b.of_existing(), g);
    store(dx + (row * this->channels + c), g);
    g = rounded<T>(g);
    for_lanes<W>([&](int j) { sums[0][j] += g[j]; });
  }
};

// By bytes of the mask.
struct MaskPlace {
  int64_t features, row_bytes;
  Divisor by_row;
  struct Span {
    int64_t first;
    int count;
  };
  HD Span operator()(int64_t i) const {
    const int64_t row = by_row.quotient(i), before = (i - row * row_bytes) * 8, left = features - before;
    return {row * features + before, static_cast<int>(left < 0 ? 0 : left < 8 ? left : 8)};
  }
};

template <class T>
struct ReluMask {
  const T* y;
  uint8_t* mask;
  MaskPlace place;
  HD void operator()(int64_t i) const {
    const auto [first, count] = place(i);
    unsigned bits = 0;
    for (int j = 0; j < count; ++j) bits |= static_cast<unsigned>(static_cast<float>(y[first + j]) > 0) << j;
    mask[i] = static_cast<uint8_t>(bits);
  }
};

template <class T>
struct ReluMaskBackward {
  const uint8_t* mask;
  T* dx;
  MaskPlace place;
  HD void operator()(int64_t i) const {
    const auto [first, count] = place(i);
    const unsigned bits = mask[i];
    for (int j = 0; j < count; ++j)
      dx[first + j] = T(choose((bits >> j & 1U) != 0, static_cast<float>(dx[first + j]), 0.F));
  }
};

MaskPlace place_in_mask(const Tensor& t) {
  const int64_t bytes = mask_row_bytes(t.shape[-1]);
  return {t.shape[-1], bytes, Divisor(bytes)};
}
int64_t mask_bytes(const Tensor& t) { return t.elements() / t.shape[-1] * mask_row_bytes(t.shape[-1]); }

template <class T>
struct Add {
  const T *a, *b;
  Result<T> y;
  template <int W>
  HD void run(int64_t i) const {
    Floats<W> p = load_ahead<W>(a + i);
    const Floats<W> q = load_ahead<W>(b + i);
    for_lanes<W>([&](int j) { p[j] += q[j]; });
    store(y + i, p);
  }
};

template <class A, class B>
struct Cast {
  const A* x;
  Result<B> y;
  template <int W>
  HD void run(int64_t i) const {
    store(y + i, load_ahead<W>(x + i));
  }
};

template <class T>
struct Load {
  const StepInput* input;
  Result<T> y;
  template <int W>
  HD void run(int64_t i) const {
    store(y + i, load_ahead<W>(input->images + i));
  }
};

// One Philox call gives the bits of four neighbouring elements of a row. A row is made in parts of kPart elements: on
// the GPU by threads that store 16 bytes each, on the CPU by eight calls at once.
template <class T, int kPart>
struct Dropout {
  const T* x;
  Result<T> y;
  const StepInput* input;
  int64_t row_elements, parts;  // parts: of a row
  Divisor by_parts;
  uint32_t layer;
  float p, scale;

  HD void operator()(int64_t k) const {
    const int64_t row = by_parts.quotient(k), first = (k - row * parts) * kPart;
    const uint64_t low = (static_cast<uint64_t>(input->step) << 32) | static_cast<uint64_t>(first / 4);
    const uint64_t high = (uint64_t{static_cast<uint32_t>(RandomUse::dropout)} << 56) ^ (uint64_t{layer} << 40) ^
                          static_cast<uint64_t>(input->first_row + row);
    const int64_t i = row * row_elements + first, left = row_elements - first;
#if defined(__CUDA_ARCH__)
    if (row_elements % kPart == 0) return make_packet(i, low, high);
#endif
    int q = 0;
#if !defined(__CUDA_ARCH__)
    if constexpr (kPart >= 32) {
      const PhiloxKeys keys(input->seed);
      for (; q < kPart && q + 32 <= left; q += 32) make_32(keys, i + q, low + static_cast<uint64_t>(q / 4), high);
    }
#endif
    for (; q < kPart && q < left; q += 4) {
      const Philox4 bits = philox(input->seed, low + static_cast<uint64_t>(q / 4), high);
      for (int j = q; j < q + 4 && j < left; ++j) y.data[i + j] = T(drop(bits.v[j - q], static_cast<float>(x[i + j])));
    }
  }
  HD float drop(uint32_t bits, float v) const { return choose(uniform(bits) < p, 0.F, v * scale); }

#if defined(__CUDA_ARCH__)
  HD void make_packet(int64_t i, uint64_t low, uint64_t high) const {
    Floats<kPart> v = load<kPart>(x + i);
    unrolled<kPart / 4>([&](int q) {
      const Philox4 bits = philox(input->seed, low + static_cast<uint64_t>(q), high);
      for_lanes<4>([&](int j) { v[q * 4 + j] = drop(bits.v[j], v[q * 4 + j]); });
    });
    store(y + i, v);
  }
#else
  HD void make_32(const PhiloxKeys& keys, int64_t i, uint64_t low, uint64_t high) const {
    uint32_t bits[32];
    philox_of_eight(keys, low, high, bits);
    for (int q = 0; q < 32; q += 8) {
      Floats<8> v = load_ahead<8>(x + i + q);
      for_lanes<8>([&](int j) { v[j] = drop(bits[q + j], v[j]); });
      store(y + i + q, v);
    }
  }
#endif
};

// kBytes at a time.
template <int kBytes>
struct Zero {
  Result<float> to;
  int64_t bytes;
  HD void operator()(int64_t k) const {
    const int64_t i = k * kBytes;
    if (i + kBytes <= bytes) return store(to + i / 4, Floats<kBytes / 4>{});
    for (int64_t j = i; j < bytes; ++j) reinterpret_cast<uint8_t*>(to.data)[j] = 0;
  }
};

}  // namespace

void activation(Stream s, const Tensor& x, const Tensor& y, Act act) {
  dispatch_float(x.dtype, "activation", [&](auto t) {
    using T = decltype(t);
    dispatch_activation(act, [&](auto a) {
      for_each_packet<T>(s, x.elements(), Forward<T, decltype(a)>{x.as<const T>(), result_of<T>(s, y, {x.data}), a});
    });
  });
}

void activation_backward(Stream s, const Tensor& dy, const Tensor& kept, const Tensor& dx, Act act) {
  dispatch_float(dy.dtype, "activation_backward", [&](auto t) {
    using T = decltype(t);
    dispatch_activation(act, [&](auto a) {
      const auto result = result_of<T>(s, dx, {dy.data, kept.data});
      for_each_packet<T>(s, dy.elements(), Backward<T, decltype(a)>{dy.as<const T>(), kept.as<const T>(), result, a});
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
      reduce_channels_then<1>(
          s, rows, channels, scratch,
          BackwardSum<T, A>{{dy.as<const T>(), kept.as<const T>(), channels}, {dx.as<T>(), false}, a},
          StoreSums<1>{{sum}});
    });
  });
}

void relu_mask(Stream s, const Tensor& y, uint8_t* mask) {
  dispatch_float(y.dtype, "relu_mask", [&](auto t) {
    using T = decltype(t);
    for_each(s, mask_bytes(y), ReluMask<T>{y.as<const T>(), mask, place_in_mask(y)}, 8);
  });
}

void relu_mask_backward(Stream s, const uint8_t* mask, const Tensor& dx) {
  dispatch_float(dx.dtype, "relu_mask_backward", [&](auto t) {
    using T = decltype(t);
    for_each(s, mask_bytes(dx), ReluMaskBackward<T>{mask, dx.as<T>(), place_in_mask(dx)}, 8);
  });
}

void add(Stream s, const Tensor& a, const Tensor& b, const Tensor& y) {
  dispatch_float(a.dtype, "add", [&](auto t) {
    using T = decltype(t);
    const auto result = result_of<T>(s, y, {a.data, b.data});
    for_each_packet<T>(s, a.elements(), Add<T>{a.as<const T>(), b.as<const T>(), result});
  });
}

void dropout(Stream s, const Tensor& x, const Tensor& y, float p, uint32_t layer, const StepInput* input) {
  const int64_t row = x.elements() / x.shape[0];
  dispatch_float(x.dtype, "dropout", [&](auto t) {
    using T = decltype(t);
    auto result = result_of<T>(s, y, {x.data});
    result.past_caches = result.past_caches && row % 8 == 0;
    const auto in_parts = [&]<int kPart>(std::integral_constant<int, kPart>) {
      const int64_t parts = (row + kPart - 1) / kPart;
      return Dropout<T, kPart>{x.as<const T>(), result, input, row, parts, Divisor(parts), layer, p, 1.F / (1.F - p)};
    };
    if (s.cuda) {
      const auto f = in_parts(std::integral_constant<int, kPacket<T>>{});
      return for_each_on_cuda(s, x.shape[0] * f.parts, f);
    }
    const auto f = in_parts(std::integral_constant<int, 512>{});
    for_each_on_cpu(x.shape[0] * f.parts, f, 8 * 512);
  });
}

void cast(Stream s, const Tensor& x, const Tensor& y) {
  dispatch_float(x.dtype, "cast", [&](auto a) {
    using A = decltype(a);
    dispatch_float(y.dtype, "cast", [&](auto b) {
      using B = decltype(b);
      using Wider = std::conditional_t<(sizeof(A) > sizeof(B)), A, B>;
      for_each_packet<Wider>(s, x.elements(), Cast<A, B>{x.as<const A>(), result_of<B>(s, y, {x.data})});
    });
  });
}

void load_images(Stream s, const StepInput* input, const Tensor& y) {
  dispatch_float(y.dtype, "load_images", [&](auto t) {
    using T = decltype(t);
    for_each_packet<float>(s, y.elements(), Load<T>{input, result_of<T>(s, y, {})});
  });
}

void fill_zero(Stream s, void* memory, int64_t bytes) {
  const auto to = result_of<float>(s, memory, bytes, {});
  if (s.cuda) return for_each_on_cuda(s, (bytes + 15) / 16, Zero<16>{to, bytes});
  for_each_on_cpu((bytes + 31) / 32, Zero<32>{to, bytes}, 8);
}

}  // namespace convolt
