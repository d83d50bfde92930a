// Channels of NHWC tensors copied, reordered and weighted. Tensors are [N, H, W, C] or [N, C] of one floating dtype;
// "rows" are the extents before C. No kernel adds to memory: sums are reductions in a fixed order.
#pragma once

#include "convolt/context.h"
#include "convolt/tensor.h"

namespace convolt {

// to[row, to_first + i] = from[row, from_first + i] for i < count, or 0 where from.data is null; the other channels of
// `to` stay. Equal rows. Moves 2 elements (1 for zeros) per element written.
void copy_channels(Stream s, const Tensor& from, int64_t from_first, const Tensor& to, int64_t to_first, int64_t count);

// y[row, j * groups + g] = x[row, g * (C / groups) + j] (X. Zhang et al., arXiv 1707.01083); y is not x. Its gradient
// is the shuffle by C / groups groups. Moves 2 per element.
void channel_shuffle(Stream s, const Tensor& x, const Tensor& y, int64_t groups);

// y = a * b. b has a's shape, or [N, 1, 1, C] or [N, C]: then it multiplies each pixel of its picture. y may be a, or b
// where the shapes are equal. Moves 3 (2) per element.
void mul(Stream s, const Tensor& a, const Tensor& b, const Tensor& y);
// The gradient of a broadcast b: db[n, c] = sum over the pixels of picture n of dy * a; overwrites. Moves 2 per
// element.
void mul_backward_broadcast(Stream s, const Tensor& dy, const Tensor& a, const Tensor& db);

// y[row, c] = x[row, c] * scale[c]; scale: f32 [C]; y may be x. Moves 2 per element.
void scale_channels(Stream s, const Tensor& x, const float* scale, const Tensor& y);
// dscale[c] = sum over rows of dy * x, f32 [C]; overwrites. scratch: f32, as many bytes as the first function says.
// Moves 2 per element.
int64_t scale_channels_scratch(int64_t rows, int64_t channels);
void scale_channels_backward(Stream s, const Tensor& dy, const Tensor& x, float* scratch, float* dscale);

}  // namespace convolt
