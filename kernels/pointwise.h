// Convolutions of single pixels (1x1, stride 1), and of windows whose lines of pixels are as long as they please, on
// the tensor cores, with what batch norm does to their results in the epilogue: [rows, in] x [in, out] products of f16
// or bf16, summed in f32. Channels are multiples of 8, and tensors as elsewhere NHWC or [rows, C]. For products whose
// time is that of their memory: large products are quicker by the libraries' own kernels. Sums are those of what is
// stored: f32 over the rows of a tile and over tiles that follow each other, double over the rest; the same bits each
// time.
#pragma once

#include "block_end.h"

namespace convolt {

// Whether this build has them for the CPU, where tests alone run them: one for GPUs has not.
bool pointwise_on_cpu();

// Bytes that all need besides, for products [rows, depth] x [depth, channels] (of windows a depth of kh kw in); `sums`
// for each channel, 2 or 3.
int64_t pointwise_scratch(int64_t rows, int64_t depth, int64_t channels, int sums);

// y = x w^T, and sums [2, out]: of y and of its square over all rows. x [.., in], w [out, 1, 1, in], y [.., out].
// scale_bias: null, or f16 [2, in], then x is f16 and relu(x * scale + bias), rounded to f16, takes its place.
void pointwise_stats(Stream s, const Tensor& x, const Tensor& w, const Tensor& y, const void* scale_bias,
                     float* scratch, float* sums);

// The same of windows: y = conv(x, w), and its sums. x [N, H, W, in], w [out, kh, kw, in], y [N, H - kh + 1, W - kw +
// 1, out]: a stride of 1, no padding, out at most kMostOfWindow. For a stem, which has few channels: where there are
// many a library is quicker.
constexpr int kMostOfWindow = 128;
void window_stats(Stream s, const Tensor& x, const Tensor& w, const Tensor& y, float* scratch, float* sums);

// The gradient of x, dy w, arrives at a batch norm: gradient_join() of block_end.h with it in place of end.dy, which is
// not read. dy [.., out], w [out, 1, 1, in], end.x and end.dz [.., in]. Gates: recomputed without dy2 and x2, and mask
// with or without them; end.spread is 0.
void pointwise_dgrad(Stream s, const Tensor& dy, const Tensor& w, const GradientJoinArgs& end);

}  // namespace convolt
