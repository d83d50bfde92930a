#include "batch_norm.h"

#include "exec/act.h"
#include "exec/reduce.h"

namespace convolt {
namespace {

// Sums of x - shift and of its square, the shift being the tensor's first row, which is also written to `shift`.
template <class T>
struct ChannelStats : RowsOfOne<T> {
  float* shift;
  template <int W>
  HD Floats<W> kept(int c) const {
    return load<W>(this->x + c);
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
};

// T: what scale and bias are rounded to.
template <class T>
struct Finalize {
  BnFinalizeArgs a;
  double inverse_rows, bessel;  // 1 / n, n / (n - 1): divisions that every channel would wait for

  explicit Finalize(const BnFinalizeArgs& args)
      : a(args),
        inverse_rows(1 / static_cast<double>(a.rows)),
        bessel(static_cast<double>(a.rows) / static_cast<double>(a.rows - 1)) {}

  HD void operator()(int c, const double (&sums)[2]) const {
    const double mean_shifted = sums[0] * inverse_rows;
    const double mean = (a.raw_sums ? 0. : static_cast<double>(a.stats[c])) + mean_shifted;
    const double spread = sums[1] * inverse_rows - mean_shifted * mean_shifted;
    const double variance = spread < 0 ? 0 : spread;  // rounding may leave a constant channel just below 0; NaN stays
    const double m = static_cast<double>(a.momentum), unbiased = variance * bessel;
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
    Floats<W> v = load_ahead<W>(w + i);
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
    Floats<W> v = load_ahead<W>(x + i);
    const Floats<W> a = load<W>(scale + c), b = load<W>(bias + c);
    for_lanes<W>([&](int j) { v[j] = v[j] * a[j] + b[j]; });
    if constexpr (kResidual) {
      const Floats<W> r = load_ahead<W>(residual + i);
      for_lanes<W>([&](int j) { v[j] += r[j]; });
    }
    act.forward(v);
    store(y + i, v);
  }
};

}  // namespace

int64_t channel_stats_extent(int64_t rows) { return 1 + 2 * chunks_of(rows); }

void channel_stats(Stream s, const Tensor& x, float* stats) {
  const int channels = channels_of(x);
  dispatch_float(x.dtype, "channel_stats", [&](auto t) {
    using T = decltype(t);
    reduce_channels<2>(s, rows_of(x), channels, stats + channels, ChannelStats<T>{{x.as<const T>(), channels}, stats});
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
                              ChannelStats<T>{{x.as<const T>(), channels}, stats}, finalize);
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
  for_each_channel_packet<float>(s, outputs, elements,
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
        for_each_channel_packet<T>(s, rows_of(x), channels,
                                   Apply<T, A, true>{px, pr, scale, bias, result, channels, a});
      else
        for_each_channel_packet<T>(s, rows_of(x), channels,
                                   Apply<T, A, false>{px, nullptr, scale, bias, result, channels, a});
    });
  });
}

}  // namespace convolt
