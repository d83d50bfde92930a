// Convolution of NHWC pictures with groups of 4 or 8 channels, in and out, by windows of 3x3 taps, in the manner of
// depthwise.h: f32 sums, each in one order, the same bits each time and for any number of threads.
//
// x [N, H, W, C], y [N, H', W', C] and w [C, 3, 3, g] share a floating dtype, g = 4 or 8 divides C. Strides are both 1
// or both 2. All kernels overwrite.
//
// A thread owns 4 (2, of f32 1) channels of the result and reads the 4 (8) of their group: up to 144 taps stay in
// registers. No tensor core is used: by the data sheet of an H200, 36 (72) multiply-adds for each element of y take 1.3
// (2.6) times as long as its bytes in 16 bits; the smallest product of matrices has 8 channels a side.
#pragma once

#include "conv_window.h"
#include "convolt/context.h"
#include "convolt/tensor.h"

namespace convolt {

// The taps that grouped() and, transposed within groups, grouped_dgrad() read, f32 [9 * g, C]: tap t from channel i of
// the group to channel c at taps[(t * g + i) * C + c].
void grouped_taps(Stream s, const Tensor& w, float* taps);
void grouped_transposed_taps(Stream s, const Tensor& w, float* taps);

// y[.., c] = the sum over r, s and the channels i of c's group of x(h * stride - top + r, w * stride - left + s, i) *
// tap(r, s, i, c). Moves 2 elements for each of y with stride 1, 5 with stride 2, as do its gradients.
void grouped(Stream s, const Tensor& x, const float* taps, const Tensor& y, int group, const ConvWindow& window,
             const ConvFinish& finish);
void grouped_dgrad(Stream s, const Tensor& dy, const float* transposed_taps, const Tensor& dx, int group,
                   const ConvWindow& window);
// scratch: of as many bytes as the first function says.
int64_t grouped_wgrad_scratch(const Shape& dy, DType dtype, int group);
void grouped_wgrad(Stream s, const Tensor& x, const Tensor& dy, float* scratch, const Tensor& dw, int group,
                   const ConvWindow& window);

}  // namespace convolt
