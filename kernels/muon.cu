#include "muon.h"

#include <algorithm>

#include "exec/update.h"

namespace convolt {
namespace {

// A block adds a piece of gradient to the momentum, lays the direction out as a matrix, and sums its squares and those
// of the weights.
struct TakeMomentum {
  static constexpr int kThreads = 64;
  struct Shared {
    PieceSums sums[kThreads];
  };
  UpdateArgs a;
  Scratch scratch;

  HD void operator()(Block<kThreads> block, Shared& shared) const {
    if (!scratch.scalars->apply) return;
    const OptimizerPiece piece = a.pieces[block.index];
    const OptimizerTensor tensor = a.tensors[piece.tensor];
    if (tensor.rows == 0) return;
    block.phase([&](int t) {
      GrowingSums sums;
      const int64_t packed = piece.count / 8 * 8;
      for (int64_t i = t * 8; i < packed; i += kThreads * 8) run<8>(tensor, piece.first + i, sums);
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
      for (int64_t i = packed + t; i < piece.count; i += kThreads) run<1>(tensor, piece.first + i, sums);
      shared.sums[t] = sums.all();
    });
    join_sums(block, shared.sums);
    block.phase([&](int t) {
      if (t == 0) scratch.sums[block.index] = shared.sums[0];
    });
  }

  template <int W>
  HD void run(const OptimizerTensor& t, int64_t i, GrowingSums& sums) const {
    const float scale = scratch.scalars->gradient_scale, momentum = a.rule.matrix_momentum;
    Floats<W> g = load_gradient<W>(t, i), v = load<W>(t.moments[0] + i);
    for_lanes<W>([&](int j) {
      g[j] *= scale;
      v[j] = momentum * v[j] + g[j];
      g[j] += momentum * v[j];
    });
    store(t.moments[0] + i, v);
    sums.gradient.add(g);
    sums.weight.add(load<W>(t.weight + i));
    for (int j = 0; j < W; ++j) put(t, i + j, g[j]);
  }

  // With what fills the row up, where it is the last of its row.
  HD void put(const OptimizerTensor& t, int64_t i, float value) const {
    const int64_t place = place_in_matrix(t, i), stride = matrix_stride(t);
    float* const to = scratch.values[0] + t.values + place;
    *to = value;
    if (place % stride + 1 != larger_side(t)) return;
#if defined(__CUDA_ARCH__)
#pragma unroll 1  // seven at most
#endif
    for (int64_t p = 1; p <= stride - larger_side(t); ++p) to[p] = 0;
  }
};

// A block joins the norms of one matrix.
struct MatrixFactors {
  static constexpr int kThreads = 64;
  struct Shared {
    PieceSums sums[kThreads];
  };
  UpdateArgs a;
  Scratch scratch;

  HD void operator()(Block<kThreads> block, Shared& shared) const {
    if (!scratch.scalars->apply) return;
    const OptimizerTensor& tensor = a.tensors[block.index];
    if (tensor.rows == 0) return;
    join_pieces(block, tensor, scratch.sums, shared.sums);
    block.phase([&](int t) {
      if (t > 0) return;
      const double weight = sqrt(shared.sums[0].weight);
      scratch.ratios[block.index] = static_cast<float>(1 / (sqrt(shared.sums[0].gradient) + 1e-7));
      const bool scaled = a.rule.renormalise && weight > 0 && rate_of(*scratch.scalars, tensor) > 0;
      scratch.keeps[block.index] = scaled ? static_cast<float>(sqrt(static_cast<double>(tensor.rows)) / weight) : 1.F;
    });
  }
};

// Some rows of numbers, as muon lays out its matrices.
struct Rows {
  const float* data;
  int rows, stride;
  float scale;  // of what is read

  HD Floats<8> packet(int row, int column) const {
    Floats<8> v{};
    if (row >= rows || column >= stride) return v;
    v = load<8>(data + static_cast<int64_t>(row) * stride + column);
    for_lanes<8>([&](int j) { v[j] *= scale; });
    return v;
  }
};

constexpr float kA = 3.4445F, kB = -4.7750F, kC = 2.0315F;

// With X a matrix and A its Gram matrix: A = X X^T, B = b A + c A A, X = a X + B X.
enum class Step { gram, polynomial, apply };

// A block makes a tile of the result. What is symmetric has tiles on and below the diagonal, and mirrors them.
template <Step K>
struct MatrixStep {
  static constexpr bool kSymmetric = K != Step::apply;
  static constexpr int kTile = kMatrixTile, kThreads = kTile * kTile / 8, kDeep = 32, kPackets = kDeep / 8;
  // Rows of `left` start in memory banks of their own, those of `right` on 16 bytes.
  struct Shared {
    float left[kTile][kDeep + 1];
    alignas(32) float right[kDeep][kTile + 8];
  };
  const OptimizerTensor* tensors;
  const MatrixTile* tiles;
  const UpdateScalars* scalars;
  const float* scales;          // of the matrices as they lie; null: 1
  const float *values, *grams;  // what is read; null where nothing is
  float* out;

  HD Rows matrix(const OptimizerTensor& t, int32_t index) const {
    return {values + t.values, smaller_side(t), matrix_stride(t), scales ? scales[index] : 1.F};
  }
  HD Rows gram(const OptimizerTensor& t) const { return {grams + t.gram, smaller_side(t), gram_stride(t), 1.F}; }

  HD void operator()(Block<kThreads> block, Shared& shared) const {
    if (!scalars->apply) return;
    const MatrixTile tile = tiles[block.index];
    const OptimizerTensor& t = tensors[tile.tensor];
    const Rows left = K == Step::gram ? matrix(t, tile.tensor) : gram(t);
    const Rows right = K == Step::apply ? matrix(t, tile.tensor) : left;
    Lane<Floats<8>, kThreads> sums[4] = {};
    for (int depth = 0; depth < left.stride; depth += kDeep) {
      block.phase([&](int thread) { load_tiles(left, right, tile, depth, thread, shared); });
      block.phase([&](int thread) {
        multiply(shared, thread, sums[0][thread], sums[1][thread], sums[2][thread], sums[3][thread]);
      });
    }
    block.phase([&](int thread) {
      const int row = tile.row + thread / kPackets, column = tile.column + thread % kPackets * 8;
      Floats<8> v{};
      if (K != Step::gram) v = right.packet(row, column);
      for_lanes<8>([&](int j) {
        const float product = (sums[0][thread][j] + sums[1][thread][j]) + (sums[2][thread][j] + sums[3][thread][j]);
        v[j] = K == Step::gram ? product : K == Step::polynomial ? kB * v[j] + kC * product : kA * v[j] + product;
      });
      put(t, tile, row, column, v);
    });
  }

  HD static void load_tiles(const Rows& left, const Rows& right, const MatrixTile& tile, int depth, int thread,
                            Shared& shared) {
    for (int p = thread; p < kTile * kPackets; p += kThreads) {
      const int row = p / kPackets, column = p % kPackets * 8;
      const Floats<8> v = left.packet(tile.row + row, depth + column);
      for (int j = 0; j < 8; ++j) shared.left[row][column + j] = v[j];
      if constexpr (kSymmetric) {
        const Floats<8> w = right.packet(tile.column + row, depth + column);
        for (int j = 0; j < 8; ++j) shared.right[column + j][row] = w[j];
      } else {
        store(&shared.right[row][column], right.packet(depth + row, tile.column + column));
      }
    }
  }

  // Every fourth product into a sum of its own: they do not wait for each other, and round less.
  HD static void multiply(const Shared& shared, int thread, Floats<8>& a, Floats<8>& b, Floats<8>& c, Floats<8>& d) {
    const int row = thread / kPackets, column = thread % kPackets * 8;
#if !defined(__CUDA_ARCH__)
    // Left to itself g++ keeps the sums in memory. Fused as on a GPU.
    __m256 vectors[4] = {load8(a.v), load8(b.v), load8(c.v), load8(d.v)};
    for (int k = 0; k < kDeep; k += 4)
      for (int q = 0; q < 4; ++q)
        vectors[q] =
            _mm256_fmadd_ps(_mm256_set1_ps(shared.left[row][k + q]), load8(&shared.right[k + q][column]), vectors[q]);
    store8(a.v, vectors[0]), store8(b.v, vectors[1]), store8(c.v, vectors[2]), store8(d.v, vectors[3]);
#else
    Floats<8> sums[4] = {a, b, c, d};
    for (int k = 0; k < kDeep; k += 4)
      for (int q = 0; q < 4; ++q) {
        const float x = shared.left[row][k + q];
        const Floats<8> y = load<8>(&shared.right[k + q][column]);
        for_lanes<8>([&](int j) { sums[q][j] += x * y[j]; });
      }
    a = sums[0], b = sums[1], c = sums[2], d = sums[3];
#endif
  }

  HD void put(const OptimizerTensor& t, const MatrixTile& tile, int row, int column, const Floats<8>& v) const {
    const int rows = smaller_side(t), stride = kSymmetric ? gram_stride(t) : matrix_stride(t);
    float* const to = out + (kSymmetric ? t.gram : t.values);
    if (row < rows && column < stride) store(to + static_cast<int64_t>(row) * stride + column, v);
    if constexpr (kSymmetric) {
      if (tile.row == tile.column || row >= stride) return;
      for (int j = 0; j < 8 && column + j < rows; ++j) to[static_cast<int64_t>(column + j) * stride + row] = v[j];
    }
  }
};

template <Step K>
void run_step(Stream s, const UpdateArgs& a, const Scratch& scratch, int iteration) {
  const bool symmetric = K != Step::apply;
  const float* const values = K == Step::polynomial ? nullptr : scratch.values[iteration % 2];
  const float* const grams = K == Step::gram ? nullptr : scratch.grams[K == Step::apply ? 1 : 0];
  float* const out = K == Step::apply ? scratch.values[(iteration + 1) % 2] : scratch.grams[K == Step::gram ? 0 : 1];
  for_each_block<MatrixStep<K>::kThreads>(
      s, symmetric ? a.gram_tile_count : a.matrix_tile_count,
      MatrixStep<K>{a.tensors, symmetric ? a.gram_tiles : a.matrix_tiles, scratch.scalars,
                    iteration == 0 ? scratch.ratios : nullptr, values, grams, out});
}

}  // namespace

void MatrixTables::add(OptimizerTensor& tensor, int32_t index, int64_t rows, int64_t columns) {
  tensor.rows = static_cast<int32_t>(rows);
  tensor.columns = static_cast<int32_t>(columns);
  const int smaller = smaller_side(tensor), stride = matrix_stride(tensor);
  tensor.values = sizes.values;
  tensor.gram = sizes.grams;
  sizes.values += int64_t{smaller} * stride;
  sizes.grams += int64_t{smaller} * gram_stride(tensor);
  for (int row = 0; row < smaller; row += kMatrixTile) {
    for (int column = 0; column <= row; column += kMatrixTile) grams.push_back({index, row, column});
    for (int column = 0; column < stride; column += kMatrixTile) matrices.push_back({index, row, column});
  }
}

void muon_directions(Stream s, const UpdateArgs& args) {
  const Scratch scratch(args);
  for_each_block<TakeMomentum::kThreads>(s, args.piece_count, TakeMomentum{args, scratch});
  for_each_block<MatrixFactors::kThreads>(s, args.tensor_count, MatrixFactors{args, scratch});
  for (int i = 0; i < args.rule.iterations; ++i) {
    run_step<Step::gram>(s, args, scratch, i);
    run_step<Step::polynomial>(s, args, scratch, i);
    run_step<Step::apply>(s, args, scratch, i);
  }
}

int muon_launches(const UpdateRule& rule) { return 2 + 3 * rule.iterations; }

int64_t muon_flops(const std::vector<OptimizerTensor>& tensors, const UpdateRule& rule) {
  int64_t flops = 0;
  for (const OptimizerTensor& t : tensors) {
    const int64_t m = smaller_side(t), n = larger_side(t);
    flops += rule.iterations * (m * m * n + m * m * m + 2 * m * m * n);  // of what is symmetric, half
  }
  return flops;
}

int64_t muon_bytes(const std::vector<OptimizerTensor>& tensors, const UpdateRule& rule) {
  int64_t bytes = 0;
  for (const OptimizerTensor& t : tensors)
    if (t.rows > 0) bytes += (12 + 12 * int64_t{rule.iterations}) * t.elements;
  return bytes;
}

}  // namespace convolt
