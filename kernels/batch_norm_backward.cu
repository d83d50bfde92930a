// The gradients of batch norms.
#include "batch_norm.h"
#include "exec/act.h"
#include "exec/bn_gradient.h"
#include "exec/reduce.h"

namespace convolt {
namespace {

// What both gradient kernels begin with: dz = dy * act', from the stored y or from x * scale + bias again.
template <class T, class A, bool kStored>
struct Incoming {
  static constexpr bool kReadsY = !A::kIdentity && kStored, kComputesY = !A::kIdentity && !kStored;
  const T *dy, *x, *y;
  const float* coef;
  int channels;
  A act;

  template <int W>
  struct Operands {
    Ahead<T, W> x, dy;
    [[no_unique_address]] std::conditional_t<kReadsY, Ahead<T, W>, Nothing> y;
  };
  template <int W>
  HD Operands<W> operands(int64_t row, int c, bool exists) const {
    const int64_t i = row * channels + c;
    Operands<W> o;
    o.x = Ahead<T, W>::of(x + i, exists);
    o.dy = Ahead<T, W>::of(dy + i, exists);
    if constexpr (kReadsY) o.y = Ahead<T, W>::of(y + i, exists);
    return o;
  }
  // What makes y of x.
  template <int W>
  struct Affine {
    Floats<W> scale, bias;
  };
  template <int W>
  using Kept = std::conditional_t<kComputesY, Affine<W>, Nothing>;
  template <int W>
  HD Kept<W> kept(int c) const {
    if constexpr (kComputesY) return {load<W>(coef + 2 * channels + c), load<W>(coef + 3 * channels + c)};
    return {};
  }
  // Of an element of x that is v.
  template <int W>
  HD Floats<W> dz(const Operands<W>& o, const Kept<W>& k, const Floats<W>& v) const {
    Floats<W> g = o.dy.of_existing();
    if constexpr (kReadsY) {
      act.backward(o.y.of_existing(), g);
    } else if constexpr (kComputesY) {
      Floats<W> z;
      for_lanes<W>([&](int j) { z[j] = v[j] * k.scale[j] + k.bias[j]; });
      act.backward_again(z, g);
    }
    return g;
  }
};

template <class T, class A, bool kStored>
struct BackwardReduce {
  using In = Incoming<T, A, kStored>;
  static constexpr int kBytes = (In::kReadsY ? 3 : 2) * sizeof(T);
  In in;
  template <int W>
  struct Kept {
    Floats<W> mean, invstd;
    [[no_unique_address]] typename In::template Kept<W> y;
  };
  template <int W>
  HD Kept<W> kept(int c) const {
    return {load<W>(in.coef + c), load<W>(in.coef + in.channels + c), in.template kept<W>(c)};
  }
  template <int W>
  HD auto operands(int64_t row, int c, bool exists) const {
    return in.template operands<W>(row, c, exists);
  }
  template <int W>
  HD void add(int64_t, int, const typename In::template Operands<W>& o, const Kept<W>& k, Floats<W> (&sums)[2]) const {
    const Floats<W> v = o.x.of_existing(), g = in.template dz<W>(o, k.y, v);
    for_lanes<W>([&](int j) {
      sums[0][j] += g[j] * ((v[j] - k.mean[j]) * k.invstd[j]);
      sums[1][j] += g[j];
    });
  }
};

template <class T, class A, bool kStored>
struct BackwardApply {
  using In = Incoming<T, A, kStored>;
  In in;
  const float *dgamma, *dbeta;
  float inverse_rows;
  Result<T> dx, dresidual;  // dresidual may be null
  template <int W>
  struct OfChannels {
    BnGradient<W> gradient;
    [[no_unique_address]] typename In::template Kept<W> y;
  };
  template <int W>
  HD OfChannels<W> of_channels(int c) const {
    return {BnGradient<W>::of(in.coef, in.channels, dgamma, dbeta, inverse_rows, c), in.template kept<W>(c)};
  }
  template <int W>
  HD auto operands(int64_t row, int c, bool exists) const {
    return in.template operands<W>(row, c, exists);
  }
  template <int W>
  HD void put(int64_t row, int c, const typename In::template Operands<W>& o, const OfChannels<W>& k) const {
    const int64_t i = row * in.channels + c;
    const Floats<W> v = o.x.of_existing(), g = in.template dz<W>(o, k.y, v);
    store(dx + i, k.gradient(g, v));
    if (dresidual.data) store(dresidual + i, g);
  }
};

// Calls f(Incoming<...>{...}) with the types of one backward call.
template <class F>
void dispatch_incoming(const char* op, const Tensor& dy, const Tensor& x, const Tensor& y, const float* coef, Act act,
                       F f) {
  dispatch_float(x.dtype, op, [&](auto t) {
    using T = decltype(t);
    dispatch_activation(act, [&](auto a) {
      using A = decltype(a);
      if (y.data)
        f(Incoming<T, A, true>{dy.as<const T>(), x.as<const T>(), y.as<const T>(), coef, channels_of(x), a});
      else
        f(Incoming<T, A, false>{dy.as<const T>(), x.as<const T>(), nullptr, coef, channels_of(x), a});
    });
  });
}

}  // namespace

int64_t bn_backward_scratch(int64_t rows, int channels) {
  return chunks_of(rows) * 2 * channels * static_cast<int64_t>(sizeof(float));
}

void bn_backward_reduce(Stream s, const Tensor& dy, const Tensor& x, const Tensor& y, const float* coef, Act act,
                        float* scratch, float* dgamma, float* dbeta) {
  const int channels = channels_of(x);
  const int64_t rows = rows_of(x);
  dispatch_incoming("bn_backward_reduce", dy, x, y, coef, act,
                    [&]<class T, class A, bool kStored>(const Incoming<T, A, kStored>& in) {
                      reduce_channels_then<2>(s, rows, channels, scratch, BackwardReduce<T, A, kStored>{in},
                                              StoreSums<2>{{dgamma, dbeta}});
                    });
}

void bn_backward_apply(Stream s, const Tensor& dy, const Tensor& x, const Tensor& y, const float* coef, Act act,
                       const float* dgamma, const float* dbeta, const Tensor& dx, const Tensor& dresidual,
                       bool frozen) {
  const float inverse_rows = frozen ? 0.F : 1.F / static_cast<float>(rows_of(x));
  dispatch_incoming(
      "bn_backward_apply", dy, x, y, coef, act, [&]<class T, class A, bool kStored>(const Incoming<T, A, kStored>& in) {
        const auto to = result_of<T>(s, dx, {dy.data, x.data, y.data});
        const auto to_residual = result_of<T>(s, dresidual, {dy.data, x.data, y.data});
        for_each_channel_packet<T>(s, rows_of(x), channels_of(x),
                                   BackwardApply<T, A, kStored>{in, dgamma, dbeta, inverse_rows, to, to_residual});
      });
}

}  // namespace convolt
