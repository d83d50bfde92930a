// Depthwise convolution of NHWC pictures: each channel with a window of its own, of 3x3, 5x5 or 7x7 taps. Accumulation
// is f32 whatever the storage, and each sum is made in one order: results repeat bit for bit, for any number of
// threads.
//
// x [N, H, W, C], y [N, H', W', C] and w [C, k, k, 1] share a floating dtype. Strides are 1 or 2, padding is zeros, as
// wide as one likes on each side. All kernels overwrite.
//
// Threads walk along rows. A packet of W channels meets k * k taps and the sums that its pixels are still to be added
// to, which fill the registers of a GPU: W is 16 bytes of channels for 3x3, but 2 channels for 5x5 and 7x7, whose sums
// cost more time than their bytes (a warp still reads 128 bytes or more in a row); on the CPU it is 8. Each pixel is
// then read once by each strip of 1, 2 or 4 rows, and the k - 1 rows that strips share come from cache. A GPU reads
// several columns ahead of their use, in shared memory (exec/ring.h): its registers have no room for as much as must be
// on the way. Where the channels do not fill packets, or the strides differ, each pixel of the result is made by
// itself, with k * k reads from cache.
#pragma once

#include "conv_window.h"
#include "convolt/context.h"
#include "convolt/tensor.h"

namespace convolt {

// taps[t * C + c] = tap t = r * k + s of channel c, in f32, k * k * C of them: what depthwise() and depthwise_dgrad()
// read.
void depthwise_taps(Stream s, const Tensor& w, float* taps);

// y(h, w) = the sum of x(h * stride_h - top + r, w * stride_w - left + s) * tap(r, s). Moves 2 elements for each of y
// with stride 1, 5 with stride 2.
void depthwise(Stream s, const Tensor& x, const float* taps, const Tensor& y, const ConvWindow& window,
               const ConvFinish& finish);

// dx, the gradient of depthwise() without what finishes it. Moves as much.
void depthwise_dgrad(Stream s, const Tensor& dy, const float* taps, const Tensor& dx, const ConvWindow& window);

// dw, its other gradient. A thread sums one row of taps of 16 bytes of channels along rows of x and dy; the k threads
// that read the same rows of dy share a block, and read ahead across the ends of rows. Fixed chunks of dy's rows are
// summed by themselves, in scratch (of so many bytes, f32), and joined in double. Reads 2 elements for each of dy with
// stride 1, 5 with stride 2.
int64_t depthwise_wgrad_scratch(const Shape& dy, DType dtype, int kernel);
void depthwise_wgrad(Stream s, const Tensor& x, const Tensor& dy, float* scratch, const Tensor& dw,
                     const ConvWindow& window);

}  // namespace convolt
