// The end of a residual block in one sweep each way: batch norms, the addition of their branches and the ReLU; and on
// the way back the join of two gradients, the ReLU's gate and the sums that the batch norms' gradients need. Shapes and
// coef as in batch_norm.h.
#pragma once

#include "activation.h"

namespace convolt {

// y = act(x * scale + bias + r), where r is `residual`, or that times the scale plus the bias of residual_coef; act
// none or relu. y may be x or residual. Moves 3 elements per element, and 1 bit for the mask.
struct BlockEndArgs {
  Tensor x;
  const float* coef = nullptr;
  Tensor residual;
  const float* residual_coef = nullptr;  // may be null
  Tensor y;
  // > 0: y is [N, C], the mean of what would be y over so many pixels of each picture, and is no operand; moves 2
  // elements per element.
  int64_t mean_over = 0;
  uint8_t* mask = nullptr;  // relu: bit i % 8 of byte i / 8 says that element i of y is positive; channels in eights
  Act act;
};
void block_end(Stream s, const BlockEndArgs& args);

// What an incoming gradient passes before it reaches a batch norm.
enum class Gate : uint8_t {
  none,
  mask,        // of bits, as block_end writes it
  output,      // a ReLU, by its stored output
  recomputed,  // a ReLU of x * scale + bias; of one gradient and one batch norm
};

// dz = gate(dy + dy2), and with it the sums of the gradient of one batch norm or of two that share dz:
// dgamma[c] = sum dz * (x - mean) * invstd, dbeta[c] = sum dz. dz may be dy or dy2. Sums are those of the stored dz.
// Moves 3 elements per element, 1 more for dy2, x2 and a stored output each.
struct GradientJoinArgs {
  // dy2.data may be null. Of x [N, H, W, C] it may be [N, (H + 1) / 2, (W + 1) / 2, C], every second pixel of every
  // second line, where the others are zeros: the gradient of a convolution of single pixels with a stride of 2.
  Tensor dy, dy2;
  int64_t spread = 0;  // > 0: dy is [N, C], the gradient of the mean over so many pixels of each picture
  Tensor x;
  const float* coef = nullptr;
  Gate gate = Gate::none;
  const void* gate_data = nullptr;  // u8 bits, or the output; by `gate`
  Tensor x2;                        // data may be null
  const float* coef2 = nullptr;
  Tensor dz;
  float* scratch = nullptr;                                                          // gradient_join_scratch() bytes
  float *dgamma = nullptr, *dbeta = nullptr, *dgamma2 = nullptr, *dbeta2 = nullptr;  // [C], overwritten
};
// The shape of every second pixel of every second line.
inline Shape thinned(const Shape& x) { return {x[0], (x[1] + 1) / 2, (x[2] + 1) / 2, x[3]}; }
int64_t gradient_join_scratch(int64_t rows, int channels, bool second);
void gradient_join(Stream s, const GradientJoinArgs& args);

// The gradients of the two batch norms that a block ends with, from the dz that they share:
// dx = scale * (dz - (dbeta + xhat * dgamma) / rows), each with its own. dx or dx2 may be dz. Moves 5 per element.
struct PairBackwardArgs {
  Tensor dz;
  struct Branch {
    Tensor x;
    const float *coef = nullptr, *dgamma = nullptr, *dbeta = nullptr;
    Tensor dx;
  } branch[2];
};
void batch_norm_pair_backward(Stream s, const PairBackwardArgs& args);

}  // namespace convolt
