#include "pool.h"

#include "exec/elementary.h"
#include "exec/pool_patch.h"
#include "exec/pooling.h"

namespace convolt {

bool pool_patches_on_cpu = false;

namespace {

// How many rows or columns of the window an average divides by: those inside the picture, or inside the padded picture.
HD int counted(int out, int kernel, int stride, int before, int extent, int after, bool include_pad) {
  const Range r = inside(out, kernel, stride, before, extent + (include_pad ? after : 0));
  return r.last - (include_pad ? 0 : r.first);
}
HD int counted_rows(const Pooling& p, int oh) {
  const PoolWindow& k = p.window;
  return counted(oh, k.kernel_h, k.stride_h, k.pad.top, p.in.h, k.pad.bottom, k.count_include_pad);
}
HD int counted_columns(const Pooling& p, int ow) {
  const PoolWindow& k = p.window;
  return counted(ow, k.kernel_w, k.stride_w, k.pad.left, p.in.w, k.pad.right, k.count_include_pad);
}
template <class T>
struct Elements {
  const T* x;
  template <int W>
  HD Floats<W> at(int64_t i, int /*c*/) const {
    return load<W>(x + i);
  }
  HD const void* address(int64_t i) const { return x + i; }
};

template <class T>
struct MaxPoolBackward {
  static constexpr int kBlocksPerProcessor = blocks_elsewhere(6);
  MaxPoolGather<T> gather;
  Result<T> dx;
  HD Covering at(int64_t row) const { return covering_of(gather.p, row); }
  template <int W>
  HD void run(const Covering& over, int c) const {
    store(dx + over.in + c, gather.template at<W>(over, c));
  }
};

// The same where windows lie side by side and cover the picture: each is read once, and writes all it covers.
template <class T>
struct MaxPoolBackwardApart {
  const T* dy;
  const uint8_t* index;
  Result<T> dx;
  Pooling p;
  HD Inside at(int64_t row) const { return inside_of(p, row); }
  template <int W>
  HD void run(const Inside& part, int c) const {
    const PoolWindow& k = p.window;
    const int64_t line = int64_t{p.in.w} * p.channels;
    const Floats<W> g = load_ahead<W>(dy + part.out + c), where = load<W>(index + part.out + c);
    const Result<T> first = dx + part.in + c;
    float position = 0;
    for (int r = 0; r < k.kernel_h; ++r)
      for (int s = 0; s < k.kernel_w; ++s, ++position) {
        Floats<W> v;
        for_lanes<W>([&](int j) { v[j] = choose(where[j] == position, g[j], 0.F); });
        store(first + r * line + int64_t{s} * p.channels, v);
      }
  }
};
bool lie_apart(const Pooling& p) {
  const PoolWindow& k = p.window;
  return k.stride_h == k.kernel_h && k.stride_w == k.kernel_w && k.pad == Padding() && p.out.h * k.kernel_h == p.in.h &&
         p.out.w * k.kernel_w == p.in.w;
}

// Of patches (pool_patch.h): the gradient itself.
template <class T>
struct GradientsOfPatches {
  T* dx;
  struct Nothing {};
  HD Nothing coefficients(int /*c*/) const { return {}; }
  HD Nothing fetch(int64_t /*i*/, bool /*exists*/) const { return {}; }
  HD void put(Nothing, Nothing, const Floats<kStored<T>>& g, int64_t i) const { convolt::put(dx + i, stored_of<T>(g)); }
};

// Averages of windows that count alike, all but those at some edges, or each by itself.
template <bool kAlike>
struct AvgScale {
  float all;
  HD float of(const Pooling& p, int oh, int ow) const {
    if constexpr (kAlike) return all;
    return quotient(1.F, static_cast<float>(counted_rows(p, oh) * counted_columns(p, ow)));
  }
};
bool count_alike(const Pooling& p) {
  for (int oh = 1; oh < p.out.h; ++oh)
    if (counted_rows(p, oh) != counted_rows(p, 0)) return false;
  for (int ow = 1; ow < p.out.w; ++ow)
    if (counted_columns(p, ow) != counted_columns(p, 0)) return false;
  return true;
}
// Calls f(AvgScale<...>{...}).
template <class F>
void dispatch_scale(const Pooling& p, F f) {
  if (count_alike(p))
    f(AvgScale<true>{1.F / static_cast<float>(counted_rows(p, 0) * counted_columns(p, 0))});
  else
    f(AvgScale<false>{});
}

template <class Scale>
struct AvgWindows {
  Pooling p;
  Scale scale;
  HD int channels() const { return p.channels; }
  HD int64_t line_elements() const { return int64_t{p.in.w} * p.channels; }
  HD Inside at(int64_t row) const {
    Inside part = inside_of(p, row);
    const Pixel o = p.out.pixel(row);
    part.scale = scale.of(p, o.h, o.w);
    return part;
  }
};

template <class T, class Scale>
struct AvgPoolBackward {
  const T* dy;
  Result<T> dx;
  Pooling p;
  Scale scale;
  HD Covering at(int64_t row) const { return covering_of(p, row); }
  template <int W>
  HD void run(const Covering& over, int c) const {
    with_extents(over, [&](auto extents) { sweep<W>(over, c, extents); });
  }
  template <int W, class Extents>
  HD void sweep(const Covering& over, int c, Extents extents) const {
    auto sum = zeros<W>();
    const T* line = dy + over.out + c;
    for (int i = 0; i < extents.rows; ++i, line += int64_t{p.out.w} * p.channels)
#if defined(__CUDA_ARCH__)
#pragma unroll 1  // as in MaxPoolGather
#endif
      for (int j = 0; j < extents.columns; ++j) {
        const float factor = scale.of(p, over.oh + i, over.ow + j);
        const Floats<W> g = load<W>(line + j * p.channels);
        for_lanes<W>([&](int l) { sum[l] += g[l] * factor; });
      }
    store(dx + over.in + c, sum);
  }
};

int extent(const Tensor& x, int i) { return static_cast<int>(x.shape[i]); }

int64_t pooled_extent(int64_t extent, int before, int after, int kernel, int stride, bool ceil_mode) {
  const int64_t room = extent + before + after - kernel + (ceil_mode ? stride - 1 : 0);
  if (room < 0) return 0;
  const int64_t windows = room / stride + 1;
  return ceil_mode && (windows - 1) * stride >= extent + before ? windows - 1 : windows;
}

}  // namespace

Pooling pooling_of(const char* op, const Tensor& picture, const Tensor& pooled, const PoolWindow& k) {
  const Pooling p{{extent(picture, 1), extent(picture, 2)},
                  {extent(pooled, 1), extent(pooled, 2)},
                  extent(picture, 3),
                  k,
                  Divisor(k.stride_h),
                  Divisor(k.stride_w)};
  if (!k.pad_fits())
    throw ShapeError(std::string(op) + ": padding may be at most half of the window, found " + k.pad.to_string() +
                     " for a window of " + std::to_string(k.kernel_h) + "x" + std::to_string(k.kernel_w));
  const Shape expected = k.pooled(picture.shape);
  if (pooled.shape != expected)
    throw ShapeError(std::string(op) + " of " + picture.shape.to_string() + " expects the pooled shape " +
                     expected.to_string() + ", found " + pooled.shape.to_string());
  return p;
}

bool PoolWindow::pad_fits() const {
  return pad.top >= 0 && pad.left >= 0 && pad.bottom >= 0 && pad.right >= 0 &&
         std::max(pad.top, pad.bottom) <= kernel_h / 2 && std::max(pad.left, pad.right) <= kernel_w / 2;
}

Shape PoolWindow::pooled(const Shape& x) const {
  return {x[0], pooled_extent(x[1], pad.top, pad.bottom, kernel_h, stride_h, ceil_mode),
          pooled_extent(x[2], pad.left, pad.right, kernel_w, stride_w, ceil_mode), x[3]};
}

void max_pool(Stream s, const Tensor& x, const Tensor& y, const Tensor& index, const PoolWindow& window) {
  const Pooling p = pooling_of("max_pool", x, y, window);
  if (window.kernel_h * window.kernel_w > 255)
    throw ShapeError("max_pool takes windows of at most 255 elements, found " + std::to_string(window.kernel_h) + "x" +
                     std::to_string(window.kernel_w));
  const int64_t rows = y.elements() / p.channels;
  dispatch_float(x.dtype, "max_pool", [&](auto t) {
    using T = decltype(t);
    const auto to = result_of<T>(s, y, {x.data});
    const auto positions = result_of<uint8_t>(s, index, {x.data});
    if (index.data)
      for_each_window<T>(s, rows, MaxPool<T, Elements<T>, true>{{x.as<const T>()}, to, positions, p});
    else
      for_each_window<T>(s, rows, MaxPool<T, Elements<T>, false>{{x.as<const T>()}, to, positions, p});
  });
}

void max_pool_backward(Stream s, const Tensor& dy, const Tensor& index, const Tensor& dx, const PoolWindow& window) {
  const Pooling p = pooling_of("max_pool_backward", dx, dy, window);
  dispatch_float(dy.dtype, "max_pool_backward", [&](auto t) {
    using T = decltype(t);
    const auto* gradients = dy.as<const T>();
    const auto* positions = index.as<const uint8_t>();
    const WindowGradients<T, false> windows{gradients, nullptr, positions};
    const auto by_patch = [&]<int K>(Known<K, K>) {
      walk_patches<T, K>(s, dx.shape[0], p, windows, GradientsOfPatches<T>{dx.as<T>()});
    };
    if (by_patches<T>(s, p, by_patch)) return;
    const auto to = result_of<T>(s, dx, {dy.data});
    if (lie_apart(p))
      for_each_channel_packet<T>(s, dy.elements() / p.channels, p.channels,
                                 MaxPoolBackwardApart<T>{gradients, positions, to, p});
    else
      for_each_channel_packet<T>(s, dx.elements() / p.channels, p.channels,
                                 MaxPoolBackward<T>{{gradients, nullptr, positions, p}, to});
  });
}

void avg_pool(Stream s, const Tensor& x, const Tensor& y, const PoolWindow& window) {
  const Pooling p = pooling_of("avg_pool", x, y, window);
  dispatch_float(x.dtype, "avg_pool", [&](auto t) {
    using T = decltype(t);
    const auto to = result_of<T>(s, y, {x.data});
    dispatch_scale(p, [&]<class Scale>(const Scale& scale) {
      for_each_window<T>(s, y.elements() / p.channels,
                         WindowMean<T, AvgWindows<Scale>>{x.as<const T>(), to, {p, scale}});
    });
  });
}

void avg_pool_backward(Stream s, const Tensor& dy, const Tensor& dx, const PoolWindow& window) {
  const Pooling p = pooling_of("avg_pool_backward", dx, dy, window);
  dispatch_float(dy.dtype, "avg_pool_backward", [&](auto t) {
    using T = decltype(t);
    const auto to = result_of<T>(s, dx, {dy.data});
    dispatch_scale(p, [&]<class Scale>(const Scale& scale) {
      if constexpr (std::is_same_v<Scale, AvgScale<true>>) {
        const MeanGradients<T> windows{dy.as<const T>(), scale.all};
        const auto by_patch = [&]<int K>(Known<K, K>) {
          walk_patches<T, K>(s, dx.shape[0], p, windows, GradientsOfPatches<T>{dx.as<T>()});
        };
        if (by_patches<T>(s, p, by_patch)) return;
      }
      for_each_channel_packet<T>(s, dx.elements() / p.channels, p.channels,
                                 AvgPoolBackward<T, Scale>{dy.as<const T>(), to, p, scale});
    });
  });
}

}  // namespace convolt
