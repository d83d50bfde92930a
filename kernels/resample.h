// NHWC pictures with a border and of another size. Backward passes are gathers: each input element is written once.
#pragma once

#include "convolt/context.h"
#include "convolt/tensor.h"

namespace convolt {

// y[n, h, w, c] = x[n, h + down, w + right, c], `value` where x has no such pixel: pads for negative, crops for
// positive offsets, so that each is the other's gradient. Batch and channels are equal. Moves 2 elements per element of
// y.
void shift_picture(Stream s, const Tensor& x, const Tensor& y, int down, int right, float value);

enum class ResampleFilter : uint8_t { nearest, bilinear };

// x [N, H, W, C] -> y [N, h, w, C], as torch.nn.functional.interpolate without align_corners. nearest: the pixel at
// floor(i H / h), by integers (torch's product of floats falls one short for some sizes). bilinear: between the two
// pixels around max((i + 1/2) H / h - 1/2, 0), the last one beyond the last; without antialiasing. Extents below 16384.
// Moves x and y once: x is read again from cache.
void resample(Stream s, const Tensor& x, const Tensor& y, ResampleFilter filter);
void resample_backward(Stream s, const Tensor& dy, const Tensor& dx, ResampleFilter filter);

}  // namespace convolt
