#include "bn_pool.h"

#include "exec/bn_gradient.h"
#include "exec/bn_pool_patch.h"
#include "exec/pooling.h"
#include "exec/reduce.h"

namespace convolt {
namespace {

template <class T>
struct Normalised {
  const T* x;
  const float *scale, *bias;
  template <int W>
  HD Floats<W> at(int64_t i, int c) const {
    Floats<W> v = load<W>(x + i);
    const Floats<W> a = load<W>(scale + c), b = load<W>(bias + c);
    for_lanes<W>([&](int j) { v[j] = v[j] * a[j] + b[j]; });
    Relu{}.forward(v);
    return v;
  }
  HD const void* address(int64_t i) const { return x + i; }
};

// The gradient that arrives at the batch norm's output: gathered from the windows, through the ReLU.
template <class T, bool kTwo>
struct Arriving {
  MaxPoolGather<T, kTwo> gather;
  const T* x;
  const float* coef;
  // And v, the batch norm's input there: loaded after the gathering, for which registers are short.
  template <int W>
  HD Floats<W> at(const Covering& over, int c, Floats<W>& v) const {
    const int channels = gather.p.channels;
    Floats<W> g = gather.template at<W>(over, c), z;
    v = load_ahead<W>(x + over.in + c);
    const Floats<W> a = load<W>(coef + 2 * channels + c), b = load<W>(coef + 3 * channels + c);
    for_lanes<W>([&](int j) { z[j] = v[j] * a[j] + b[j]; });
    Relu{}.backward(z, g);
    return g;
  }
};

template <class T, bool kTwo>
struct Reduce {
  Arriving<T, kTwo> in;
  template <int W>
  HD void run(int64_t row, int c, Floats<W> (&sums)[2]) const {
    const int channels = in.gather.p.channels;
    const Covering over = covering_of(in.gather.p, row);
    Floats<W> v;
    const Floats<W> g = in.template at<W>(over, c, v);
    const Floats<W> mean = load<W>(in.coef + c), invstd = load<W>(in.coef + channels + c);
    for_lanes<W>([&](int j) {
      sums[0][j] += g[j] * ((v[j] - mean[j]) * invstd[j]);
      sums[1][j] += g[j];
    });
  }
};

template <class T, bool kTwo>
struct ApplyBackward {
  static constexpr int kBlocksPerProcessor = blocks_elsewhere(sizeof(T) == 2 ? 3 : 0);
  Arriving<T, kTwo> in;
  const float *dgamma, *dbeta;
  float inverse_rows;
  Result<T> dx;
  HD Covering at(int64_t row) const { return covering_of(in.gather.p, row); }
  template <int W>
  HD void run(const Covering& over, int c) const {
    Floats<W> v;
    const Floats<W> g = in.template at<W>(over, c, v);
    store(dx + over.in + c, BnGradient<W>::of(in.coef, in.gather.p.channels, dgamma, dbeta, inverse_rows, c)(g, v));
  }
};

template <class T, int K, bool kTwo>
void sum_by_strips(Stream s, const BnMaxPoolBackwardArgs& a, const Pooling& p, const WindowGradients<T, kTwo>& from) {
  using Sum = SumStrips<T, K, kTwo>;
  const Strips strips(p.out.h, p.out.w);
  const int packets = p.channels / kStored<T>;
  int lanes = 1;
  while (lanes < packets && lanes < 32) lanes *= 2;
  // As many chunks as the scratch holds partials of, at most 512: a wave of blocks on a large GPU.
  const int64_t chunks = chunks_of(a.x.elements() / p.channels), all = strips.count(a.x.shape[0]);
  const int64_t per_chunk = chunks > 0 ? (all + chunks - 1) / chunks : 0;
  const int tiles = (packets + lanes - 1) / lanes;
  for_each_block_then<Sum::kThreads>(
      s, chunks * tiles,
      Sum{from, a.x.as<const T>(), a.coef, a.scratch, PoolExtents(p), strips, all, per_chunk, lanes, tiles},
      JoinSums{a.scratch, chunks, 2 * p.channels, a.dgamma, a.dbeta});
}

// Calls f(Arriving<T, ...>).
template <class F>
void dispatch_arriving(const char* op, const BnMaxPoolBackwardArgs& a, F f) {
  const Pooling p = pooling_of(op, a.x, a.dy, a.window);
  dispatch_float(a.x.dtype, op, [&](auto t) {
    using T = decltype(t);
    const auto *dy = a.dy.as<const T>(), *dy2 = a.dy2.as<const T>();
    const auto* index = a.index.as<const uint8_t>();
    if (dy2 != nullptr)
      f(t, Arriving<T, true>{{dy, dy2, index, p}, a.x.as<const T>(), a.coef});
    else
      f(t, Arriving<T, false>{{dy, dy2, index, p}, a.x.as<const T>(), a.coef});
  });
}

}  // namespace

void bn_max_pool(Stream s, const Tensor& x, const float* coef, const Tensor& y, const Tensor& index,
                 const PoolWindow& window) {
  const Pooling p = pooling_of("bn_max_pool", x, y, window);
  dispatch_float(x.dtype, "bn_max_pool", [&](auto t) {
    using T = decltype(t);
    const bool done = by_patches<T>(s, p, [&]<int K>(Known<K, K>) {
      const Strips strips(p.out.h, p.out.w);
      walk_strips<T>(s, strips.count(x.shape[0]), p.channels,
                     PoolStrips<T, K>{x.as<const T>(), coef + 2 * p.channels, coef + 3 * p.channels, y.as<T>(),
                                      index.as<uint8_t>(), PoolExtents(p), strips});
    });
    if (done) return;
    const Normalised<T> source{x.as<const T>(), coef + 2 * p.channels, coef + 3 * p.channels};
    for_each_window<T>(s, y.elements() / p.channels,
                       MaxPool<T, Normalised<T>, true>{source, result_of<T>(s, y, {x.data}),
                                                       result_of<uint8_t>(s, index, {x.data}), p});
  });
}

void bn_max_pool_backward_reduce(Stream s, const BnMaxPoolBackwardArgs& a) {
  const int channels = static_cast<int>(a.x.shape[3]);
  const int64_t rows = a.x.elements() / channels;
  dispatch_arriving("bn_max_pool_backward_reduce", a, [&]<class T, bool kTwo>(T, const Arriving<T, kTwo>& in) {
    const Pooling& p = in.gather.p;
    const WindowGradients<T, kTwo> windows{in.gather.dy, in.gather.dy2, in.gather.index};
    if (by_patches<T>(s, p, [&]<int K>(Known<K, K>) { sum_by_strips<T, K>(s, a, p, windows); })) return;
    reduce_channels_then<2>(s, rows, channels, a.scratch, Reduce<T, kTwo>{in}, StoreSums<2>{{a.dgamma, a.dbeta}});
  });
}

void bn_max_pool_backward_apply(Stream s, const BnMaxPoolBackwardArgs& a) {
  const int channels = static_cast<int>(a.x.shape[3]);
  const int64_t rows = a.x.elements() / channels;
  dispatch_arriving("bn_max_pool_backward_apply", a, [&]<class T, bool kTwo>(T, const Arriving<T, kTwo>& in) {
    const float inverse_rows = 1.F / static_cast<float>(rows);
    const Pooling& p = in.gather.p;
    const WindowGradients<T, kTwo> windows{in.gather.dy, in.gather.dy2, in.gather.index};
    const ApplyToPatches<T> end{in.x, a.coef, a.dgamma, a.dbeta, inverse_rows, a.dx.as<T>(), channels};
    if (by_patches<T>(s, p, [&]<int K>(Known<K, K>) { walk_patches<T, K>(s, a.x.shape[0], p, windows, end); })) return;
    const auto to = result_of<T>(s, a.dx, {a.x.data, a.dy.data, a.dy2.data});
    for_each_channel_packet<T>(s, rows, channels, ApplyBackward<T, kTwo>{in, a.dgamma, a.dbeta, inverse_rows, to});
  });
}

}  // namespace convolt
