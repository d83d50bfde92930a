// What batch_norm.h has of channels that no batch norm is told of: plain sums and biases.
#include "batch_norm.h"
#include "exec/reduce.h"

namespace convolt {
namespace {

// Plain sums, and sums of squares.
template <class T>
struct RawSums : RowsOfOne<T> {
  template <int W>
  HD void add(int64_t, int, const Ahead<T, W>& o, Nothing, Floats<W> (&sums)[2]) const {
    const Floats<W> v = o.of_existing();
    for_lanes<W>([&](int j) {
      sums[0][j] += v[j];
      sums[1][j] += v[j] * v[j];
    });
  }
};

template <class T>
struct ChannelSum : RowsOfOne<T> {
  template <int W>
  HD void add(int64_t, int, const Ahead<T, W>& o, Nothing, Floats<W> (&sums)[1]) const {
    const Floats<W> v = o.of_existing();
    for_lanes<W>([&](int j) { sums[0][j] += v[j]; });
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
    Floats<W> v = load_ahead<W>(x + row * channels + c);
    const Floats<W> b = load<W>(bias + c);
    for_lanes<W>([&](int j) { v[j] += b[j]; });
    store(y + row * channels + c, v);
  }
};

}  // namespace

void channel_sums(Stream s, const Tensor& x, float* scratch, float* sums) {
  const int channels = channels_of(x);
  dispatch_float(x.dtype, "channel_sums", [&](auto t) {
    using T = decltype(t);
    reduce_channels_then<2>(s, rows_of(x), channels, scratch, RawSums<T>{{x.as<const T>(), channels}},
                            StoreSums<2>{{sums, sums + channels}});
  });
}

void channel_sum(Stream s, const Tensor& x, float* scratch, float* out) {
  const int channels = channels_of(x);
  dispatch_float(x.dtype, "channel_sum", [&](auto t) {
    using T = decltype(t);
    reduce_channels_then<1>(s, rows_of(x), channels, scratch, ChannelSum<T>{{x.as<const T>(), channels}},
                            StoreSums<1>{{out}});
  });
}

void add_bias(Stream s, const Tensor& x, const float* bias, const Tensor& y) {
  const int channels = channels_of(x);
  dispatch_float(x.dtype, "add_bias", [&](auto t) {
    using T = decltype(t);
    for_each_channel_packet<T>(s, rows_of(x), channels,
                               AddBias<T>{x.as<const T>(), bias, result_of<T>(s, y, {x.data}), channels});
  });
}

}  // namespace convolt
