// Element-wise activations, addition, dropout and conversions.
#pragma once

#include "convolt/activation.h"
#include "convolt/context.h"
#include "convolt/tensor.h"
#include "step_state.h"

namespace convolt {

// An activation with its parameter.
struct Act {
  constexpr Act(Activation k = Activation::none, float s = 0.01F) : kind(k), slope(s) {}
  Activation kind;
  float slope;  // of leaky_relu, for x <= 0
};

// What the gradient of an activation is found from: its output y (true), else its input x, which must then be kept. A
// leaky_relu of negative slope folds: its y has lost the sign of x.
constexpr bool gradient_from_output(Act a) {
  switch (a.kind) {
    case Activation::silu:
    case Activation::gelu:
    case Activation::hardswish:
    case Activation::mish:
      return false;
    case Activation::leaky_relu:
      return a.slope >= 0;
    default:
      return true;
  }
}

// y = act(x). Any shape; x and y of one floating dtype; y may be x. Finite for every finite x, and for infinite x where
// the limit is; NaN stays NaN. Moves 2 elements per element.
void activation(Stream s, const Tensor& x, const Tensor& y, Act act);
// dx = dy * act'(x); `kept` is y where gradient_from_output(act), else x. At kinks as PyTorch: relu, relu6 and
// hardsigmoid 0, leaky_relu the slope, hardswish 0 and 1. dx may be dy or kept. Moves 3 per element.
void activation_backward(Stream s, const Tensor& dy, const Tensor& kept, const Tensor& dx, Act act);
// The same, and sum[c] = sum over rows of the stored dx, f32 [C]: the gradient of a bias before the activation. scratch
// as for channel_sum (batch_norm.h). Moves 3 per element.
void activation_backward_sum(Stream s, const Tensor& dy, const Tensor& kept, const Tensor& dx, Act act, float* scratch,
                             float* sum);
// Bytes of a row of a mask: a bit for each element of C, filled up to whole 128 as cuBLASLt wants them.
constexpr int64_t mask_row_bytes(int64_t channels) { return (channels + 127) / 128 * 16; }
// The mask of y = relu(x), [rows, C]: bit j of byte k of a row says that element 8 k + j is positive; 0 behind the row.
// Moves 1 per element and 1 bit.
void relu_mask(Stream s, const Tensor& y, uint8_t* mask);
// dx = dx where the bit is set, else 0: the gradient of that relu. Moves 2 per element and 1 bit.
void relu_mask_backward(Stream s, const uint8_t* mask, const Tensor& dx);
// y = a + b; y may be a or b. Moves 3 per element.
void add(Stream s, const Tensor& a, const Tensor& b, const Tensor& y);
// y = x kept with probability 1-p and scaled by 1/(1-p), else 0. The bits are Philox of (input->seed; step, layer, row
// of the global batch, element in the row), so that applying it to dy is its gradient. x: [N, ...]; y may be x. Moves 2
// per element.
void dropout(Stream s, const Tensor& x, const Tensor& y, float p, uint32_t layer, const StepInput* input);
// y = x in y's dtype (f32, bf16, f16; equal shapes). Moves one element of each type per element.
void cast(Stream s, const Tensor& x, const Tensor& y);
// y = x for the f32 [N, H, W, C] batch at input->images; y of any floating dtype. Moves as cast.
void load_images(Stream s, const StepInput* input, const Tensor& y);
// All bytes 0; memory starts on 16 bytes.
void fill_zero(Stream s, void* memory, int64_t bytes);

}  // namespace convolt
