// What the launches of an optimizer's update share: gradients as they lie in memory, and the scratch through which one
// launch tells the next.
#pragma once

#include <type_traits>

#include "exec/block.h"
#include "optimizer.h"

namespace convolt {

template <int W>
HD Floats<W> load_as(const void* p, DType dtype, int64_t i) {
  if (dtype == DType::bf16) return load_ahead<W>(static_cast<const bf16*>(p) + i);
  if (dtype == DType::f16) return load_ahead<W>(static_cast<const f16*>(p) + i);
  return load_ahead<W>(static_cast<const float*>(p) + i);
}

template <int W>
HD Floats<W> load_gradient(const OptimizerTensor& t, int64_t i) {
  if (t.gradient_sum) return load_ahead<W>(t.gradient_sum + i);
  return load_as<W>(t.gradient, t.gradient_dtype, i);
}

// On the CPU eight at once: g++ does not vectorise sqrtf, which may set errno.
template <int W>
HD Floats<W> square_root(Floats<W> x) {
#if !defined(__CUDA_ARCH__)
  if constexpr (W == 8) {
    _mm256_storeu_ps(x.v, _mm256_sqrt_ps(_mm256_loadu_ps(x.v)));
    return x;
  }
#endif
  for_lanes<W>([&](int j) { x[j] = sqrtf(x[j]); });
  return x;
}

// Sums of squares in double, in four that do not wait for each other.
#if defined(__CUDA_ARCH__)
struct SquareSums {
  double v[4] = {0, 0, 0, 0};
  template <int W>
  HD void add(const Floats<W>& x) {
#pragma unroll
    for (int j = 0; j < W; ++j) v[j % 4] += static_cast<double>(x[j]) * static_cast<double>(x[j]);
  }
  HD double all() const { return (v[0] + v[1]) + (v[2] + v[3]); }
};
#else
struct SquareSums {
  __m256d v = _mm256_setzero_pd();
  HD void add(const Floats<8>& x) {
    const __m256d low = _mm256_cvtps_pd(_mm_loadu_ps(x.v)), high = _mm256_cvtps_pd(_mm_loadu_ps(x.v + 4));
    v = _mm256_add_pd(v, _mm256_add_pd(_mm256_mul_pd(low, low), _mm256_mul_pd(high, high)));
  }
  HD void add(const Floats<1>& x) {
    const auto d = static_cast<double>(x[0]);
    v = _mm256_add_pd(v, _mm256_setr_pd(d * d, 0, 0, 0));
  }
  HD double all() const {
    const __m128d pairs = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return _mm_cvtsd_f64(_mm_add_sd(pairs, _mm_unpackhi_pd(pairs, pairs)));
  }
};
#endif

HD bool last_micro_batch(const StepInput& in) { return in.micro_batch + 1 == in.micro_batches; }

// What a gradient as it lies in memory is multiplied by.
HD float unscale(const StepInput& in, const StepStatus& status) {
  if (in.micro_batches == 1) return 1.F / status.loss_scale;
  return status.gradient_weight > 0 ? 1.F / (status.loss_scale * status.gradient_weight) : 0.F;
}

// What the update launch is told by the launches before it.
struct UpdateScalars {
  int32_t apply;
  float gradient_scale;
  float rates[1 + kOwnRates];      // by OptimizerTensor::rate
  float correction1, correction2;  // 1 / (1 - beta1^t), 1 / sqrt(1 - beta2^t)
};

HD float rate_of(const UpdateScalars& scalars, const OptimizerTensor& t) {
  return scalars.rates[t.rate] * t.rate_scale;
}

// Sums of squares over a piece, of the gradient as it lies in memory (muon: of the momentum too; lamb, later: of the
// direction) and of the weight.
struct PieceSums {
  double gradient, weight;
};
// Those of one thread, as they grow.
struct GrowingSums {
  SquareSums gradient, weight;
  HD PieceSums all() const { return {gradient.all(), weight.all()}; }
};

struct Scratch {
  UpdateScalars* scalars;
  PieceSums* sums;  // [pieces]
  float* factors;   // [pieces], of adaptive clipping
  float* ratios;    // [tensors], LARS's and LAMB's; muon's: 1 / norm of the momentum
  float* keeps;     // [tensors], muon's: of the weights
  // Of muon: two of all matrices, in turns the input and the output of an iteration, and two of all Gram matrices.
  float* values[2];
  float* grams[2];

  explicit Scratch(const UpdateArgs& a) {
    scalars = static_cast<UpdateScalars*>(a.scratch);
    char* const base = static_cast<char*>(a.scratch) + 256;
    sums = reinterpret_cast<PieceSums*>(base);
    factors = reinterpret_cast<float*>(sums + a.piece_count);
    ratios = factors + a.piece_count;
    keeps = ratios + a.tensor_count;
    values[0] = reinterpret_cast<float*>(base + sums_bytes(a.tensor_count, a.piece_count));
    values[1] = values[0] + a.matrices.values;
    grams[0] = values[1] + a.matrices.values;
    grams[1] = grams[0] + a.matrices.grams;
  }
  // Up to the matrices, which start on 256 bytes.
  static int64_t sums_bytes(int64_t tensors, int64_t pieces) {
    return (pieces * static_cast<int64_t>(sizeof(PieceSums) + sizeof(float)) +
            tensors * static_cast<int64_t>(2 * sizeof(float)) + 255) /
           256 * 256;
  }
};
static_assert(sizeof(UpdateScalars) <= 256);

// Muon's layout of a tensor: as many rows as its smaller side, each a multiple of eight long and 0 at its end.
HD int smaller_side(const OptimizerTensor& t) { return t.rows < t.columns ? t.rows : t.columns; }
HD int larger_side(const OptimizerTensor& t) { return t.rows < t.columns ? t.columns : t.rows; }
HD int matrix_stride(const OptimizerTensor& t) { return (larger_side(t) + 7) / 8 * 8; }
HD int gram_stride(const OptimizerTensor& t) { return (smaller_side(t) + 7) / 8 * 8; }
// Of element i.
HD int64_t place_in_matrix(const OptimizerTensor& t, int64_t i) {
  const auto columns = static_cast<uint32_t>(t.columns);
  const uint32_t row = static_cast<uint32_t>(i) / columns, column = static_cast<uint32_t>(i) - row * columns;
  const bool wide = t.rows <= t.columns;
  return static_cast<int64_t>(wide ? row : column) * matrix_stride(t) + (wide ? column : row);
}

// sums[0] = the sum over all threads of the block, in a fixed order.
template <int B>
HD void join_sums(const Block<B>& block, PieceSums (&sums)[B]) {
  for (int width = B / 2; width > 0; width /= 2)
    block.phase([&](int t) {
      if (t >= width) return;
      sums[t].gradient += sums[t + width].gradient;
      sums[t].weight += sums[t + width].weight;
    });
}

// add(width, i, sums) for each packet of W elements of the piece and for each one left over, and sums[0] = what all of
// them added, in a fixed order. On the CPU each thread reads in order.
template <int W, int B, class F>
HD void sum_piece(const Block<B>& block, const OptimizerPiece& piece, PieceSums (&sums)[B], F add) {
  block.phase([&](int t) {
    GrowingSums of_thread;
    const int64_t packed = piece.first % W == 0 ? piece.count / W * W : 0;
#if defined(__CUDA_ARCH__)
    for (int64_t i = t * W; i < packed; i += B * W) add(std::integral_constant<int, W>{}, piece.first + i, of_thread);
#else
    const int64_t share = (packed / W + B - 1) / B * W, end = std::min(packed, (t + 1) * share);
    for (int64_t i = t * share; i < end; i += W) add(std::integral_constant<int, W>{}, piece.first + i, of_thread);
#endif
#if defined(__CUDA_ARCH__)
#pragma unroll 1  // short, and unrolled it would spill
#endif
    for (int64_t i = packed + t; i < piece.count; i += B)
      add(std::integral_constant<int, 1>{}, piece.first + i, of_thread);
    sums[t] = of_thread.all();
  });
  join_sums(block, sums);
}

// sums[0] = those of all pieces of a tensor.
template <int B>
HD void join_pieces(const Block<B>& block, const OptimizerTensor& tensor, const PieceSums* pieces,
                    PieceSums (&sums)[B]) {
  block.phase([&](int t) {
    PieceSums of_thread{0, 0};
    for (int64_t i = t; i < tensor.pieces; i += B) {
      of_thread.gradient += pieces[tensor.first_piece + i].gradient;
      of_thread.weight += pieces[tensor.first_piece + i].weight;
    }
    sums[t] = of_thread;
  });
  join_sums(block, sums);
}

}  // namespace convolt
