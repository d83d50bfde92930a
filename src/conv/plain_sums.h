// Results of convolutions by their definition, one at a time and in double, from operands that need no memory: what a
// kernel is held against before it may be taken.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "conv/conv.h"

namespace convolt {

// An operand of pseudo-random numbers in [-scale, scale), rounded to its type, that repeats after kPeriod elements.
struct Pattern {
  static constexpr int64_t kPeriod = 65521;  // a prime: no extent of a tensor is likely to be a multiple of it
  Pattern(uint64_t seed, float scale, DType dtype);
  double operator()(int64_t i) const { return static_cast<double>(values[static_cast<size_t>(i % kPeriod)]); }

  DType dtype;
  std::vector<float> values;  // one period
};

// The batch norm of a prologue or an epilogue: each f32 [C].
struct PatternNorm {
  std::vector<float> mean, invstd, gamma, beta;
  std::vector<float> scale, bias;  // gamma * invstd, beta - mean * scale; in a prologue rounded to its type
};

// A description whose operands are patterns.
class PlainSums {
public:
  // All but prologues without ReLU: known() says so. Of an epilogue's sums PlainSums knows nothing, and takes the mask
  // of drelu_bias_gradient for all ones.
  static bool known(const ConvDesc& desc);
  explicit PlainSums(const ConvDesc& desc);

  // x and w (fprop), y and w (dgrad), x and y (wgrad); the bias of an epilogue, f32 [out_c], with
  // values that the dtype has too; the input of the batch norm of an epilogue (dgrad), [N, H, W, in_c].
  const Pattern& first() const { return first_; }
  const Pattern& second() const { return second_; }
  const Pattern& bias() const { return bias_; }
  const Pattern& normalised() const { return normalised_; }
  // Of the epilogue join: the other gradient, and the bits of the gate, one for each element of x, which repeat after
  // Pattern::kPeriod bytes.
  const Pattern& joined() const { return joined_; }
  const std::vector<uint8_t>& mask() const { return mask_; }
  // Over the channels of x: of the prologue, or of the epilogues of dgrad. Empty where there is neither.
  const PatternNorm& norm() const { return norm_; }
  // Of what the pass writes.
  const Shape& result_shape() const { return shape_; }
  // The result at flat index `i`, not rounded; about 1 in size.
  double operator()(int64_t i) const;
  // How far a right result may be from it in the description's type.
  double tolerance(double expected) const;
  // Flat indices of results worth looking at: all corners, and others of a fixed sequence, fewer where sums are long.
  std::vector<int64_t> places() const;

private:
  double loaded(int64_t i) const;  // element i of x, behind the prologue
  double before_relu(int64_t i) const;
  bool is_open(int64_t i) const;
  double fprop(int64_t n, int64_t oh, int64_t ow, int64_t k) const;
  double dgrad(int64_t n, int64_t ih, int64_t iw, int64_t c) const;
  double wgrad(int64_t k, int64_t kh, int64_t kw, int64_t c) const;

  ConvDesc desc_;
  int64_t terms_;  // of a sum, at most
  Shape shape_;
  Pattern first_, second_, bias_, normalised_, joined_;
  std::vector<uint8_t> mask_;
  PatternNorm norm_;
};

}  // namespace convolt
