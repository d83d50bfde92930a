// Included by one source for each instruction set: everything here is local to it.
//
// A. Lavin and S. Gray, "Fast algorithms for convolutional neural networks", CVPR 2016: F(M x M, 3 x 3) makes M x M
// sums of nine products with one product for each of (M + 2)^2 points: y = A^T ((G w) (B^T d)) along each axis. The
// gradient of the weights is the same trilinear form with the roles exchanged: G^T ((B^T d) (A e)).
#pragma once

#include <immintrin.h>

#include "conv/winograd_code.h"

namespace convolt::winograd {
namespace {

#if defined(__AVX512F__)
constexpr const char* kName = "AVX-512";
constexpr int kLanes = 16, kRows = 12;
using Floats = __m512;
using Bits = __m512i;
Floats zeros() { return _mm512_setzero_ps(); }
Floats all(float f) { return _mm512_set1_ps(f); }
Floats load(const float* p) { return _mm512_loadu_ps(p); }
void store(float* p, Floats v) { _mm512_storeu_ps(p, v); }
Floats multiply_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
Floats smaller(Floats a, Floats b) { return _mm512_min_ps(a, b); }
Floats larger(Floats a, Floats b) { return _mm512_max_ps(a, b); }
Floats load_bf16(const uint16_t* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
Floats load_f16(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
void store_f16(uint16_t* p, Floats v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
// To nearest, ties to even; a NaN stays one.
void store_bf16(uint16_t* p, Floats v) {
  const Bits bits = _mm512_castps_si512(v), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  Bits rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  rounded = _mm512_mask_or_epi32(rounded, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), bits, _mm512_set1_epi32(0x400000));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
}
#else
constexpr const char* kName = "AVX2";
constexpr int kLanes = 8, kRows = 6;
using Floats = __m256;
using Bits = __m256i;
Floats zeros() { return _mm256_setzero_ps(); }
Floats all(float f) { return _mm256_set1_ps(f); }
Floats load(const float* p) { return _mm256_loadu_ps(p); }
void store(float* p, Floats v) { _mm256_storeu_ps(p, v); }
Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
Floats smaller(Floats a, Floats b) { return _mm256_min_ps(a, b); }
Floats larger(Floats a, Floats b) { return _mm256_max_ps(a, b); }
Floats load_bf16(const uint16_t* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
Floats load_f16(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
void store_f16(uint16_t* p, Floats v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
// To nearest, ties to even; a NaN stays one.
void store_bf16(uint16_t* p, Floats v) {
  const Bits bits = _mm256_castps_si256(v), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const Bits rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const Bits quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const Floats kept =
      _mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_castsi256_ps(quiet), _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const Bits upper = _mm256_srli_epi32(_mm256_castps_si256(kept), 16);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1)));
}
#endif

template <DType T>
Floats load_as(const void* p, int i) {
  if constexpr (T == DType::f32) return load(static_cast<const float*>(p) + i);
  if constexpr (T == DType::bf16) return load_bf16(static_cast<const uint16_t*>(p) + i);
  return load_f16(static_cast<const uint16_t*>(p) + i);
}
template <DType T>
void store_as(void* p, int i, Floats v) {
  if constexpr (T == DType::f32) return store(static_cast<float*>(p) + i, v);
  if constexpr (T == DType::bf16) return store_bf16(static_cast<uint16_t*>(p) + i, v);
  store_f16(static_cast<uint16_t*>(p) + i, v);
}
// The four matrices along one axis; `to` holds the results.
template <int M>
struct Axis;

template <>
struct Axis<2> {
  static void pixels(const Floats* d, Floats* to) {  // B^T d
    to[0] = d[0] - d[2];
    to[1] = d[1] + d[2];
    to[2] = d[2] - d[1];
    to[3] = d[1] - d[3];
  }
  static void gradients(const Floats* e, Floats* to) {  // A e
    to[0] = e[0];
    to[1] = e[0] + e[1];
    to[2] = e[0] - e[1];
    to[3] = zeros() - e[1];
  }
  static void weights(const Floats* w, Floats* to) {  // G w
    const Floats ends = (w[0] + w[2]) * all(0.5F), middle = w[1] * all(0.5F);
    to[0] = w[0];
    to[1] = ends + middle;
    to[2] = ends - middle;
    to[3] = w[2];
  }
  static void outputs(const Floats* m, Floats* to) {  // A^T m
    to[0] = m[0] + m[1] + m[2];
    to[1] = m[1] - m[2] - m[3];
  }
  static void weight_gradients(const Floats* m, Floats* to) {  // G^T m
    const Floats b = m[1] * all(0.5F), d = m[2] * all(0.5F);
    to[0] = m[0] + b + d;
    to[1] = b - d;
    to[2] = b + d + m[3];
  }
};

template <>
struct Axis<3> {
  static void pixels(const Floats* d, Floats* to) {
    const Floats two = all(2), middle = d[3] - d[1];
    to[0] = two * (d[0] - d[2]) + middle;
    to[1] = d[3] - d[2] - two * d[1];
    to[2] = d[3] + two * d[1] - all(3) * d[2];
    to[3] = middle;
    to[4] = two * (d[1] - d[3]) + (d[4] - d[2]);
  }
  static void gradients(const Floats* e, Floats* to) {
    const Floats even = e[0] + e[2];
    to[0] = e[0];
    to[1] = even + e[1];
    to[2] = even - e[1];
    to[3] = e[0] + all(2) * e[1] + all(4) * e[2];
    to[4] = e[2];
  }
  static void weights(const Floats* w, Floats* to) {
    const Floats ends = w[0] + w[2];
    to[0] = w[0] * all(0.5F);
    to[1] = (ends + w[1]) * all(-0.5F);
    to[2] = (w[1] - ends) * all(1.F / 6);
    to[3] = (w[0] + all(2) * w[1] + all(4) * w[2]) * all(1.F / 6);
    to[4] = w[2];
  }
  static void outputs(const Floats* m, Floats* to) {
    const Floats even = m[1] + m[2];
    to[0] = m[0] + even + m[3];
    to[1] = m[1] - m[2] + all(2) * m[3];
    to[2] = even + all(4) * m[3] + m[4];
  }
  static void weight_gradients(const Floats* m, Floats* to) {
    const Floats b = m[1] * all(-0.5F), d = m[2] * all(1.F / 6), e = m[3] * all(1.F / 6);
    to[0] = m[0] * all(0.5F) + b - d + e;
    to[1] = b + d + all(2) * e;
    to[2] = b - d + all(4) * e + m[4];
  }
};

template <>
struct Axis<4> {
  static void pixels(const Floats* d, Floats* to) {
    const Floats four = all(4), five = all(5), two = all(2);
    const Floats even = d[4] - four * d[2], odd = d[3] - four * d[1];
    const Floats even2 = d[4] - d[2], odd2 = two * (d[3] - d[1]);
    to[0] = four * d[0] - five * d[2] + d[4];
    to[1] = even + odd;
    to[2] = even - odd;
    to[3] = even2 + odd2;
    to[4] = even2 - odd2;
    to[5] = four * d[1] - five * d[3] + d[5];
  }
  static void gradients(const Floats* e, Floats* to) {
    const Floats even = e[0] + e[2], odd = e[1] + e[3];
    const Floats even2 = e[0] + all(4) * e[2], odd2 = all(2) * e[1] + all(8) * e[3];
    to[0] = e[0];
    to[1] = even + odd;
    to[2] = even - odd;
    to[3] = even2 + odd2;
    to[4] = even2 - odd2;
    to[5] = e[3];
  }
  static void weights(const Floats* w, Floats* to) {
    const Floats ends = (w[0] + w[2]) * all(-1.F / 6), middle = w[1] * all(-1.F / 6);
    const Floats ends2 = w[0] * all(1.F / 24) + w[2] * all(1.F / 6), middle2 = w[1] * all(1.F / 12);
    to[0] = w[0] * all(0.25F);
    to[1] = ends + middle;
    to[2] = ends - middle;
    to[3] = ends2 + middle2;
    to[4] = ends2 - middle2;
    to[5] = w[2];
  }
  static void outputs(const Floats* m, Floats* to) {
    const Floats even = m[1] + m[2], odd = m[1] - m[2], even2 = m[3] + m[4], odd2 = m[3] - m[4];
    to[0] = m[0] + even + even2;
    to[1] = odd + all(2) * odd2;
    to[2] = even + all(4) * even2;
    to[3] = odd + all(8) * odd2 + m[5];
  }
  static void weight_gradients(const Floats* m, Floats* to) {
    const Floats even = (m[1] + m[2]) * all(-1.F / 6), odd = (m[2] - m[1]) * all(1.F / 6);
    const Floats even2 = m[3] + m[4], odd2 = m[3] - m[4];
    to[0] = m[0] * all(0.25F) + even + even2 * all(1.F / 24);
    to[1] = odd + odd2 * all(1.F / 12);
    to[2] = even + even2 * all(1.F / 6) + m[5];
  }
};

using AlongAxis = void (*)(const Floats*, Floats*);

// One vector of channels: `transform` along the columns of From x From numbers, then along the rows. load(i, j) gives a
// number, store(i, j, v) takes one of To x To.
template <int From, int To, AlongAxis Transform, class Load, class Store>
[[gnu::always_inline]] inline void transform_tile(Load load_at, Store store_at) {
  Floats rows[To][From];
#pragma GCC unroll 6
  for (int j = 0; j < From; ++j) {
    Floats column[From], out[To];
#pragma GCC unroll 6
    for (int i = 0; i < From; ++i) column[i] = load_at(i, j);
    Transform(column, out);
#pragma GCC unroll 6
    for (int i = 0; i < To; ++i) rows[i][j] = out[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < To; ++i) {
    Floats out[To];
    Transform(rows[i], out);
#pragma GCC unroll 6
    for (int j = 0; j < To; ++j) store_at(i, j, out[j]);
  }
}

// Goes through the channels of a tile's first point without dividing.
class Cursor {
public:
  explicit Cursor(const Points& points) : at_(points.data), panel_(points.panel), jump_(points.panel_stride - panel_) {}
  float* at() const { return at_; }
  void next() {
    at_ += kLanes;
    column_ += kLanes;
    if (column_ < panel_) return;
    column_ = 0;
    at_ += jump_;
  }

private:
  float* at_;
  int panel_, column_ = 0;
  int64_t jump_;
};

template <DType T, int From, int To, AlongAxis Transform>
void transform_to_points(int channels, const Window& pixels, const Points& to) {
  const bool whole = pixels.is_whole(From);
  Cursor cursor(to);
  for (int c = 0; c < channels; c += kLanes, cursor.next()) {
    float* const out = cursor.at();
    const auto take = [&](int i, int j, Floats v) { store(out + (To * i + j) * to.point_stride, v); };
    if (whole)
      transform_tile<From, To, Transform>([&](int i, int j) { return load_as<T>(pixels.at(i, j), c); }, take);
    else
      transform_tile<From, To, Transform>(
          [&](int i, int j) { return pixels.has(i, j) ? load_as<T>(pixels.at(i, j), c) : zeros(); }, take);
  }
}

// The order of arguments lets a NaN through.
template <DType T, int M>
void transform_output(int channels, const float* points, int64_t stride, const Window& pixels, const Finish& finish) {
  const Floats high = all(finish.high);
  const bool whole = pixels.is_whole(M);
  for (int c = 0; c < channels; c += kLanes) {
    const Floats bias = finish.bias ? load(finish.bias + c) : zeros();
    transform_tile<M + 2, M, Axis<M>::outputs>(
        [&](int i, int j) { return load(points + ((M + 2) * i + j) * stride + c); },
        [&](int i, int j, Floats v) {
          if (!whole && !pixels.has(i, j)) return;
          v = v + bias;
          store_as<T>(pixels.at(i, j), c, finish.clamps ? smaller(high, larger(zeros(), v)) : v);
        });
  }
}

template <DType T, int M>
void transform_weight_gradient(int channels, const Points& points, const Window& taps) {
  Cursor cursor(points);
  for (int c = 0; c < channels; c += kLanes, cursor.next()) {
    const float* const from = cursor.at();
    transform_tile<M + 2, 3, Axis<M>::weight_gradients>(
        [&](int i, int j) { return load(from + ((M + 2) * i + j) * points.point_stride); },
        [&](int i, int j, Floats v) { store_as<T>(taps.at(i, j), c, v); });
  }
}

// R rows of V vectors: all sums stay in registers. The factors of a row lie RowStride apart.
template <int R, int V, int RowStride>
void multiply_rows(const Product& p) {
  Floats sums[R][V];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) sums[r][v] = p.adds ? load(p.sums + r * p.sums_row + v * kLanes) : zeros();
  const float *run = p.left, *right = p.right;
  for (int begin = 0; begin < p.depth; begin += p.left_run, run += p.left_jump) {
    const float* left = run;
    const int steps = begin + p.left_run < p.depth ? p.left_run : p.depth - begin;
    for (int d = 0; d < steps; ++d, left += p.left_step, right += V * kLanes) {
      Floats columns[V];
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) columns[v] = load(right + v * kLanes);
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        const Floats row = all(left[r * RowStride]);
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) sums[r][v] = multiply_add(row, columns[v], sums[r][v]);
      }
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) store(p.sums + r * p.sums_row + v * kLanes, sums[r][v]);
}

template <int RowStride, int R = kRows>
void multiply(const Product& p, int rows, int columns) {
  if constexpr (R > 1)
    if (rows < R) return multiply<RowStride, R - 1>(p, rows, columns);
  if (columns == 2 * kLanes) return multiply_rows<R, 2, RowStride>(p);
  multiply_rows<R, 1, RowStride>(p);
}

// f(a DType as a type).
template <DType T>
struct Of {
  static constexpr DType value = T;
};
template <class F>
void with_dtype(DType dtype, F f) {
  if (dtype == DType::f32) return f(Of<DType::f32>{});
  if (dtype == DType::bf16) return f(Of<DType::bf16>{});
  f(Of<DType::f16>{});
}

template <int M>
constexpr Transforms transforms_of() {
  return {
      M,
      [](const Channels& c, const Window& pixels, const Points& to) {
        with_dtype(c.dtype, [&](auto d) {
          transform_to_points<decltype(d)::value, M + 2, M + 2, Axis<M>::pixels>(c.count, pixels, to);
        });
      },
      [](const Channels& c, const Window& pixels, const Points& to) {
        with_dtype(c.dtype, [&](auto d) {
          transform_to_points<decltype(d)::value, M, M + 2, Axis<M>::gradients>(c.count, pixels, to);
        });
      },
      [](const Channels& c, const Window& taps, const Points& to) {
        with_dtype(c.dtype, [&](auto d) {
          transform_to_points<decltype(d)::value, 3, M + 2, Axis<M>::weights>(c.count, taps, to);
        });
      },
      [](const Channels& c, const float* points, int64_t stride, const Window& pixels, const Finish& finish) {
        with_dtype(c.dtype,
                   [&](auto d) { transform_output<decltype(d)::value, M>(c.count, points, stride, pixels, finish); });
      },
      [](const Channels& c, const Points& points, const Window& taps) {
        with_dtype(c.dtype, [&](auto d) { transform_weight_gradient<decltype(d)::value, M>(c.count, points, taps); });
      }};
}

constexpr Code kCode{kName,
                     kRows,
                     [](int columns) { return columns % (2 * kLanes) == 0 ? 2 * kLanes : kLanes; },
                     {transforms_of<2>(), transforms_of<3>(), transforms_of<4>()},
                     multiply<kChannels>,
                     multiply<1>};

}  // namespace
}  // namespace convolt::winograd
