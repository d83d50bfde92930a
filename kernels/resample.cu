#include "resample.h"

#include "exec/grid.h"

namespace convolt {
namespace {

template <class T>
struct Shift {
  const T* x;
  Result<T> y;
  Grid in, out;
  int channels, down, right;
  float value;
  struct Place {
    int64_t from, to;  // from: negative where there is no pixel
  };
  HD Place at(int64_t row) const {
    const Pixel o = out.pixel(row);
    const int h = o.h + down, w = o.w + right;
    const bool inside = h >= 0 && h < in.h && w >= 0 && w < in.w;
    return {inside ? ((o.n * in.h + h) * in.w + w) * channels : -1, row * channels};
  }
  template <int W>
  HD void run(const Place& place, int c) const {
    Floats<W> v;
    if (place.from >= 0)
      v = load_ahead<W>(x + place.from + c);
    else
      for_lanes<W>([&](int j) { v[j] = value; });
    store(y + place.to + c, v);
  }
};

// One direction: `in` pixels to `out`.
struct Axis {
  int in, out;
  bool bilinear;

  // The output i takes 1 - second_weight of pixel `first` and second_weight of the one after it.
  struct Taps {
    int first;
    float second_weight;
  };
  HD Taps taps(int i) const {
    if (!bilinear) return {i * in / out, 0};
    const int position = (2 * i + 1) * in - out;  // in units of 1 / (2 out) pixels
    if (position <= 0) return {0, 0};
    const int first = position / (2 * out);
    if (first >= in - 1) return {in - 1, 0};
    return {first, static_cast<float>(position - first * 2 * out) / static_cast<float>(2 * out)};
  }
  // The weight of pixel p in output i.
  HD float weight(int i, int p) const {
    const Taps t = taps(i);
    return t.first == p ? 1 - t.second_weight : t.first + 1 == p ? t.second_weight : 0.F;
  }
  // Outputs [first, last) among which are all that take from pixel p.
  HD int first_reader(int p) const {
    const int first = (2 * p - 1) * out / (2 * in) - 1;
    return first < 0 ? 0 : first;
  }
  HD int last_reader(int p) const {
    const int last = (2 * p + 3) * out / (2 * in) + 1;
    return p == in - 1 || last > out ? out : last;
  }
};

template <class T>
struct Resample {
  const T* x;
  Result<T> y;
  Grid out;
  Axis rows, columns;
  int channels;
  struct Place {
    int64_t from, to;   // from: of the first of up to four pixels
    float down, right;  // weights of the second row and column
  };
  HD Place at(int64_t row) const {
    const Pixel o = out.pixel(row);
    const Axis::Taps h = rows.taps(o.h), w = columns.taps(o.w);
    return {((o.n * rows.in + h.first) * columns.in + w.first) * channels, row * channels, h.second_weight,
            w.second_weight};
  }
  template <int W>
  HD void add(Floats<W>& sum, const T* from, float weight) const {
    if (weight == 0) return;
    const Floats<W> v = load_ahead<W>(from);
    for_lanes<W>([&](int j) { sum[j] += v[j] * weight; });
  }
  template <int W>
  HD void run(const Place& place, int c) const {
    const float down = place.down, right = place.right;
    const T *const upper = x + place.from + c, *const lower = upper + int64_t{columns.in} * channels;
    auto sum = zeros<W>();
    add<W>(sum, upper, (1 - down) * (1 - right));
    add<W>(sum, upper + channels, (1 - down) * right);
    add<W>(sum, lower, down * (1 - right));
    add<W>(sum, lower + channels, down * right);
    store(y + place.to + c, sum);
  }
};

template <class T>
struct ResampleBackward {
  const T* dy;
  Result<T> dx;
  Grid in;
  Axis rows, columns;
  int channels;
  // The outputs [first, last) among which are all that take from a pixel in one direction.
  struct Readers {
    int pixel, first, last;
    Floats<8> weights;  // CPU: of the first of them
  };
  struct Place {
    int64_t picture, to;
    Readers rows, columns;
  };

  HD static Readers readers_of(const Axis& axis, int pixel) {
    Readers r{pixel, axis.first_reader(pixel), axis.last_reader(pixel), {}};
#if !defined(__CUDA_ARCH__)
    while (r.first < r.last && axis.weight(r.first, pixel) == 0) ++r.first;
    while (r.first < r.last && axis.weight(r.last - 1, pixel) == 0) --r.last;
    for (int k = 0; k < 8 && r.first + k < r.last; ++k) r.weights[k] = axis.weight(r.first + k, pixel);
#endif
    return r;
  }
  HD static float weight_of(const Axis& axis, const Readers& r, int reader) {
#if !defined(__CUDA_ARCH__)
    if (reader - r.first < 8) return r.weights[reader - r.first];
#endif
    return axis.weight(reader, r.pixel);
  }

  HD Place at(int64_t row) const {
    const Pixel i = in.pixel(row);
    return {i.n, row * channels, readers_of(rows, i.h), readers_of(columns, i.w)};
  }
  template <int W>
  HD void run(const Place& place, int c) const {
    auto sum = zeros<W>();
    for (int h = place.rows.first; h < place.rows.last; ++h) {
      const float of_row = weight_of(rows, place.rows, h);
      if (of_row == 0) continue;
      auto line = zeros<W>();
      const T* from = dy + ((place.picture * rows.out + h) * columns.out + place.columns.first) * channels + c;
#if defined(__CUDA_ARCH__)
#pragma unroll 1  // unrolled it would spill
#endif
      for (int w = place.columns.first; w < place.columns.last; ++w, from += channels) {
        const float weight = weight_of(columns, place.columns, w);
        if (weight == 0) continue;
        const Floats<W> g = load_ahead<W>(from);
        for_lanes<W>([&](int j) { line[j] += g[j] * weight; });
      }
      for_lanes<W>([&](int j) { sum[j] += line[j] * of_row; });
    }
    store(dx + place.to + c, sum);
  }
};

Axis axis(const Tensor& x, const Tensor& y, int i, ResampleFilter filter) {
  return {static_cast<int>(x.shape[i]), static_cast<int>(y.shape[i]), filter == ResampleFilter::bilinear};
}
int64_t pixels_of(const Tensor& x) { return x.elements() / x.shape[3]; }

}  // namespace

void shift_picture(Stream s, const Tensor& x, const Tensor& y, int down, int right, float value) {
  dispatch_float(x.dtype, "shift_picture", [&](auto t) {
    using T = decltype(t);
    for_each_channel_packet<T>(
        s, pixels_of(y), channels_of(y),
        Shift<T>{x.as<const T>(), result_of<T>(s, y, {}), Grid(x), Grid(y), channels_of(y), down, right, value});
  });
}

void resample(Stream s, const Tensor& x, const Tensor& y, ResampleFilter filter) {
  dispatch_float(x.dtype, "resample", [&](auto t) {
    using T = decltype(t);
    for_each_channel_packet<T>(s, pixels_of(y), channels_of(y),
                               Resample<T>{x.as<const T>(), result_of<T>(s, y, {}), Grid(y), axis(x, y, 1, filter),
                                           axis(x, y, 2, filter), channels_of(y)});
  });
}

void resample_backward(Stream s, const Tensor& dy, const Tensor& dx, ResampleFilter filter) {
  dispatch_float(dy.dtype, "resample_backward", [&](auto t) {
    using T = decltype(t);
    for_each_channel_packet<T>(s, pixels_of(dx), channels_of(dx),
                               ResampleBackward<T>{dy.as<const T>(), result_of<T>(s, dx, {}), Grid(dx),
                                                   axis(dx, dy, 1, filter), axis(dx, dy, 2, filter), channels_of(dx)});
  });
}

}  // namespace convolt
