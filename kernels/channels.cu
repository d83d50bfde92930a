#include "channels.h"

#include "exec/reduce.h"

namespace convolt {
namespace {

template <class T>
struct CopyChannels {
  const T* from;  // null: zeros
  Result<T> to;   // both at their first channel
  int from_channels, to_channels;
  template <int W>
  HD void run(int64_t row, int c) const {
    Floats<W> v = zeros<W>();
    if (from) v = load_ahead<W>(from + row * from_channels + c);
    store(to + row * to_channels + c, v);
  }
};

// Where W channels in a row come from is found once for all rows.
template <class T>
struct Shuffle {
  const T* x;
  Result<T> y;
  int channels, groups, per_group;
  template <int W>
  struct Sources {
    int channel[W];
  };
  template <int W>
  HD Sources<W> of_channels(int c) const {
    Sources<W> sources;
    for (int j = 0; j < W; ++j) sources.channel[j] = (c + j) % groups * per_group + (c + j) / groups;
    return sources;
  }
  template <int W>
  HD Nothing operands(int64_t, int, bool) const {
    return {};
  }
  template <int W>
  HD void put(int64_t row, int c, Nothing, const Sources<W>& sources) const {
    const T* const from = x + row * channels;
    if constexpr (W == 8) ask_ahead(from + c);  // the channels of a row come from all over it
    const auto value = [&](int j) { return static_cast<float>(from[sources.channel[j]]); };
    Floats<W> v;
#if !defined(__CUDA_ARCH__)
    if constexpr (W == 8)  // in a register: eight floats stored one by one would have to arrive before they are loaded
      _mm256_storeu_ps(v.v,
                       _mm256_setr_ps(value(0), value(1), value(2), value(3), value(4), value(5), value(6), value(7)));
    else
#endif
      for (int j = 0; j < W; ++j) v[j] = value(j);
    store(y + row * channels + c, v);
  }
};

// b is read at row / pixels: 1 for operands alike, the pixels of a picture for one factor per picture and channel, all
// rows for one per channel.
template <class T, class B>
struct Mul {
  const T* a;
  const B* b;
  Result<T> y;
  Divisor by_pixels;
  int channels;
  struct Place {
    int64_t a, b;
  };
  HD Place at(int64_t row) const { return {row * channels, by_pixels.quotient(row) * channels}; }
  template <int W>
  HD void run(const Place& place, int c) const {
    Floats<W> p = load_ahead<W>(a + place.a + c);
    const Floats<W> q = load<W>(b + place.b + c);
    for_lanes<W>([&](int j) { p[j] *= q[j]; });
    store(y + place.a + c, p);
  }
};

template <class T, class B>
void multiply(Stream s, const Tensor& a, const B* b, const Tensor& y, int64_t pixels) {
  for_each_channel_packet<T>(
      s, rows_of(a), channels_of(a),
      Mul<T, B>{a.as<const T>(), b, result_of<T>(s, y, {a.data, b}), Divisor(pixels), channels_of(a)});
}

template <class T>
struct ProductSum : RowsOfTwo<T> {
  template <int W>
  HD void add(int64_t, int, const typename RowsOfTwo<T>::template Operands<W>& o, Nothing, Floats<W> (&sums)[1]) const {
    const Floats<W> g = o.a.of_existing(), v = o.b.of_existing();
    for_lanes<W>([&](int j) { sums[0][j] += g[j] * v[j]; });
  }
};

}  // namespace

void copy_channels(Stream s, const Tensor& from, int64_t from_first, const Tensor& to, int64_t to_first,
                   int64_t count) {
  dispatch_float(to.dtype, "copy_channels", [&](auto t) {
    using T = decltype(t);
    const T* source = from.data ? from.as<const T>() + from_first : nullptr;
    const int from_channels = from.data ? channels_of(from) : 0;
    const int n = static_cast<int>(count);
    CopyChannels<T> f{source, result_of<T>(s, to, {from.data}) + to_first, from_channels, channels_of(to)};
    constexpr int kLine = 64 / sizeof(T);  // lines of which another part is written later are better kept
    f.to.past_caches &= to_first % kLine == 0 && f.to_channels % kLine == 0 && n % kLine == 0;
    for_each_channel_packet<T>(s, rows_of(to), n, f, from_channels | f.to_channels | from_first | to_first);
  });
}

void channel_shuffle(Stream s, const Tensor& x, const Tensor& y, int64_t groups) {
  dispatch_float(x.dtype, "channel_shuffle", [&](auto t) {
    using T = decltype(t);
    const int channels = channels_of(x), g = static_cast<int>(groups);
    for_each_channel_packet<T>(s, rows_of(x), channels,
                               Shuffle<T>{x.as<const T>(), result_of<T>(s, y, {}), channels, g, channels / g});
  });
}

void mul(Stream s, const Tensor& a, const Tensor& b, const Tensor& y) {
  dispatch_float(a.dtype, "mul", [&](auto t) {
    using T = decltype(t);
    multiply<T>(s, a, b.as<const T>(), y, a.elements() / b.elements());
  });
}

void mul_backward_broadcast(Stream s, const Tensor& dy, const Tensor& a, const Tensor& db) {
  dispatch_float(a.dtype, "mul_backward_broadcast", [&](auto t) {
    using T = decltype(t);
    reduce_chunks<1>(s, rows_of(a), channels_of(a), a.elements() / db.elements(), db.as<T>(),
                     ProductSum<T>{{dy.as<const T>(), a.as<const T>(), channels_of(a)}});
  });
}

void scale_channels(Stream s, const Tensor& x, const float* scale, const Tensor& y) {
  dispatch_float(x.dtype, "scale_channels",
                 [&](auto t) { multiply<decltype(t)>(s, x, scale, y, std::max<int64_t>(1, rows_of(x))); });
}

int64_t scale_channels_scratch(int64_t rows, int64_t channels) { return chunks_of(rows) * channels * 4; }

void scale_channels_backward(Stream s, const Tensor& dy, const Tensor& x, float* scratch, float* dscale) {
  const int channels = channels_of(x);
  dispatch_float(x.dtype, "scale_channels_backward", [&](auto t) {
    using T = decltype(t);
    reduce_channels_then<1>(s, rows_of(x), channels, scratch,
                            ProductSum<T>{{dy.as<const T>(), x.as<const T>(), channels}}, StoreSums<1>{{dscale}});
  });
}

}  // namespace convolt
