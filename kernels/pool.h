// Pooling and slicing of NHWC pictures. Geometry as PyTorch's. Backward passes write each input element once, as
// gathers or, of max pools whose windows do not overlap, window by window: results repeat bit for bit. Each moves the
// picture and the pooled picture (with its index) once, however often windows overlap.
#pragma once

#include "convolt/context.h"
#include "convolt/tensor.h"

namespace convolt {

struct PoolWindow {
  int kernel_h = 2, kernel_w = 2, stride_h = 2, stride_w = 2;
  Padding pad;
  bool ceil_mode = false;         // the extents are rounded up
  bool count_include_pad = true;  // of averages
  // At most half of the window on each side: then every window holds a pixel.
  bool pad_fits() const;
  // [N, H, W, C] -> [N, H', W', C] with H' = (H + top + bottom - kernel) / stride + 1, rounded down; in ceil mode up,
  // but without a last window that would start beyond picture and top padding. 0 where the window does not fit.
  Shape pooled(const Shape& x) const;
};

// y[n, oh, ow, c] = the largest x of the window, NaN if there is one; padding never wins. index (u8, y's shape; data
// may be null): the position in the window (row * kernel_w + column) of the first largest. kernel_h * kernel_w <= 255.
void max_pool(Stream s, const Tensor& x, const Tensor& y, const Tensor& index, const PoolWindow& window);
// dx = gradient of max_pool from the stored index; overwrites.
void max_pool_backward(Stream s, const Tensor& dy, const Tensor& index, const Tensor& dx, const PoolWindow& window);
// The mean over the window. With count_include_pad (PyTorch's default) padding counts as zeros, but what a window in
// ceil mode has beyond the padded picture does not count; else only pixels count.
void avg_pool(Stream s, const Tensor& x, const Tensor& y, const PoolWindow& window);
void avg_pool_backward(Stream s, const Tensor& dy, const Tensor& dx, const PoolWindow& window);
// x [N, H, W, C] -> y [N, C], the mean over H and W.
void global_avg_pool(Stream s, const Tensor& x, const Tensor& y);
void global_avg_pool_backward(Stream s, const Tensor& dy, const Tensor& dx);
// y [N, h, w, C]: y[n, i, j] is the mean of x over rows floor(i H / h) .. ceil((i + 1) H / h) - 1, columns likewise
// (torch.nn.AdaptiveAvgPool2d). h and w may be larger than H and W.
void adaptive_avg_pool(Stream s, const Tensor& x, const Tensor& y);
void adaptive_avg_pool_backward(Stream s, const Tensor& dy, const Tensor& dx);

// y[n, h, w, c] = x[n, h * stride, w * stride, c - channels_before], 0 where that channel does not exist: the
// parameter-free shortcut "option A" of K. He et al., arXiv 1512.03385, section 4.2. x [N, H, W, C] -> y [N,
// ceil(H/stride), ceil(W/stride), C'].
void slice_pad(Stream s, const Tensor& x, const Tensor& y, int stride, int channels_before);
void slice_pad_backward(Stream s, const Tensor& dy, const Tensor& dx, int stride, int channels_before);

}  // namespace convolt
