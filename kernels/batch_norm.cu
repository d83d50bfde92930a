#include "batch_norm.h"

#include "exec/act.h"
#include "exec/bn_gradient.h"
#include "exec/reduce.h"

namespace convolt {
namespace {

int channels_of(const Tensor& x) { return static_cast<int>(x.shape[-1]); }
int64_t rows_of(const Tensor& x) { return x.elements() / x.shape[-1]; }

// Sums of x - shift and of its square, the shift being the tensor's first row, which is also written to `shift`.
template <class T>
struct ChannelStats {
  static constexpr int kBytes = sizeof(T);
  const T* x;
  float* shift;
  int channels;
  template <int W>
  HD Floats<W> kept(int c) const {
    return load<W>(x + c);
  }
  template <int W>
  HD Ahead<T, W> operands(int64_t row, int c, bool exists) const {
    return Ahead<T, W>::of(x + row * channels + c, exists);
  }
  template <int W>
  HD void add(int64_t row, int c, const Ahead<T, W>& o, const Floats<W>& first, Floats<W> (&sums)[2]) const {
    const Floats<W> v = o.of_existing();
    if (row == 0) store(shift + c, first);
    for_lanes<W>([&](int j) {
      const float d = v[j] - first[j];
      sums[0][j] += d;
      sums[1][j] += d * d;
    });
  }
  template <int W>
  HD void run(int64_t row, int c, Floats<W> (&sums)[2]) const {
    add(row, c, operands<W>(row, c, true), kept<W>(c), sums);
  }
};

// T: what scale and bias are rounded to.
template <class T>
struct Finalize {
  BnFinalizeArgs a;
  HD void operator()(int c, const double (&sums)[2]) const {
    const double n = static_cast<double>(a.rows), mean_shifted = sums[0] / n;
    const double mean = (a.raw_sums ? 0. : static_cast<double>(a.stats[c])) + mean_shifted;
    const double spread = sums[1] / n - mean_shifted * mean_shifted;
    const double variance = spread < 0 ? 0 : spread;  // rounding may leave a constant channel just below 0; NaN stays
    const double m = static_cast<double>(a.momentum), unbiased = variance * n / (n - 1);
    // A step whose loss is not finite may be skipped, but these averages would never be finite again.
    if (fabs(mean) < INFINITY && variance < INFINITY) {
      a.running_mean[c] = static_cast<float>((1 - m) * static_cast<double>(a.running_mean[c]) + m * mean);
      a.running_var[c] = static_cast<float>((1 - m) * static_cast<double>(a.running_var[c]) + m * unbiased);
    }
    const double invstd = 1 / sqrt(variance + static_cast<double>(a.eps));
    const double scale = static_cast<double>(a.gamma[c]) * invstd;
    const T low_scale(static_cast<float>(scale)),
        low_bias(static_cast<float>(static_cast<double>(a.beta[c]) - mean * scale));
    a.coef[c] = static_cast<float>(mean);
    a.coef[a.channels + c] = static_cast<float>(invstd);
    a.coef[2 * a.channels + c] = static_cast<float>(low_scale);
    a.coef[3 * a.channels + c] = static_cast<float>(low_bias);
    if (a.low.data) {
      static_cast<T*>(a.low.data)[c] = low_scale;
      static_cast<T*>(a.low.data)[a.channels + c] = low_bias;
    }
  }
};

struct Coefficients {
  const float *gamma, *beta, *running_mean, *running_var;
  float eps;
  int channels;
  float* coef;
  HD void operator()(int64_t c) const {
    const double mean = static_cast<double>(running_mean[c]);
    const double invstd = 1 / sqrt(static_cast<double>(running_var[c]) + static_cast<double>(eps));
    const double scale = static_cast<double>(gamma[c]) * invstd;
    coef[c] = running_mean[c];
    coef[channels + c] = static_cast<float>(invstd);
    coef[2 * channels + c] = static_cast<float>(scale);
    coef[3 * channels + c] = static_cast<float>(static_cast<double>(beta[c]) - mean * scale);
  }
};

// A row is the weights of one output.
struct FoldWeights {
  const float *w, *scale;
  float* folded;
  int elements;  // of a row
  template <int W>
  HD void run(int64_t row, int c) const {
    const int64_t i = row * elements + c;
    Floats<W> v = load<W>(w + i);
    const float factor = scale[row];
    for_lanes<W>([&](int j) { v[j] *= factor; });
    store(folded + i, v);
  }
};

struct FoldBias {
  const float* bias;  // may be null
  const float *scale, *bias_bn;
  float* folded;
  HD void operator()(int64_t o) const { folded[o] = (bias ? bias[o] * scale[o] : 0.F) + bias_bn[o]; }
};

template <class T, class A, bool kResidual>
struct Apply {
  const T *x, *residual;
  const float *scale, *bias;
  Result<T> y;
  int channels;
  A act;
  template <int W>
  HD void run(int64_t row, int c) const {
    const int64_t i = row * channels + c;
    Floats<W> v = load<W>(x + i);
    const Floats<W> a = load<W>(scale + c), b = load<W>(bias + c);
    for_lanes<W>([&](int j) { v[j] = v[j] * a[j] + b[j]; });
    if constexpr (kResidual) {
      const Floats<W> r = load<W>(residual + i);
      for_lanes<W>([&](int j) { v[j] += r[j]; });
    }
    act.forward(v);
    store(y + i, v);
  }
};

// What both gradient kernels begin with: dz = dy * act', from the stored y or from x * scale + bias again.
template <class T, class A, bool kStored>
struct Incoming {
  const T *dy, *x, *y;
  const float* coef;
  int channels;
  A act;
  template <int W>
  HD Floats<W> dz(int64_t i, int c, const Floats<W>& v) const {
    Floats<W> g = load<W>(dy + i);
    if constexpr (!A::kIdentity && kStored) {
      act.backward(load<W>(y + i), g);
    } else if constexpr (!A::kIdentity) {
      const Floats<W> a = load<W>(coef + 2 * channels + c), b = load<W>(coef + 3 * channels + c);
      Floats<W> z;
      for_lanes<W>([&](int j) { z[j] = v[j] * a[j] + b[j]; });
      act.backward_again(z, g);
    }
    return g;
  }
};

template <class T, class A, bool kStored>
struct BackwardReduce {
  static constexpr bool kReadsY = !A::kIdentity && kStored, kComputesY = !A::kIdentity && !kStored;
  static constexpr int kBytes = (kReadsY ? 3 : 2) * sizeof(T);
  Incoming<T, A, kStored> in;
  template <int W>
  struct Affine {
    Floats<W> scale, bias;
  };
  template <int W>
  struct Kept {
    Floats<W> mean, invstd;
    [[no_unique_address]] std::conditional_t<kComputesY, Affine<W>, Nothing> y;
  };
  template <int W>
  HD Kept<W> kept(int c) const {
    Kept<W> k;
    k.mean = load<W>(in.coef + c);
    k.invstd = load<W>(in.coef + in.channels + c);
    if constexpr (kComputesY) {
      k.y.scale = load<W>(in.coef + 2 * in.channels + c);
      k.y.bias = load<W>(in.coef + 3 * in.channels + c);
    }
    return k;
  }
  template <int W>
  struct Operands {
    Ahead<T, W> x, dy;
    [[no_unique_address]] std::conditional_t<kReadsY, Ahead<T, W>, Nothing> y;
  };
  template <int W>
  HD Operands<W> operands(int64_t row, int c, bool exists) const {
    const int64_t i = row * in.channels + c;
    Operands<W> o;
    o.x = Ahead<T, W>::of(in.x + i, exists);
    o.dy = Ahead<T, W>::of(in.dy + i, exists);
    if constexpr (kReadsY) o.y = Ahead<T, W>::of(in.y + i, exists);
    return o;
  }
  template <int W>
  HD void add(int64_t, int, const Operands<W>& o, const Kept<W>& k, Floats<W> (&sums)[2]) const {
    const Floats<W> v = o.x.of_existing();
    Floats<W> g = o.dy.of_existing();
    if constexpr (kReadsY) {
      in.act.backward(o.y.of_existing(), g);
    } else if constexpr (kComputesY) {
      Floats<W> z;
      for_lanes<W>([&](int j) { z[j] = v[j] * k.y.scale[j] + k.y.bias[j]; });
      in.act.backward_again(z, g);
    }
    for_lanes<W>([&](int j) {
      sums[0][j] += g[j] * ((v[j] - k.mean[j]) * k.invstd[j]);
      sums[1][j] += g[j];
    });
  }
  template <int W>
  HD void run(int64_t row, int c, Floats<W> (&sums)[2]) const {
    add(row, c, operands<W>(row, c, true), kept<W>(c), sums);
  }
};

template <class T, class A, bool kStored>
struct BackwardApply {
  Incoming<T, A, kStored> in;
  const float *dgamma, *dbeta;
  float inverse_rows;
  Result<T> dx, dresidual;  // dresidual may be null
  template <int W>
  HD BnGradient<W> of_channels(int c) const {
    return BnGradient<W>::of(in.coef, in.channels, dgamma, dbeta, inverse_rows, c);
  }
  template <int W>
  HD void run(int64_t row, int c, const BnGradient<W>& gradient) const {
    const int64_t i = row * in.channels + c;
    const Floats<W> v = load<W>(in.x + i), g = in.template dz<W>(i, c, v);
    store(dx + i, gradient(g, v));
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

template <class T>
struct RawSums {
  static constexpr int kBytes = sizeof(T);
  const T* x;
  int channels;
  template <int W>
  HD Nothing kept(int) const {
    return {};
  }
  template <int W>
  HD Ahead<T, W> operands(int64_t row, int c, bool exists) const {
    return Ahead<T, W>::of(x + row * channels + c, exists);
  }
  template <int W>
  HD void add(int64_t, int, const Ahead<T, W>& o, Nothing, Floats<W> (&sums)[2]) const {
    const Floats<W> v = o.of_existing();
    for_lanes<W>([&](int j) {
      sums[0][j] += v[j];
      sums[1][j] += v[j] * v[j];
    });
  }
  template <int W>
  HD void run(int64_t row, int c, Floats<W> (&sums)[2]) const {
    add(row, c, operands<W>(row, c, true), {}, sums);
  }
};

template <class T>
struct ChannelSum {
  static constexpr int kBytes = sizeof(T);
  const T* x;
  int channels;
  template <int W>
  HD Nothing kept(int) const {
    return {};
  }
  template <int W>
  HD Ahead<T, W> operands(int64_t row, int c, bool exists) const {
    return Ahead<T, W>::of(x + row * channels + c, exists);
  }
  template <int W>
  HD void add(int64_t, int, const Ahead<T, W>& o, Nothing, Floats<W> (&sums)[1]) const {
    const Floats<W> v = o.of_existing();
    for_lanes<W>([&](int j) { sums[0][j] += v[j]; });
  }
  template <int W>
  HD void run(int64_t row, int c, Floats<W> (&sums)[1]) const {
    add(row, c, operands<W>(row, c, true), {}, sums);
  }
};

template <class T>
struct AddBias {
  const T* x;
  const float* bias;
  Result<T> y;
  int channels;
  template <int W>
  HD void run(int64_t row, int c) const {
    Floats<W> v = load<W>(x + row * channels + c);
    const Floats<W> b = load<W>(bias + c);
    for_lanes<W>([&](int j) { v[j] += b[j]; });
    store(y + row * channels + c, v);
  }
};

}  // namespace

int64_t channel_stats_extent(int64_t rows) { return 1 + 2 * chunks_of(rows); }

void channel_stats(Stream s, const Tensor& x, float* stats) {
  const int channels = channels_of(x);
  dispatch_float(x.dtype, "channel_stats", [&](auto t) {
    using T = decltype(t);
    reduce_channels<2>(s, rows_of(x), channels, stats + channels, ChannelStats<T>{x.as<const T>(), stats, channels});
  });
}

namespace {

void check_rows(const char* op, int64_t rows) {
  if (rows < 2)
    throw ShapeError(std::string(op) + " needs at least 2 values per channel to estimate a variance, found " +
                     std::to_string(rows) + "; use a larger batch or picture, or evaluate");
}

// One batch norm or two, from sums that need no joining.
template <class T>
struct FinalizeSums {
  Finalize<T> first, second;
  HD void operator()(int64_t i) const {
    const bool other = i >= first.a.channels;
    const Finalize<T>& f = other ? second : first;
    const int c = static_cast<int>(i) - (other ? first.a.channels : 0);
    const double sums[2] = {static_cast<double>(f.a.stats[c]), static_cast<double>(f.a.stats[f.a.channels + c])};
    f(c, sums);
  }
};

template <class F>
void dispatch_low(const BnFinalizeArgs& args, F f) {
  dispatch_float(args.low.data ? args.low.dtype : DType::f32, "bn_finalize", f);
}

}  // namespace

void bn_finalize(Stream s, const BnFinalizeArgs& args) {
  check_rows("bn_finalize", args.rows);
  dispatch_low(args, [&](auto t) {
    using F = Finalize<decltype(t)>;
    if (args.raw_sums)
      for_each(s, args.channels, FinalizeSums<decltype(t)>{F{args}, F{args}});
    else
      join_chunks<2>(s, args.chunks, args.channels, args.stats + args.channels, F{args});
  });
}

void bn_finalize_pair(Stream s, const BnFinalizeArgs& first, const BnFinalizeArgs& second) {
  for (const BnFinalizeArgs* args : {&first, &second}) {
    check_rows("bn_finalize_pair", args->rows);
    if (!args->raw_sums || args->low.data) throw Error("bn_finalize_pair takes plain sums and rounds nothing");
  }
  using F = Finalize<float>;
  for_each(s, first.channels + second.channels, FinalizeSums<float>{F{first}, F{second}});
}

void bn_statistics(Stream s, const Tensor& x, float* stats, BnFinalizeArgs args) {
  check_rows("bn_statistics", args.rows);
  args.stats = stats;
  const int channels = channels_of(x);
  const bool low = args.low.data != nullptr && args.low.dtype != DType::f32;
  if (low && args.low.dtype != x.dtype) throw Error("bn_statistics rounds to f32 or to the dtype of x");
  dispatch_float(x.dtype, "bn_statistics", [&](auto t) {
    using T = decltype(t);
    const auto reduce = [&](auto finalize) {
      reduce_channels_then<2>(s, rows_of(x), channels, stats + channels,
                              ChannelStats<T>{x.as<const T>(), stats, channels}, finalize);
    };
    if (low)
      reduce(Finalize<T>{args});
    else
      reduce(Finalize<float>{args});
  });
}

void bn_coefficients(Stream s, int channels, const float* gamma, const float* beta, const float* running_mean,
                     const float* running_var, float eps, float* coef) {
  for_each(s, channels, Coefficients{gamma, beta, running_mean, running_var, eps, channels, coef});
}

void bn_fold(Stream s, const Tensor& w, const float* bias, const float* coef, const Tensor& w_folded,
             float* bias_folded) {
  const int64_t outputs = w.shape[0];
  const float *scale = coef + 2 * outputs, *bias_bn = coef + 3 * outputs;
  const auto elements = static_cast<int>(w.elements() / outputs);
  for_each_channel_packet(s, outputs, elements,
                          FoldWeights{w.as<const float>(), scale, w_folded.as<float>(), elements});
  for_each(s, outputs, FoldBias{bias, scale, bias_bn, bias_folded});
}

void bn_apply(Stream s, const Tensor& x, const float* coef, const Tensor& residual, const Tensor& y, Act act) {
  const int channels = channels_of(x);
  const float *scale = coef + 2 * channels, *bias = coef + 3 * channels;
  dispatch_float(x.dtype, "bn_apply", [&](auto t) {
    using T = decltype(t);
    const T *px = x.as<const T>(), *pr = residual.as<const T>();
    const auto result = result_of<T>(s, y, {px, pr});
    dispatch_activation(act, [&](auto a) {
      using A = decltype(a);
      if (pr)
        for_each_channel_packet(s, rows_of(x), channels, Apply<T, A, true>{px, pr, scale, bias, result, channels, a});
      else
        for_each_channel_packet(s, rows_of(x), channels,
                                Apply<T, A, false>{px, nullptr, scale, bias, result, channels, a});
    });
  });
}

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
        for_each_channel_packet(s, rows_of(x), channels_of(x),
                                BackwardApply<T, A, kStored>{in, dgamma, dbeta, inverse_rows, to, to_residual});
      });
}

void channel_sums(Stream s, const Tensor& x, float* scratch, float* sums) {
  const int channels = channels_of(x);
  dispatch_float(x.dtype, "channel_sums", [&](auto t) {
    using T = decltype(t);
    reduce_channels_then<2>(s, rows_of(x), channels, scratch, RawSums<T>{x.as<const T>(), channels},
                            StoreSums<2>{{sums, sums + channels}});
  });
}

void channel_sum(Stream s, const Tensor& x, float* scratch, float* out) {
  const int channels = channels_of(x);
  dispatch_float(x.dtype, "channel_sum", [&](auto t) {
    using T = decltype(t);
    reduce_channels_then<1>(s, rows_of(x), channels, scratch, ChannelSum<T>{x.as<const T>(), channels},
                            StoreSums<1>{{out}});
  });
}

void add_bias(Stream s, const Tensor& x, const float* bias, const Tensor& y) {
  const int channels = channels_of(x);
  dispatch_float(x.dtype, "add_bias", [&](auto t) {
    using T = decltype(t);
    for_each_channel_packet(s, rows_of(x), channels,
                            AddBias<T>{x.as<const T>(), bias, result_of<T>(s, y, {x.data}), channels});
  });
}

}  // namespace convolt
